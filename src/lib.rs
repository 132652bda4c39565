//! Duragram: a durable UDP ingestion server. *Acked means on disk; on disk means processed.*
//!
//! A library as well as a program: [`server`] runs the server with a [`process::Handler`] of yours,
//! [`client`] sends: the crate `duragram-client`, which alone is enough for who only sends. The protocol itself is the crate `duragram-proto`, re-exported as [`proto`].
//!
//! Dependencies point one way: `net` and `journal` know the protocol and `model`, not each other; `commit` and
//! `process` know traits; only `journal/rocksdb` names rocksdb; only `net/` names socket2; only `server`
//! knows everything.

pub mod admin;
pub mod cli;
pub mod commit;
pub mod config;
pub mod dialect;
mod file_modes;
pub mod journal;
pub mod keys;
pub mod limits;
mod log_limit;
pub mod metrics;
pub mod model;
pub mod net;
pub mod process;
mod rate;
mod record_json;
mod resources;
pub mod secret_file;
pub mod server;
mod signal_mask;
pub mod sink;

pub use duragram_client as client;
pub use duragram_proto as proto;
