//! Duragram's own protocol, as PROTOCOL.md has it: the server's side of it.

pub mod session;
