//! Signals of the process.

use std::io;
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use super::ServerHandle;

/// SIGTERM and SIGINT stop the server, SIGHUP reopens files and reads the key file again. A thread of its own, so that a
/// server that is embedded
/// keeps its signals to itself.
pub(super) fn forward(server: ServerHandle) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut term, mut int, mut hup) = {
        let _context = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?)
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    Some(()) = term.recv() => server.stop(),
                    Some(()) = int.recv() => server.stop(),
                    Some(()) = hup.recv() => server.reopen(),
                    else => return,
                }
            }
        });
    })?;
    Ok(())
}
