//! Lines to where nothing can be taken back or synced: standard output, pipes, sockets, devices.
//!
//! They flow at the pace of whoever reads, whatever mode others have put the descriptor into. What the system has taken is
//! gone, but for a pipe: when its reader leaves, what nobody has read is taken back out of it, and the line in whose middle
//! the reader left begins anew. So the next reader of a FIFO starts with a whole record, and gets all that the last one left.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use nix::poll::PollTimeout;

use super::fifos::{Fifos, deserted_within};
use super::lines::{LINE_MAX, Output};
use super::pipe::{Descriptor, Target};
use crate::process::handler::HandlerError;

/// How often the thread that watches a FIFO looks whether its sink is still there,
const WATCH_MS: u16 = 500;
/// and while something waits for a reader, whether one has come.
const WAITING_MS: u16 = 50;

pub(super) struct Stream<T> {
    name: String,
    target: T,
    /// What comes before any other line: the rest of a line of which the system has taken a part, and what was taken
    /// back.
    rest: Vec<u8>,
    /// The last bytes that a pipe has taken: those that nobody may have read and the whole line that they begin with.
    taken: Vec<u8>,
    /// `taken` begins in the middle of a line.
    is_cut: bool,
    /// How often the target has become another one.
    followed: u64,
}

/// A stream that a lane and the thread that watches a FIFO share, to what was opened, perhaps under a path. A FIFO stands in the list under the name of its
/// sink.
///
/// # Errors
/// What kind of file it is cannot be found out, or there is no thread to watch a FIFO.
pub(super) fn shared(
    name: String,
    file: File,
    path: Option<PathBuf>,
    (fifos, sink): (&Fifos, String),
) -> Result<Arc<Mutex<dyn Output>>, HandlerError> {
    let open = || {
        let mut target = Descriptor::new(file, path)?;
        target.list_in(fifos, sink);
        let watched = target.to_watch()?;
        let stream = Arc::new(Mutex::new(Stream::new(name.clone(), target)));
        if let Some(fifo) = watched {
            let stream = Arc::downgrade(&stream);
            thread::Builder::new().name("fifo".to_owned()).spawn(move || watch(fifo, &stream))?;
        }
        Ok(stream)
    };
    Ok(open().map_err(|error: io::Error| HandlerError::new(format_args!("{name}: {error}")))?)
}

/// Standard output, without the standard library's buffer: what a write has not taken must be known.
pub(super) fn stdout(list: (&Fifos, String)) -> Result<Arc<Mutex<dyn Output>>, HandlerError> {
    let name = "standard output";
    let out = io::stdout().as_fd().try_clone_to_owned();
    let out = out.map_err(|error| HandlerError::new(format_args!("{name}: {error}")))?;
    shared(name.to_owned(), out.into(), None, list)
}

/// Sees a reader leave, and gives the next one what is left, also while there are no new lines.
fn watch(mut fifo: File, stream: &Weak<Mutex<Stream<Descriptor>>>) {
    let (mut waits, mut followed) = (false, 0);
    loop {
        let is_deserted = deserted_within(&fifo, PollTimeout::from(if waits { WAITING_MS } else { WATCH_MS }));
        let Some(stream) = stream.upgrade() else { return };
        let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
        if is_deserted || waits {
            if stream.target.lacks_reader() {
                stream.take_back();
                stream.follow();
            } else if !stream.rest.is_empty() {
                // Whoever writes the next line meets what stops it.
                drop(stream.write_lines(&mut Vec::new()));
            }
            waits = !stream.rest.is_empty();
        }
        if stream.followed != followed {
            followed = stream.followed;
            match stream.target.to_watch() {
                Ok(Some(another)) => fifo = another,
                // It is no FIFO any more.
                _ => return,
            }
        }
        drop(stream);
        if is_deserted {
            // To ask again would return at once.
            thread::sleep(Duration::from_millis(WAITING_MS.into()));
        }
    }
}

impl<T: Target> Stream<T> {
    pub(super) fn new(name: String, target: T) -> Self {
        Self { name, target, rest: Vec::new(), taken: Vec::new(), is_cut: false, followed: 0 }
    }

    fn write_lines(&mut self, lines: &mut Vec<u8>) -> Result<(), Stopped> {
        let rest = std::mem::take(&mut self.rest);
        let (taken, result) = self.write_some(&rest);
        if let Err(error) = result {
            // What was taken back of a pipe comes before it.
            self.rest.extend_from_slice(&rest[taken..]);
            return Err(Stopped { error, moved: taken > 0 });
        }
        let (taken, result) = self.write_some(lines);
        let line_end = match lines[..taken].last() {
            None | Some(b'\n') => taken,
            Some(_) => taken + lines[taken..].iter().position(|&byte| byte == b'\n').map_or(0, |newline| newline + 1),
        };
        self.rest.extend_from_slice(&lines[taken..line_end]);
        lines.drain(..line_end);
        result.map_err(|error| Stopped { error, moved: taken + rest.len() > 0 })
    }

