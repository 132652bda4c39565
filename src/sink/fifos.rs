//! The FIFOs that sinks write to, for whoever reports what processing waits for.
//!
//! Whether somebody reads one is asked of the open FIFO, never of its path: a path may lie on a file system that does not
//! answer, and whoever asks must not hang with it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The FIFOs that the sinks hold open now, by the names of their sinks. Its clones are the same list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fifos(Arc<Mutex<BTreeMap<String, File>>>);

impl Fifos {
    /// The sink holds this FIFO open from now on, or none any more.
    pub(super) fn hold(&self, sink: &str, fifo: Option<File>) {
        match fifo {
            Some(fifo) => self.lock().insert(sink.to_owned(), fifo),
            None => self.lock().remove(sink),
        };
    }

    /// For each FIFO that nobody reads now what an operator should know of it. Waits for nothing.
    pub(crate) fn unread(&self) -> Vec<String> {
        let fifos = self.lock();
        let unread = fifos.iter().filter(|(_, fifo)| is_deserted(fifo));
        unread
            .map(|(sink, _)| format!("sink {sink}: nobody reads this FIFO; its records wait in the journal"))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, File>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether nobody reads the pipe.
pub(super) fn is_deserted(file: &File) -> bool {
    deserted_within(file, PollTimeout::ZERO)
}

/// Whether nobody reads the pipe, as soon as it is so; at the timeout at the latest.
pub(super) fn deserted_within(file: &File, timeout: PollTimeout) -> bool {
    let mut polled = [PollFd::new(file.as_fd(), PollFlags::empty())];
    poll(&mut polled, timeout).is_ok_and(|ready| ready > 0)
        && polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::OpenOptionsExt as _;

    use nix::fcntl::OFlag;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::super::opening::open_without_waiting;
    use super::*;

    #[test]
    fn whether_a_fifo_is_read_is_known_without_its_path_and_is_no_event_to_its_reader() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let fifos = Fifos::default();
        fifos.hold("file:fifo", Some(open_without_waiting(&path).unwrap()));
        let other_name = dir.path().join("renamed");
        fs::rename(&path, &other_name).unwrap();
        let told = ["sink file:fifo: nobody reads this FIFO; its records wait in the journal"];
        assert_eq!(fifos.unread(), told, "the server is no reader of its own");
        let reader = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&other_name).unwrap();
        assert_eq!(fifos.unread(), [""; 0]);
        let mut polled = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut polled, PollTimeout::ZERO), Ok(0), "it saw a writer come and go");
        drop(reader);
        assert_eq!(fifos.clone().unread(), told);
        fifos.hold("file:fifo", None);
        assert_eq!(fifos.unread(), [""; 0]);
    }
}
