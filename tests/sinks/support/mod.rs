//! What the tests of sinks share: targets that they start and stop themselves, and a bad network between.

pub mod lane;
pub mod proxy;
