//! The simulator: the real committer, session table, journal, recovery, lanes and client machine; the network, the disk, the
//! clock and the life of the process simulated, in one thread, from one seed. `oracle` judges. Of eight seeds two have
//! clients in sealed mode alone, and one has both kinds (`sealed`); two have several configured sinks in the place of an embedded
//! handler's lanes (`sinks`). Of thirteen, three have clients that ask (`asks`).
//!
//! `scripts/sim` runs many seeds, or one again; the tests here are a short run and the proof that the oracles can fail.

#![allow(clippy::print_stdout)] // seeds, traces and sums

mod asker;
mod asks;
mod client;
mod core;
mod oracle;
mod plan;
mod rng;
mod rude;
mod runs;
mod sabotage;
mod sealed;
mod server;
mod sinks;
mod tests;
mod world;
