//! How often something may happen: what a source may ask for, and what may be logged. The time is passed in.

mod buckets;
mod log_limit;

pub(crate) use buckets::{Buckets, source};
pub(crate) use log_limit::LogLimit;
