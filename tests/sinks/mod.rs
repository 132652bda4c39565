//! Sinks against the real systems that they write to, each started by its test on a free port.

mod exec;
mod figures;
pub(crate) mod http;
mod mqtt;
mod nats;
mod postgres;
mod redis;
mod siege;
mod support;
