//! A target of each kind.

pub(super) mod appending;
pub(super) mod file;
pub(super) mod mqtt;
pub(super) mod nats;
pub(super) mod postgres;
pub(super) mod redis;
