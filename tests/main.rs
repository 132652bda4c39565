//! The integration tests, one program: each would link the whole of RocksDB again.
//!
//! `wire` speaks raw UDP to the real program, `cli` runs its commands, `client` tests the library against it; `faults` lets its
//! disk fail, `damage` hurts its files, `attacks` are on sealed mode; `host` is what surrounds the server, `net` its addresses
//! and sockets, `journal` what is on disk after kills; `sinks` lets sinks write to real systems; `fuzz` feeds its parsers; `docs` holds the documents to the program.

mod attacks;
mod cli;
mod client;
mod common;
mod damage;
mod docs;
mod faults;
mod fuzz;
mod host;
mod journal;
mod net;
mod sinks;
mod wire;
