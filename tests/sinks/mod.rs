//! Sinks against the real systems that they write to, each started by its test on a free port.

mod http;
mod support;
