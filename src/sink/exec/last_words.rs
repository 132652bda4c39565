//! A child's standard error: each line goes to the log, and the last one is kept, since it tells best why a child has ended.
//!
//! A thread reads it for as long as the child lives, so that a child that says much never waits for the server. What is logged
//! is bounded, in the length of a line and in lines.

use std::io::{self, PipeWriter, Read as _, pipe};
use std::os::fd::AsFd as _;
use std::process::ChildStderr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::answer::excerpt;
use crate::limits;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 16 * 1024;

/// What listens to a child.
pub(super) struct LastWords {
    last: Arc<Mutex<String>>,
    listener: Option<JoinHandle<()>>,
    /// Closed to tell the listener that the child has ended: what is still in the pipe is all that is of interest. Its end
    /// may never come, when a process that has left the child's group holds the pipe open.
    until: Option<PipeWriter>,
}

impl LastWords {
    /// Listens to a pipe that does not block.
    ///
    /// # Errors
    /// There are no descriptors or threads.
    pub(super) fn listen(stderr: ChildStderr, sink: &str) -> io::Result<Self> {
        let (ended, until) = pipe()?;
        let last = Arc::new(Mutex::new(String::new()));
        let mut log = Log::new(sink.to_owned(), Arc::clone(&last));
        let mut stderr = stderr;
        let listen = move || {
            let mut piece = vec![0; PIECE_BYTES];
            let mut is_over = false;
            let mut after_end = 0;
            while after_end < limits::EXEC_LAST_WORDS_BYTES {
                if !is_over {
                    let fds = [stderr.as_fd(), ended.as_fd()];
                    let mut watched = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
                    // Only a signal that somebody handles interrupts it.
                    let _interrupted = poll(&mut watched, PollTimeout::NONE);
                    is_over = watched[1].any().unwrap_or(false);
                }
                match stderr.read(&mut piece) {
                    Ok(0) => break,
                    Ok(bytes) => {
                        log.take(&piece[..bytes]);
                        after_end += if is_over { bytes } else { 0 };
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock && !is_over => {}
                    Err(_) => break,
                }
            }
            log.end();
        };
        let listener = thread::Builder::new().name("exec-log".to_owned()).spawn(listen)?;
        Ok(Self { last, listener: Some(listener), until: Some(until) })
    }

    /// To be called when the child has ended: what it said last, to stand behind how it ended. Empty when it said nothing.
    pub(super) fn end(&mut self) -> String {
        self.until = None;
        if let Some(listener) = self.listener.take() {
            let _panicked = listener.join();
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_empty() { String::new() } else { format!("; its last words: {last}") }
    }
}

/// Makes lines of what comes, and logs some of them.
struct Log {
    sink: String,
    last: Arc<Mutex<String>>,
    /// A line whose end is still to come; what is beyond its maximum is left out.
    line: Vec<u8>,
    /// Since when `logged` and `left_out` count.
    since: Instant,
    logged: u32,
    left_out: u64,
}

impl Log {
    fn new(sink: String, last: Arc<Mutex<String>>) -> Self {
        Self { sink, last, line: Vec::new(), since: Instant::now(), logged: 0, left_out: 0 }
    }

    fn take(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|&byte| byte == b'\n') {
            let room = limits::EXEC_LOG_LINE_BYTES.saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.say();
            }
        }
    }

    fn end(&mut self) {
        self.say();
        self.tell_what_is_left_out();
    }

    fn say(&mut self) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text.is_empty() {
            return;
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = excerpt(text.as_bytes());
        if self.since.elapsed() >= limits::EXEC_LOG_WINDOW {
            self.tell_what_is_left_out();
            (self.since, self.logged) = (Instant::now(), 0);
        }
        if self.logged < limits::EXEC_LOG_LINES {
            self.logged += 1;
            // Shown with what is no text escaped, as every value is.
            tracing::info!(sink = self.sink, line = text, "the sink's child says");
        } else {
            self.left_out += 1;
        }
    }

    fn tell_what_is_left_out(&mut self) {
        if self.left_out > 0 {
            tracing::warn!(sink = self.sink, lines = self.left_out, "the sink's child says more than is logged");
            self.left_out = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last_of(pieces: &[&[u8]]) -> String {
        let last = Arc::new(Mutex::new(String::new()));
        let mut log = Log::new("test".into(), Arc::clone(&last));
        pieces.iter().for_each(|piece| log.take(piece));
        assert!(log.line.len() <= limits::EXEC_LOG_LINE_BYTES);
        log.end();
        assert!(log.line.is_empty() && log.left_out == 0);
        last.lock().unwrap().clone()
    }

    #[test]
    fn the_last_line_that_says_something_is_kept_with_or_without_its_end() {
        assert_eq!(last_of(&[b"first\nsec", b"ond\n", b"\n \n"]), "second");
        assert_eq!(last_of(&[b"first\nseco", b"nd"]), "second");
        assert_eq!(last_of(&[]), "");
    }

    #[test]
    fn a_line_without_end_is_cut_and_costs_no_memory() {
        let piece = [b'x'; 4096];
        assert!(last_of(&vec![&piece[..]; 1000]).starts_with("xxxx"));
    }
}
