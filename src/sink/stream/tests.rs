use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;

/// Takes as many bytes as it is told to, and then fails as a full device or a pipe without a reader.
struct Scripted {
    taken: Vec<u8>,
    room: usize,
    /// It is a pipe that holds so many bytes.
    pipe: Option<usize>,
    unread: VecDeque<u8>,
    /// What was taken back of it can be known.
    tells: bool,
}

impl Scripted {
    fn new(room: usize) -> Self {
        Self { taken: Vec::new(), room, pipe: None, unread: VecDeque::new(), tells: true }
    }
}

impl Target for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let space = self.pipe.map_or(usize::MAX, |capacity| capacity - self.unread.len());
        let n = bytes.len().min(self.room).min(3).min(space);
        if n == 0 {
            let gone = if self.pipe.is_some() { io::ErrorKind::BrokenPipe } else { io::ErrorKind::StorageFull };
            return Err(gone.into());
        }
        self.room -= n;
        self.taken.extend_from_slice(&bytes[..n]);
        if self.pipe.is_some() {
            self.unread.extend(&bytes[..n]);
        }
        Ok(n)
    }

    fn unread_max(&self) -> Option<usize> {
        self.pipe
    }

    fn take_back(&mut self) -> Option<Vec<u8>> {
        let unread = std::mem::take(&mut self.unread).into();
        self.tells.then_some(unread)
    }

    fn lacks_reader(&self) -> bool {
        self.pipe.is_some()
    }

    fn follow_path(&mut self) -> io::Result<bool> {
        Ok(false)
    }
}

#[test]
fn wherever_a_write_stops_each_line_arrives_once_and_whole() {
    let (ours, theirs) = (b"one\ntwo\nthree\n", b"four\nfive\n");
    for room in 0..=ours.len() + theirs.len() {
        let mut stream = Stream::new("a test".into(), Scripted::new(room));
        let (mut a, mut b) = (ours.to_vec(), theirs.to_vec());
        let first = stream.write(&mut a);
        assert_eq!(first.is_ok(), room >= ours.len(), "with room for {room} bytes");
        let second = stream.write(&mut b);
        assert_eq!(second.is_ok(), room >= ours.len() + theirs.len(), "with room for {room} bytes");
        stream.target.room = usize::MAX;
        stream.write(&mut b).unwrap();
        stream.write(&mut a).unwrap();
        let mut lines: Vec<_> = str::from_utf8(&stream.target.taken).unwrap().lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["five", "four", "one", "three", "two"], "with room for {room} bytes");
    }
}

#[test]
fn a_failure_after_something_was_taken_does_not_let_the_delay_grow() {
    let mut stream = Stream::new("a test".into(), Scripted::new(2));
    let mut lines = b"one\ntwo\n".to_vec();
    assert!(stream.write(&mut lines).unwrap_err().is_soon());
    assert!(!stream.write(&mut lines).unwrap_err().is_soon());
    stream.target.room = 1;
    assert!(stream.write(&mut lines).unwrap_err().is_soon());
}

/// The lines that a reader who takes so many bytes and leaves, and the next one, get.
fn two_readers(room: usize, read: usize, capacity: usize, tells: bool) -> (Vec<u8>, Vec<u8>) {
    let target = Scripted { pipe: Some(capacity), tells, ..Scripted::new(room) };
    let mut stream = Stream::new("a test".into(), target);
    let mut lines = b"one\ntwo\nthree\nfour\n".to_vec();
    let done = stream.write(&mut lines).is_ok();
    let first: Vec<u8> = stream.target.unread.drain(..read.min(stream.target.unread.len())).collect();
    if done || stream.target.unread.is_empty() {
        stream.take_back();
    } else {
        stream.target.room = 0;
        stream.write(&mut lines).unwrap_err();
    }
    stream.target.taken.clear();
    (stream.target.pipe, stream.target.room) = (Some(1 << 20), usize::MAX);
    stream.write(&mut lines).unwrap();
    (first, stream.target.unread.iter().copied().collect())
}

#[test]
fn a_reader_that_leaves_in_the_middle_of_a_line_leaves_it_whole_to_the_next() {
    let all = b"one\ntwo\nthree\nfour\n";
    for room in 1..=all.len() {
        for read in 0..=room {
            let (first, second) = two_readers(room, read, 1 << 20, true);
            assert_eq!(first, all[..first.len()]);
            // The first reader's whole lines, and from the one in whose middle it left on, the second's.
            let whole = first.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
            assert_eq!(second, all[whole..], "{room} bytes taken, {read} read");
        }
    }
}

#[test]
fn what_cannot_be_told_to_be_read_is_written_again() {
    let all = b"one\ntwo\nthree\nfour\n";
    for read in 0..=all.len() {
        let (first, second) = two_readers(all.len(), read, all.len(), false);
        assert!(all.ends_with(&second) && first.len() + second.len() >= all.len());
        assert!(second.is_empty() || all.len() == second.len() || all[all.len() - second.len() - 1] == b'\n');
    }
}

#[test]
fn what_is_remembered_of_a_pipe_is_bounded_and_never_begins_within_a_line() {
    let target = Scripted { pipe: Some(64), ..Scripted::new(usize::MAX) };
    let mut stream = Stream::new("a test".into(), target);
    let line = [&[b'x'; 4000][..], b"\n"].concat();
    for _ in 0..1000 {
        stream.remember(&line, 64);
        assert!(stream.taken.len() <= 2 * (64 + LINE_MAX));
    }
    stream.target.unread = line[line.len() - 10..].iter().copied().collect();
    stream.take_back();
    assert_eq!(stream.rest, line);
    assert!(stream.taken.is_empty());
}

