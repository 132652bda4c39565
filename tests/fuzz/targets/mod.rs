//! What is fuzzed: each target takes any bytes, and panics when the product does not do what it must. They are called by
//! the runner beside this directory, on the stable tool chain, and by libFuzzer (`tests/fuzz/libfuzzer`).

mod block;
mod decoder;
mod input;
mod keys;
mod recovery;
mod session;

pub(crate) use block::block;
pub(crate) use decoder::decoder;
pub(crate) use keys::keys;
pub(crate) use recovery::recovery;
pub(crate) use session::session;
