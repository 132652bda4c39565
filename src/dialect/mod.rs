//! Dialects: what turns a datagram into "new, duplicate or refused", and a receipt into a reply.
//!
//! [`duragram`] is the project's own protocol.

pub mod duragram;
