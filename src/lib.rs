//! Duragram: a durable UDP ingestion server. *Acked means on disk; on disk means processed.*
//!
//! A library as well as a program: [`server`] runs the server with a [`process::Handler`] of yours,
//! [`client`] sends: the crate `duragram-client`, which alone is enough for who only sends. The protocol itself is the crate `duragram-proto`, re-exported as [`proto`].
//!
//! Dependencies point one way, and make no circle: `tests/architecture/parts.rs` has the table of which part may know which,
//! and `cargo test --test architecture` holds the source to it.

pub mod admin;
pub mod cli;
pub mod commit;
pub mod config;
pub mod dialect;
pub mod host;
pub mod journal;
pub mod keys;
pub mod limits;
pub mod metrics;
pub mod model;
pub mod net;
pub mod process;
mod rate;
mod record_json;
pub mod server;
pub mod sink;

pub use duragram_client as client;
pub use duragram_proto as proto;
