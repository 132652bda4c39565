//! Lines to where nothing can be taken back or synced: standard output, pipes, devices.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;

use super::lines::Output;
use crate::process::HandlerError;

/// What the system has taken is gone; what it has not is written by a later call, from the byte where it stopped.
pub(super) struct Stream<W> {
    name: String,
    out: W,
    /// The rest of a line of which the system took a part: it comes before any other lane's line.
    rest: Vec<u8>,
}

impl Stream<File> {
    /// Standard output, without the standard library's buffer: what a write has not taken must be known.
    pub(super) fn stdout() -> Result<Self, HandlerError> {
        let out = io::stdout().as_fd().try_clone_to_owned();
        out.map(|fd| Self::new("standard output".into(), fd.into()))
            .map_err(|error| HandlerError::new(format_args!("standard output: {error}")))
    }
}

impl<W: Write> Stream<W> {
    pub(super) fn new(name: String, out: W) -> Self {
        Self { name, out, rest: Vec::new() }
    }

    fn write_lines(&mut self, lines: &mut Vec<u8>) -> io::Result<()> {
        let (taken, result) = write_some(&mut self.out, &self.rest);
        self.rest.drain(..taken);
        result?;
        let (taken, result) = write_some(&mut self.out, lines);
        let line_end = match lines[..taken].last() {
            None | Some(b'\n') => taken,
            Some(_) => taken + lines[taken..].iter().position(|&byte| byte == b'\n').map_or(0, |newline| newline + 1),
        };
        self.rest.extend_from_slice(&lines[taken..line_end]);
        lines.drain(..line_end);
        result
    }
}

impl<W: Write + Send> Output for Stream<W> {
    fn write(&mut self, lines: &mut Vec<u8>) -> Result<(), HandlerError> {
        self.write_lines(lines).map_err(|error| HandlerError::new(format_args!("writing to {}: {error}", self.name)))
    }

    fn reopen(&mut self) -> Result<(), HandlerError> {
        Ok(())
    }

    fn state(&self) -> Result<Vec<u8>, HandlerError> {
        Ok(Vec::new())
    }
}

/// Writes until all is taken or an error comes; returns how much was taken.
fn write_some(out: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut taken = 0;
    while taken < bytes.len() {
        match out.write(&bytes[taken..]) {
            Ok(0) => return (taken, Err(io::ErrorKind::WriteZero.into())),
            Ok(n) => taken += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (taken, Err(error)),
        }
    }
    (taken, out.flush())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes as many bytes as it is told to, and then fails as a full pipe or a closed one.
    struct Scripted {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.room).min(3);
            if n == 0 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.room -= n;
            self.taken.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn wherever_a_write_stops_each_line_arrives_once_and_whole() {
        let (ours, theirs) = (b"one\ntwo\nthree\n", b"four\nfive\n");
        for room in 0..=ours.len() + theirs.len() {
            let mut stream = Stream::new("a test".into(), Scripted { taken: Vec::new(), room });
            let (mut a, mut b) = (ours.to_vec(), theirs.to_vec());
            let first = stream.write(&mut a);
            assert_eq!(first.is_ok(), room >= ours.len(), "with room for {room} bytes");
            let second = stream.write(&mut b);
            assert_eq!(second.is_ok(), room >= ours.len() + theirs.len(), "with room for {room} bytes");
            stream.out.room = usize::MAX;
            stream.write(&mut b).unwrap();
            stream.write(&mut a).unwrap();
            let mut lines: Vec<_> = str::from_utf8(&stream.out.taken).unwrap().lines().collect();
            lines.sort_unstable();
            assert_eq!(lines, ["five", "four", "one", "three", "two"], "with room for {room} bytes");
        }
    }
}
