//! Lines of an input, as they come: a reader that blocks, on a thread of its own, and chunks of whole lines.

use std::io::{self, BufRead, BufReader, Read};

use duragram_proto::codec::DATAGRAM_LEN_MAX;
use tokio::sync::mpsc;

/// Bytes asked of the input at once, and so about the size of a chunk.
const READ_BYTES: usize = 64 * 1024;
/// Chunks that wait to be sent.
const CHUNKS: usize = 2;
/// No record can be longer, so no more of a line is kept.
const LINE_BYTES_MAX: usize = DATAGRAM_LEN_MAX;

/// Some lines one after the other.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    bytes: Vec<u8>,
    /// For each line: where it ends in `bytes`, or how long it was when it was too long to be kept.
    lines: Vec<Result<usize, usize>>,
    read: u64,
}

/// One line without its newline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Line<'a> {
    Whole(&'a [u8]),
    /// The line is longer than any datagram.
    TooLong {
        bytes: usize,
    },
}

/// Reads on a thread of its own, which ends with the input or when the receiver is gone. A read that blocks holds
/// nobody up but that thread.
pub(super) fn read(input: impl Read + Send + 'static) -> mpsc::Receiver<io::Result<Chunk>> {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    std::thread::spawn(move || {
        let mut splitter = Splitter::new(input);
        while let Some(chunk) = splitter.next_chunk().transpose() {
            let failed = chunk.is_err();
            if sender.blocking_send(chunk).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

impl Chunk {
    pub(super) fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let mut start = 0;
        self.lines.iter().map(move |line| match *line {
            Ok(end) => Line::Whole(&self.bytes[std::mem::replace(&mut start, end)..end]),
            Err(bytes) => Line::TooLong { bytes },
        })
    }

    /// Bytes of the input that this chunk stands for.
    pub(super) fn bytes_read(&self) -> u64 {
        self.read
    }
}

struct Splitter<R> {
    input: BufReader<R>,
    /// The beginning of a line whose end has not been read.
    open: Vec<u8>,
    /// Bytes of that line so far, kept or not.
    open_len: usize,
}

impl<R: Read> Splitter<R> {
    fn new(input: R) -> Self {
        Self { input: BufReader::with_capacity(READ_BYTES, input), open: Vec::new(), open_len: 0 }
    }

    /// The lines that one read completes, if any; `None` at the end.
    fn next_chunk(&mut self) -> io::Result<Option<Chunk>> {
        let bytes = loop {
            match self.input.fill_buf() {
                Ok(bytes) => break bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        let read = bytes.len();
        let mut chunk = Chunk { read: read as u64, ..Chunk::default() };
        if read == 0 {
            if self.open_len == 0 {
                return Ok(None);
            }
            chunk.add(&mut self.open, &mut self.open_len);
            return Ok(Some(chunk));
        }
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let content = piece.strip_suffix(b"\n").unwrap_or(piece);
            self.open_len += content.len();
            let room = LINE_BYTES_MAX.saturating_sub(self.open.len());
            self.open.extend_from_slice(&content[..content.len().min(room)]);
            if content.len() < piece.len() {
                chunk.add(&mut self.open, &mut self.open_len);
            }
        }
        self.input.consume(read);
        Ok(Some(chunk))
    }
}

impl Chunk {
    /// The open line is complete.
    fn add(&mut self, open: &mut Vec<u8>, open_len: &mut usize) {
        let len = std::mem::take(open_len);
        if len > LINE_BYTES_MAX {
            open.clear();
            self.lines.push(Err(len));
        } else {
            self.bytes.append(open);
            self.lines.push(Ok(self.bytes.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes in pieces of a certain length.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = self.1.min(self.0.len()).min(buffer.len());
            let (now, later) = self.0.split_at(len);
            buffer[..len].copy_from_slice(now);
            self.0 = later;
            Ok(len)
        }
    }

    /// The lines, those too long by their length, and the bytes read.
    fn split(input: &[u8], piece: usize) -> (Vec<Result<Vec<u8>, usize>>, u64) {
        let mut splitter = Splitter::new(Drip(input, piece));
        let (mut lines, mut read) = (Vec::new(), 0);
        while let Some(chunk) = splitter.next_chunk().unwrap() {
            read += chunk.bytes_read();
            lines.extend(chunk.lines().map(|line| match line {
                Line::Whole(bytes) => Ok(bytes.to_vec()),
                Line::TooLong { bytes } => Err(bytes),
            }));
        }
        (lines, read)
    }

    #[test]
    fn lines_do_not_depend_on_how_the_input_comes() {
        let input = b"one\n\nthree \xff\r\n\nlast without newline";
        let expected = [&b"one"[..], b"", b"three \xff\r", b"", b"last without newline"].map(|line| Ok(line.to_vec()));
        for piece in 1..=input.len() {
            assert_eq!(split(input, piece), (expected.to_vec(), input.len() as u64), "in pieces of {piece}");
        }
        assert_eq!(split(b"one\n", 9).0.len(), 1, "a newline ends a line and begins none");
        assert_eq!(split(b"", 9).0.len(), 0);
    }

    #[test]
    fn a_line_longer_than_any_datagram_is_told_by_its_length_and_not_kept() {
        let longest = vec![b'x'; LINE_BYTES_MAX];
        let longer = vec![b'y'; 3 * LINE_BYTES_MAX];
        let input = [longest.as_slice(), b"\n", &longer, b"\nshort\n", &longer].concat();
        for piece in [1000, READ_BYTES, usize::MAX] {
            let lines = split(&input, piece).0;
            assert_eq!(lines, [Ok(longest.clone()), Err(longer.len()), Ok(b"short".to_vec()), Err(longer.len())]);
        }
        let mut splitter = Splitter::new(Drip(&longer, 1000));
        for _ in 0..150 {
            splitter.next_chunk().unwrap();
            assert!(splitter.open.len() <= LINE_BYTES_MAX);
        }
    }
}
