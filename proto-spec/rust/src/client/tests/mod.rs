//! The machine against a model server over a bad path in virtual time, and datagram by datagram.

mod acks;
mod asks;
mod asks_world;
mod bench;
mod bursts;
mod calm;
mod doubt;
mod duties;
mod hostile;
mod model_answers;
mod model_server;
mod recovery;
mod rejects;
#[cfg(feature = "sealed")]
mod sealed;
#[cfg(feature = "sealed")]
mod sealed_asks;
mod takes;
mod transfers;
mod world;
