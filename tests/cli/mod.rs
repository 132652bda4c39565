//! The program's commands, run as users run them.

mod ask;
mod ask_many;
mod ask_status;
mod basics;
mod dead;
mod environment;
mod idle_memory;
mod journal;
mod keys;
mod load;
mod load_memory;
mod load_stall;
mod output;
mod serve;
mod sink;
pub(crate) mod support;
mod tail;
