//! The client library against the real program.

mod abandon;
mod asynchronous;
mod blocking;
mod send;
mod send_troubles;
