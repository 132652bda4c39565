//! The integration tests, one program: each would link the whole of RocksDB again.
//!
//! `attacks` are on sealed mode. `wire_*` speak raw UDP to the real binary, `crash_*` kill it, `faults` let its disk fail,
//! `cli_*` run its commands, `client_*` test the library, `host_*` what surrounds the server, `net_*` its
//! addresses and sockets.

mod attacks;
mod citations;
mod cli_basics;
mod cli_dead;
mod cli_environment;
mod cli_journal;
mod cli_keys;
mod cli_output;
mod cli_serve;
mod cli_support;
mod cli_tail;
mod client_abandon;
mod client_async;
mod client_blocking;
mod client_send;
mod client_send_troubles;
mod common;
mod config_readme;
mod crash_kills;
mod damage;
mod dead_letters;
mod faults;
mod fuzz;
mod host_keys;
mod host_start;
mod host_systemd;
mod load_cli;
mod load_memory;
mod net_addresses;
mod net_adopted;
mod net_failures;
mod net_sharing;
mod recovery_serve;
mod wire_acks;
mod wire_garbage;
mod wire_hello;
mod wire_loss;
mod wire_pipeline;
mod wire_rejects;
mod wire_restart;
