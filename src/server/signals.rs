//! Signals of the process.
//!
//! | signal | while the server starts | while it serves |
//! |---|---|---|
//! | TERM, INT | ends at once with exit code 0: nothing was accepted yet | stops in good order; a second one ends the wait for processing; a third one ends the process at once, with exit code 1 |
//! | ALRM, PWR, XCPU | the same: the time that the process was given is over, or the power is about to be | the same |
//! | HUP | is kept until the server serves | reopens the sinks' files, reads the key file again |
//! | QUIT | ends at once, with exit code 1 | the same |
//! | USR1, USR2 | nothing, and says so | the same |
//! | PIPE, XFSZ, TTOU | nothing (`signal_mask`): the write that caused it fails, which is told by whoever wrote | the same |
//! | IO, PROF, VTALRM | nothing (`signal_mask`) | the same |
//!
//! Handlers are installed by the first statement of `main`: by default HUP and the USRs end a process, and one that is the
//! first of its container (PID 1) is not even reached by a signal that it has no handler for. Ending at once is `_exit`, in
//! place of a return from `main`: that would tear RocksDB down under threads that are still at work, and so abort. It is a
//! crash to the journal, which loses nothing that was acked.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;
use nix::libc::SIGPWR;
use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU};
use signal_hook::iterator::Signals;
use signal_hook::low_level::exit;

use super::{ServerHandle, systemd};
use crate::host::resources::{self, Shortage};

/// To stop, whether somebody says so or a limit or the power does.
const STOPS: [i32; 5] = [SIGTERM, SIGINT, SIGALRM, SIGPWR, SIGXCPU];

/// Who obeys. Of the process, as signals are.
static OBEYING: Mutex<Obeying> = Mutex::new(Obeying::Nobody);

enum Obeying {
    /// No signal is taken yet: the system does what it does by default.
    Nobody,
    /// The server is not there yet.
    Starting {
        /// SIGHUP has come, and the server is to hear of it when it is there.
        reopen: bool,
    },
    Server {
        handle: ServerHandle,
        /// How many times it was told to stop.
        stops: u32,
    },
}

fn obeying() -> MutexGuard<'static, Obeying> {
    OBEYING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the signals from here on and keeps them for the server to come. Does nothing when that is so already.
///
/// # Errors
/// The system gives no thread, or no file descriptors.
pub(super) fn hold() -> Result<(), Shortage> {
    let mut obeying = obeying();
    match *obeying {
        Obeying::Starting { .. } => return Ok(()),
        Obeying::Server { .. } => {}
        Obeying::Nobody => {
            resources::look_first()?;
            let short = |source| Shortage::new("starting to listen for signals", source);
            let others = [SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2];
            let mut signals = Signals::new(STOPS.iter().chain(&others)).map_err(short)?;
            let listen = move || signals.forever().for_each(obey);
            thread::Builder::new().name("signals".to_owned()).spawn(listen).map_err(short)?;
        }
    }
    *obeying = Obeying::Starting { reopen: false };
    Ok(())
}

/// From here on the server obeys, beginning with what was kept for it.
pub(super) fn forward(handle: ServerHandle) {
    let mut obeying = obeying();
    if let Obeying::Starting { reopen: true } = *obeying {
        handle.reopen();
    }
    *obeying = Obeying::Server { handle, stops: 0 };
}

fn obey(signal: i32) {
    let mut obeying = obeying();
    let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
    match (signal, &mut *obeying) {
        (SIGQUIT, _) => {
            say(move || tracing::warn!(signal = name, "told to end at once; nothing that was acked is lost"));
            exit(1);
        }
        (stop, Obeying::Server { handle, stops }) if STOPS.contains(&stop) => {
            *stops += 1;
            if *stops > 2 {
                let told = "told to stop a third time: ending at once; nothing that was acked is lost";
                say(move || tracing::warn!(signal = name, "{told}"));
                exit(1);
            }
            handle.stop();
        }
        (stop, Obeying::Starting { .. } | Obeying::Nobody) if STOPS.contains(&stop) => {
            let told = "told to stop before the server was ready; nothing was accepted yet";
            say(move || tracing::info!(signal = name, "{told}"));
            systemd::stopping();
            exit(0);
        }
        (SIGHUP, Obeying::Server { handle, .. }) => handle.reopen(),
        (SIGHUP, Obeying::Starting { reopen }) => {
            *reopen = true;
            let told = "files are opened anew and keys read again as soon as the server is ready";
            say(move || tracing::info!(signal = name, "{told}"));
        }
        _ => say(move || tracing::info!(signal = name, "this signal means nothing to the server")),
    }
}

/// Logs, but waits for that no longer than a moment: a log that nobody takes must not keep the process from obeying.
fn say(log: impl FnOnce() + Send + 'static) {
    let (said, heard) = bounded(1);
    let say = move || {
        log();
        let _nobody_waits = said.try_send(());
    };
    if thread::Builder::new().name("say".to_owned()).spawn(say).is_ok() {
        let _in_time = heard.recv_timeout(Duration::from_millis(200));
    }
}
