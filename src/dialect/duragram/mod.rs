//! Duragram's own protocol, as PROTOCOL.md has it: the server's side of it.

mod admission;
pub mod session;

pub use admission::{Admission, AdmissionConfig, DataRequest, Dropped, Request, RequestKind, Seal};
