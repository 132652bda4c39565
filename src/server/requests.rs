//! What the server's main thread is asked for from elsewhere. None of it is lost, however often it is asked for and whatever
//! that thread is at meanwhile.

use crossbeam_channel::{Receiver, Sender, bounded};

/// Tells a running server to stop or to reopen files. Cheap to clone; without effect when the server has ended.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    stop: Sender<()>,
    reopen: Sender<()>,
}

/// The end of the server's main thread.
#[derive(Debug)]
pub(super) struct Requests {
    /// A request to stop; a second one asks to wait for the lanes no longer.
    pub(super) stop: Receiver<()>,
    /// A request to open files anew; one that waits stands for all that came since.
    pub(super) reopen: Receiver<()>,
}

pub(super) fn requests() -> (ServerHandle, Requests) {
    let ((stop, stops), (reopen, reopens)) = (bounded(2), bounded(1));
    (ServerHandle { stop, reopen }, Requests { stop: stops, reopen: reopens })
}

impl ServerHandle {
    /// Stops the server in good order: what was received is committed and acked, the lanes get `drain_timeout` to go on.
    /// A second call ends the wait for the lanes.
    pub fn stop(&self) {
        // A third call asks for no more than those that wait.
        let _those_wait_already = self.stop.try_send(());
    }

    /// Lets every handler open its files anew, and reads the key file again: sessions go on, unless their client is revoked or
    /// has another key. A key file that is wrong is logged and counted, and the keys stay as they are.
    pub fn reopen(&self) {
        let _one_waits_already = self.reopen.try_send(());
    }
}
