//! What the tests of sinks share: targets that they start and stop themselves, and a bad network between.

pub(crate) mod lane;
pub(crate) mod proxy;
pub(crate) mod server;
