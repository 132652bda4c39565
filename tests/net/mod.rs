//! Addresses and sockets of the real program.

pub(crate) mod addresses;
mod adopted;
mod asks;
mod failures;
mod sharing;
