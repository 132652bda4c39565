//! What surrounds the server: signals, systemd, keys, what a start inherits.

mod keys;
mod shortages;
mod start;
pub(crate) mod systemd;
