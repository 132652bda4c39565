use super::*;

/// A disk that fails when it is told to, after having done a part.
#[derive(Default)]
struct Faulty {
    bytes: Vec<u8>,
    /// Of the next write, so many bytes arrive, and then it fails.
    write_fails_after: Option<usize>,
    sync_fails: bool,
    cut_fails: bool,
    /// Somebody cuts all away behind so many writes.
    cut_behind: u32,
    cuts: Vec<u64>,
}

fn fault(what: &str) -> io::Error {
    io::Error::other(format!("{what} failed"))
}

impl Disk for Faulty {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn is_gone(&self) -> io::Result<bool> {
        Ok(false)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let written = self.write_fails_after.map_or(bytes.len(), |n| n.min(bytes.len()));
        self.bytes.extend_from_slice(&bytes[..written]);
        let end = self.bytes.len() as u64;
        if self.cut_behind > 0 {
            self.cut_behind -= 1;
            self.bytes.clear();
        }
        if self.write_fails_after.is_some() { Err(fault("write")) } else { Ok(end) }
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.sync_fails { Err(fault("sync")) } else { Ok(()) }
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.cuts.push(len);
        if self.cut_fails {
            return Err(fault("cut"));
        }
        self.bytes.truncate(usize::try_from(len).unwrap());
        Ok(())
    }
}

fn appender() -> Appender<Faulty> {
    let mut appender = Appender::new(Faulty::default(), 0, false);
    appender.append(b"one\n").unwrap();
    appender
}

#[test]
fn a_file_of_a_file_system_that_went_away_counts_as_deleted_and_other_failures_may_pass() {
    let lost = |errno: Errno| is_gone(Err(errno.into())).ok();
    assert_eq!((lost(Errno::ENOTCONN), lost(Errno::ESTALE)), (Some(true), Some(true)));
    assert_eq!((lost(Errno::EIO), lost(Errno::ENOMEM)), (None, None));
    assert_eq!((is_gone(Ok(0)).unwrap(), is_gone(Ok(1)).unwrap()), (true, false));
}

#[test]
fn a_write_that_fails_halfway_leaves_nothing_and_is_repeated_whole() {
    for part in 0..9 {
        let mut appender = appender();
        appender.disk.write_fails_after = Some(part);
        assert_eq!(appender.append(b"two\nthree\n").unwrap_err().to_string(), "write failed");
        assert_eq!((appender.disk.bytes.as_slice(), appender.len), (&b"one\n"[..], 4));
        appender.disk.write_fails_after = None;
        appender.append(b"two\nthree\n").unwrap();
        assert_eq!((appender.disk.bytes.as_slice(), appender.len), (&b"one\ntwo\nthree\n"[..], 14));
    }
}

#[test]
fn after_a_failed_sync_the_lines_are_written_anew_and_not_only_synced_again() {
    let mut appender = appender();
    appender.disk.sync_fails = true;
    appender.append(b"two\n").unwrap_err();
    assert_eq!((appender.disk.cuts.as_slice(), appender.len), (&[4][..], 4));
    appender.disk.sync_fails = false;
    appender.append(b"two\n").unwrap();
    assert_eq!(appender.disk.bytes, b"one\ntwo\n");
}

#[test]
fn nothing_is_written_before_what_a_failed_write_left_is_cut_away() {
    let mut appender = appender();
    appender.disk.write_fails_after = Some(2);
    appender.disk.cut_fails = true;
    appender.append(b"two\n").unwrap_err();
    assert_eq!(appender.disk.bytes, b"one\ntw");
    appender.disk.write_fails_after = None;
    assert_eq!(appender.append(b"two\n").unwrap_err().to_string(), "cut failed");
    assert_eq!(appender.disk.bytes, b"one\ntw");
    appender.disk.cut_fails = false;
    appender.append(b"two\n").unwrap();
    assert_eq!(appender.disk.bytes, b"one\ntwo\n");
}

#[test]
fn what_somebody_else_wrote_or_cut_is_never_cut() {
    // Somebody appended behind our torn line.
    let mut appender = appender();
    appender.disk.write_fails_after = Some(2);
    appender.disk.cut_fails = true;
    appender.append(b"two\n").unwrap_err();
    appender.disk.bytes.extend_from_slice(b"\nnot ours\nnor this");
    appender.disk.cuts.clear();
    (appender.disk.write_fails_after, appender.disk.cut_fails) = (None, false);
    appender.append(b"two\n").unwrap();
    assert!(appender.disk.cuts.is_empty());
    assert_eq!(appender.disk.bytes, b"one\ntw\nnot ours\nnor this\ntwo\n");

    // Somebody cut the file (copytruncate), before or after a failure.
    for fails in [false, true] {
        let mut appender = self::appender();
        if fails {
            appender.disk.sync_fails = true;
            appender.disk.cut_fails = true;
            appender.append(b"two\n").unwrap_err();
        }
        appender.disk = Faulty::default();
        appender.append(b"two\n").unwrap();
        assert_eq!((appender.disk.bytes.as_slice(), appender.len), (&b"two\n"[..], 4));
        assert!(appender.disk.cuts.is_empty());
    }
}

#[test]
fn a_line_of_somebody_elses_without_an_end_gets_one_before_ours() {
    let mut appender = Appender::new(Faulty { bytes: b"not ours".to_vec(), ..Faulty::default() }, 8, true);
    appender.disk.write_fails_after = Some(0);
    appender.append(b"one\n").unwrap_err();
    assert_eq!(appender.disk.bytes, b"not ours");
    appender.disk.write_fails_after = None;
    appender.append(b"one\n").unwrap();
    appender.append(b"two\n").unwrap();
    assert_eq!(appender.disk.bytes, b"not ours\none\ntwo\n");
}

#[test]
fn lines_that_somebody_cuts_away_while_they_are_written_are_written_again() {
    for cut_behind in 0..5 {
        let mut appender = appender();
        appender.disk.cut_behind = cut_behind;
        let written = appender.append(b"two\nthree\n");
        assert_eq!(written.is_ok(), cut_behind < TRIES, "{cut_behind}");
        appender.append(b"four\n").ok();
        let expected: &[u8] = match cut_behind {
            0 => b"one\ntwo\nthree\nfour\n",
            1 | 2 => b"two\nthree\nfour\n",
            _ => b"four\n",
        };
        assert_eq!(appender.disk.bytes, expected, "{cut_behind}");
    }
}
