//! Raw UDP to the real program: what it answers, and what it keeps silent about.

mod acks;
mod asks;
mod garbage;
mod hello;
mod loss;
mod pipeline;
mod rejects;
mod restart;