    /// Writes until all is taken or an error comes; returns how much was taken.
    fn write_some(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let unread_max = self.target.unread_max();
        let mut taken = 0;
        while taken < bytes.len() {
            match self.target.write(&bytes[taken..]) {
                Ok(0) => return (taken, Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => {
                    if let Some(unread_max) = unread_max {
                        self.remember(&bytes[taken..taken + n], unread_max);
                    }
                    taken += n;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if error.kind() == io::ErrorKind::BrokenPipe {
                        self.take_back();
                    }
                    return (taken, Err(error));
                }
            }
        }
        (taken, Ok(()))
    }

    /// Nobody reads the FIFO. If it is not the one at its path any more, nobody ever will.
    fn follow(&mut self) {
        // Until somebody reads the new one, there is nothing to go over to.
        if let Ok(true) = self.target.follow_path() {
            self.followed += 1;
            tracing::warn!(sink = self.name, "it was replaced: lines go to what is at its path now");
        }
    }

    fn remember(&mut self, bytes: &[u8], unread_max: usize) {
        let kept = unread_max + LINE_MAX;
        self.taken.extend_from_slice(bytes);
        // By halves, so that little is moved about.
        if self.taken.len() > 2 * kept {
            self.taken.drain(..self.taken.len() - kept);
            self.is_cut = true;
        }
    }

    /// The reader has left: what it has not read is written again, beginning with a whole line.
    fn take_back(&mut self) {
        if self.taken.is_empty() {
            return;
        }
        let taken = std::mem::take(&mut self.taken);
        let unread = match self.target.take_back() {
            Some(unread) if taken.ends_with(&unread) => unread.len(),
            // It cannot be told, or somebody else has written too: rather twice than never.
            _ => self.target.unread_max().unwrap_or(0).min(taken.len()),
        };
        let read = &taken[..taken.len() - unread];
        let start = match read.iter().rposition(|&byte| byte == b'\n') {
            Some(newline) => newline + 1,
            None if self.is_cut => taken.iter().position(|&byte| byte == b'\n').map_or(taken.len(), |at| at + 1),
            None => 0,
        };
        self.is_cut = false;
        self.rest.splice(..0, taken[start..].iter().copied());
        if start < taken.len() {
            tracing::info!(
                sink = self.name,
                bytes = taken.len() - start,
                "the reader has left; the next one gets what it has not read"
            );
        }
    }
}

/// An error ended the write before all was written.
struct Stopped {
    error: io::Error,
    /// Something was taken before the error came.
    moved: bool,
}

impl<T: Target> Output for Stream<T> {
    fn write(&mut self, lines: &mut Vec<u8>) -> Result<(), HandlerError> {
        let Err(Stopped { error, moved }) = self.write_lines(lines) else { return Ok(()) };
        let deserted = error.kind() == io::ErrorKind::BrokenPipe && self.target.lacks_reader();
        if deserted {
            self.follow();
        }
        let stalled = error.kind() == io::ErrorKind::WouldBlock;
        let error = match (deserted, stalled) {
            (true, _) => HandlerError::new(format_args!("writing to {}: nobody reads this FIFO", self.name)),
            (_, true) => HandlerError::new(format_args!("writing to {}: its reader takes nothing", self.name)),
            _ => HandlerError::new(format_args!("writing to {}: {error}", self.name)),
        };
        Err(if moved || deserted || stalled { error.soon() } else { error })
    }

    /// What a reader who is still there has not read stays his.
    fn reopen(&mut self) -> Result<(), HandlerError> {
        let followed =
            self.target.follow_path().map_err(|error| HandlerError::new(format_args!("{}: {error}", self.name)))?;
        if followed {
            self.followed += 1;
            self.taken.clear();
            self.is_cut = false;
            tracing::info!(sink = self.name, "it was opened anew");
        }
        Ok(())
    }

    fn state(&self) -> Result<Vec<u8>, HandlerError> {
        Ok(Vec::new())
    }
}

impl<T> Drop for Stream<T> {
    fn drop(&mut self) {
        if !self.rest.is_empty() {
            tracing::warn!(
                sink = self.name,
                bytes = self.rest.len(),
                "lines that nobody has read are dropped with the end"
            );
        }
    }
}

#[cfg(test)]
mod tests;