fn fifo(dir: &Path) -> (std::path::PathBuf, File) {
    let path = dir.join("fifo");
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let both = File::options().read(true).write(true).open(&path).unwrap();
    let file = File::options().append(true).open(&path).unwrap();
    drop(both);
    (path, file)
}

fn numbered(lines: std::ops::Range<u32>) -> Vec<u8> {
    lines
        .flat_map(|n| format!("{{\"line\":{n},\"{}\"}}\n", "x".repeat(usize::try_from(n % 300).unwrap())).into_bytes())
        .collect()
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn the_next_reader_of_a_fifo_begins_with_a_whole_line_also_when_nothing_is_written_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = fifo(dir.path());
    let stream = shared("fifo".into(), file, Some(path.clone()), (&Fifos::default(), "fifo".into())).unwrap();
    let write = |lines: &mut Vec<u8>| stream.lock().unwrap().write(lines);
    let error = write(&mut numbered(0..1)).unwrap_err();
    assert!(error.is_soon() && error.to_string().contains("nobody reads"), "{error}");

    let mut reader = File::open(&path).unwrap();
    let all = numbered(0..100);
    write(&mut all.clone()).unwrap();
    let mut start = vec![0; 1000];
    reader.read_exact(&mut start).unwrap();
    assert_eq!(start, all[..1000]);
    drop(reader);
    // Nothing is written. The pipe is emptied all the same.
    wait_for("what was left to be taken back", || write(&mut Vec::new()).is_err());
    let mut reader = BufReader::new(File::open(&path).unwrap());
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let whole = all[..1000].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
    assert!(all[whole..].starts_with(first.as_bytes()), "{first}");
    drop(stream);
    let mut others = Vec::new();
    reader.read_to_end(&mut others).unwrap();
    assert_eq!([first.as_bytes(), &others].concat(), all[whole..]);
}

#[test]
fn a_descriptor_that_does_not_block_is_written_at_the_readers_pace() {
    let (pipe_reader, pipe_writer) = std::io::pipe().unwrap();
    let (socket_reader, socket_writer) = UnixStream::pair().unwrap();
    let ends: [(Box<dyn io::Read + Send>, std::os::fd::OwnedFd); 2] =
        [(Box::new(pipe_reader), pipe_writer.into()), (Box::new(socket_reader), socket_writer.into())];
    for (mut reader, writer) in ends {
        let file = File::from(writer);
        // The other side has a descriptor of the same, and changes it whenever it likes.
        let other = file.try_clone().unwrap();
        let all = numbered(0..20_000);
        let bytes = all.len();
        let reading = thread::spawn(move || {
            let mut read = Vec::new();
            let mut piece = vec![0; 60_000];
            while read.len() < bytes {
                let flags = if read.len() % 2 == 0 { OFlag::O_NONBLOCK } else { OFlag::empty() };
                fcntl(&other, FcntlArg::F_SETFL(flags)).unwrap();
                let n = reader.read(&mut piece).unwrap();
                read.extend_from_slice(&piece[..n]);
            }
            read
        });
        let mut stream = Stream::new("a test".into(), Descriptor::new(file, None).unwrap());
        let mut lines = all.clone();
        stream.write(&mut lines).unwrap();
        assert!(lines.is_empty());
        assert!(reading.join().unwrap() == all);
    }
}

#[test]
fn a_reader_that_takes_nothing_holds_a_write_up_for_a_bounded_time_whatever_the_mode() {
    for flags in [OFlag::empty(), OFlag::O_NONBLOCK] {
        let (reader, writer) = std::io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        fcntl(&file, FcntlArg::F_SETFL(flags)).unwrap();
        let mut stream = Stream::new("a test".into(), Descriptor::new(file, None).unwrap());
        let all = numbered(0..2_000);
        let mut lines = all.clone();
        let started = Instant::now();
        let error = stream.write(&mut lines).unwrap_err();
        assert!(error.is_soon() && error.to_string().contains("takes nothing"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
        let mut reader = reader;
        let reading = thread::spawn(move || {
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            read
        });
        stream.write(&mut lines).unwrap();
        drop(stream);
        assert!(reading.join().unwrap() == all);
    }
}

#[test]
fn a_fifo_that_was_deleted_and_made_again_is_gone_over_to_when_somebody_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = fifo(dir.path());
    let mut reader =
        BufReader::new(File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&path).unwrap());
    let stream = shared("fifo".into(), file, Some(path.clone()), (&Fifos::default(), "fifo".into())).unwrap();
    stream.lock().unwrap().write(&mut b"one\ntwo\n".to_vec()).unwrap();
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");
    std::fs::remove_file(&path).unwrap();
    drop(reader);
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    // All of it was read: only what comes later is for the next reader, whose opening waits for the stream.
    let mut reader = BufReader::new(File::open(&path).unwrap());
    stream.lock().unwrap().write(&mut b"three\n".to_vec()).unwrap();
    let mut next = String::new();
    reader.read_line(&mut next).unwrap();
    assert_eq!(next, "three\n");
}
