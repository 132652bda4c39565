//! Opening what is no regular file, without waiting for whoever is at the other end: a FIFO that nobody reads, a terminal
//! line without a carrier. The start must not hang on it; what is written meets the same condition as an error, and waits
//! in the journal.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Opens for writing, at once. Writes to what was opened wait as they do for any file.
///
/// # Errors
/// It cannot be opened, now or later.
pub(super) fn open_without_waiting(path: &Path) -> io::Result<File> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_socket() {
        return Err(io::Error::other("it is a socket, and a sink is a file, a FIFO or a device"));
    }
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    // As long as one process reads a FIFO, opening it for writing does not wait; this one does for a moment, where it may.
    let reads_too = if kind.is_fifo() { OpenOptions::new().read(true).write(true).open(path).ok() } else { None };
    // A terminal must not become the one that controls this process: its end would be a SIGHUP.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let opened = OpenOptions::new().append(true).custom_flags(flags.bits()).open(path);
    drop(reads_too);
    let file = opened.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENXIO) if kind.is_fifo() => io::Error::other(
            "nobody reads it, and without the right to read it too the server cannot wait for a reader: `chmod u+r` it",
        ),
        _ => error,
    })?;
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?) - OFlag::O_NONBLOCK;
    fcntl(&file, FcntlArg::F_SETFL(flags))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn a_fifo_is_opened_at_once_and_written_to_when_somebody_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let mut file = open_without_waiting(&path).unwrap();
        assert_eq!(file.write(b"lost").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let mut reader = File::open(&path).unwrap();
        // More than a pipe holds: the write waits for the reader rather than fail.
        let writing = thread::spawn(move || file.write_all(&[b'x'; 1 << 20]));
        let mut read = vec![0; 1 << 20];
        reader.read_exact(&mut read).unwrap();
        writing.join().unwrap().unwrap();
        assert!(read.iter().all(|&byte| byte == b'x'));
    }

    #[test]
    fn what_can_never_be_written_to_is_refused_with_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        assert!(open_without_waiting(&path).unwrap_err().to_string().contains("socket"));
        assert_eq!(open_without_waiting(dir.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
    }
}
