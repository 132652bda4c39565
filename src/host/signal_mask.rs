//! Signals that an environment sends without meaning harm, and whose default is to end or to stop the process.
//!
//! | signal | when | what comes of it here |
//! |---|---|---|
//! | XFSZ | a write meets the limit of a file's size (`ulimit -f`) | the write fails with EFBIG: a sink's failure is the sink's, the journal's ends the server with exit code 4 |
//! | TTOU | a server in the background logs to a terminal with `stty tostop` | it logs |
//! | IO, PROF, VTALRM | a descriptor or a timer that the program before this one in the process has set up | nothing |
//! | PIPE | a write to what nobody reads | the write fails (Rust's runtime ignores the signal) |
//!
//! They are blocked rather than ignored, which comes to the same for these and needs no `unsafe`. Threads inherit it, so it is
//! done before the first one starts.

use nix::sys::signal::{SigSet, Signal};

/// To be called by the first thread, before there are others. `logs_to_terminal`: the process writes to a terminal whether it is in
/// the foreground or not.
///
/// The signals that stop or end the process on purpose are unblocked: whoever has started it may have left them blocked, and
/// then not even SIGTERM would reach it.
pub(crate) fn prepare(logs_to_terminal: bool) {
    let mut blocked = SigSet::empty();
    for signal in [Signal::SIGXFSZ, Signal::SIGIO, Signal::SIGPROF, Signal::SIGVTALRM] {
        blocked.add(signal);
    }
    if logs_to_terminal {
        blocked.add(Signal::SIGTTOU);
    }
    let mut unblocked = SigSet::empty();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGPWR,
        Signal::SIGXCPU,
    ] {
        unblocked.add(signal);
    }
    if let Err(error) = blocked.thread_block().and_then(|()| unblocked.thread_unblock()) {
        tracing::warn!(%error, "the mask of signals cannot be set");
    }
}
