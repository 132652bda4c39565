//! The other end of a stream: whether it takes bytes now, and what it has not read of those that it was given.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::fifos::{Fifos, is_deserted};
use crate::limits;

/// How long a write waits for a reader that takes nothing, until the lane looks after other things.
const STALL: Duration = Duration::from_secs(1);
/// Whether a descriptor blocks is up to whoever shares it, and may change at any time. So each piece is written when there is
/// room, and is short enough that a pipe with room takes it whole without blocking (POSIX's PIPE_BUF on Linux).
const PIECE_BYTES: usize = 4096;
/// A descriptor that is said to take bytes and then takes none is asked again after this.
const PAUSE: Duration = Duration::from_millis(2);

/// Where a stream's bytes go.
pub(super) trait Target: Send {
    /// Writes something. [`io::ErrorKind::WouldBlock`] when nobody has taken anything for a while.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// How many bytes may have been written and not read, if that can be known and taken back: of a pipe.
    fn unread_max(&self) -> Option<usize>;

    /// Takes back what was not read, as far as it can; `None` when that cannot be known.
    fn take_back(&mut self) -> Option<Vec<u8>>;

    /// Nobody reads it now, and somebody else may later.
    fn lacks_reader(&self) -> bool;

    /// Goes over to what is at its path now, if that is something else; whether it was.
    fn follow_path(&mut self) -> io::Result<bool>;
}

/// A file that is no regular one: a pipe, a socket, a terminal, a device; or whatever standard output is.
pub(super) struct Descriptor {
    file: File,
    path: Option<PathBuf>,
    kind: Kind,
    /// Where it is listed while it is a FIFO, and under which name.
    listed: Option<(Fifos, String)>,
}

/// What a descriptor leads to.
#[derive(Clone, Copy)]
struct Kind {
    is_pipe: bool,
    /// It is a pipe with a name, under which somebody else can come to read.
    is_named: bool,
    is_regular: bool,
}

impl Kind {
    fn of(file: &File) -> io::Result<Self> {
        let kind = file.metadata()?.file_type();
        let link = fs::read_link(itself(file));
        let is_named = kind.is_fifo() && !link.is_ok_and(|link| link.to_string_lossy().starts_with("pipe:"));
        Ok(Self { is_pipe: kind.is_fifo(), is_named, is_regular: kind.is_file() })
    }
}

impl Descriptor {
    pub(super) fn new(file: File, path: Option<PathBuf>) -> io::Result<Self> {
        Ok(Self { kind: Kind::of(&file)?, file, path, listed: None })
    }

    /// Is listed under the name of its sink from now on, as long as it is a FIFO.
    pub(super) fn list_in(&mut self, fifos: &Fifos, sink: String) {
        self.listed = Some((fifos.clone(), sink));
        self.show_in_list();
    }

    fn show_in_list(&self) {
        if let Some((fifos, sink)) = &self.listed {
            // Without a descriptor more it is not known whether somebody reads: that is no reason to stop.
            fifos.hold(sink, self.to_watch().ok().flatten());
        }
    }

    /// Another descriptor of the same, to look whether somebody reads; `None` when nobody can come to read who does not now.
    pub(super) fn to_watch(&self) -> io::Result<Option<File>> {
        if self.kind.is_named { self.file.try_clone().map(Some) } else { Ok(None) }
    }

    /// Waits until there is room, somebody is gone, or too long.
    fn wait(&self) -> io::Result<()> {
        let timeout = PollTimeout::try_from(STALL).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)], timeout)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    }
}

impl Target for Descriptor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.kind.is_regular {
            return self.file.write(bytes);
        }
        let started = Instant::now();
        loop {
            self.wait()?;
            match self.file.write(&bytes[..bytes.len().min(PIECE_BYTES)]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && started.elapsed() < STALL => {
                    std::thread::sleep(PAUSE);
                }
                written => return written,
            }
        }
    }

    fn unread_max(&self) -> Option<usize> {
        let capacity = fcntl(&self.file, FcntlArg::F_GETPIPE_SZ).ok().filter(|_| self.kind.is_pipe);
        capacity.map(|bytes| usize::try_from(bytes).unwrap_or(0).min(limits::PIPE_BYTES))
    }

    /// Reads it: as long as this process holds the writing end, the pipe keeps what nobody has read.
    fn take_back(&mut self) -> Option<Vec<u8>> {
        let mut reader = OpenOptions::new();
        let mut reader = reader.read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(itself(&self.file)).ok()?;
        let mut unread = Vec::new();
        // Ends at what is no error here: the pipe is empty, and its writing end is open.
        drop(reader.read_to_end(&mut unread));
        Some(unread)
    }

    fn lacks_reader(&self) -> bool {
        self.kind.is_named && is_deserted(&self.file)
    }

    fn follow_path(&mut self) -> io::Result<bool> {
        let Some(path) = &self.path else { return Ok(false) };
        let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino(), metadata.rdev());
        if id(fs::metadata(path)?) == id(self.file.metadata()?) {
            return Ok(false);
        }
        // Of a FIFO: as soon as somebody reads it. A terminal must not become the one that controls this process.
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = OpenOptions::new().append(true).custom_flags(flags.bits()).open(path)?;
        self.kind = Kind::of(&file)?;
        self.file = file;
        self.show_in_list();
        Ok(true)
    }
}

impl Drop for Descriptor {
    /// The list must not hold a FIFO open whose reader waits for its end.
    fn drop(&mut self) {
        if let Some((fifos, sink)) = &self.listed {
            fifos.hold(sink, None);
        }
    }
}

/// The path by which a process opens what it has open already.
fn itself(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}
