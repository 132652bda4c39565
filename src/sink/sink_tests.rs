//! Tests of the sinks through the factory, as the server makes them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use duragram_proto::{ClientId, Epoch, Seq};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::*;
use crate::model::{Content, LaneMark, Offset, Record, SessionId};
use crate::process::Outcomes;
use crate::record_json::Formatter;

pub(super) fn record(offset: u64, payload: &[u8]) -> Record<'_> {
    // Sixteen clients, so that every lane has some.
    let session = SessionId { client: ClientId(offset % 16), epoch: Epoch::new(1).unwrap() };
    let content = Content::Payload(payload);
    let (received_unix_us, seq) = (1_767_323_045_000_000 + offset, Seq(offset + 1));
    Record { offset: Offset(offset), index: 0, session, seq, channel: 0, received_unix_us, content }
}

/// The lanes' handlers, and the marks that the journal holds.
pub(super) struct Sinks {
    specs: Vec<String>,
    pub(super) marks: Vec<LaneMark>,
    pub(super) durable_end: Offset,
    /// Of a run with another number of lanes.
    pub(super) left: Vec<LaneMark>,
    pub(super) handlers: Vec<Box<dyn Handler>>,
}

impl Sinks {
    pub(super) fn open(specs: &[&str], lanes: usize) -> Self {
        let marks = vec![LaneMark::default(); lanes];
        let specs = specs.iter().map(|&spec| spec.to_owned()).collect();
        let mut sinks = Self { specs, marks, durable_end: Offset(0), left: Vec::new(), handlers: Vec::new() };
        sinks.start().unwrap();
        sinks
    }

    /// Makes the handlers for what the journal holds. Drops what was there, as SIGKILL does.
    pub(super) fn start(&mut self) -> Result<(), HandlerError> {
        self.handlers.clear();
        let mut factory = factory(&self.specs).unwrap();
        for lane in (0..).map(Lane).take(self.marks.len()) {
            let start = LaneStart { lane, marks: &self.marks, durable_end: self.durable_end, left: &self.left };
            self.handlers.push(factory(&start)?);
        }
        Ok(())
    }

    pub(super) fn lane(&self, record: &Record<'_>) -> usize {
        usize::from(Lane::of(record.session, u16::try_from(self.marks.len()).unwrap()).0)
    }

    pub(super) fn present(&mut self, records: &[Record<'_>]) {
        for record in records {
            let lane = self.lane(record);
            let mut outcomes = Outcomes::new(1);
            self.handlers[lane].process(&[*record], &mut outcomes);
            assert!(outcomes.all_done(), "{outcomes:?}");
            self.durable_end = self.durable_end.max(record.offset.plus(1));
        }
    }

    /// Flushes each lane; all its records below `watermark` were presented.
    pub(super) fn flush(&mut self, watermark: u64) {
        for lane in 0..self.handlers.len() {
            let sink_state = self.handlers[lane].flush().unwrap();
            self.marks[lane] = LaneMark { watermark: Offset(watermark), sink_state };
        }
    }
}

/// In memory where there is such a thing: most cases sync dozens of times, and no power is cut here.
pub(super) fn directory() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

fn file_spec(path: &Path) -> String {
    format!("file:{}", path.display())
}

fn write_some(path: &Path, lanes: usize) -> Sinks {
    let mut sinks = Sinks::open(&[&file_spec(path)], lanes);
    sinks.present(&(0..40).map(|offset| record(offset, b"x")).collect::<Vec<_>>());
    sinks.flush(40);
    sinks
}

/// The offsets of a file's lines, each of which must be whole.
pub(super) fn offsets(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    let offset = |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["offset"].as_u64().unwrap();
    text.lines().map(offset).collect()
}

fn sorted(mut offsets: Vec<u64>) -> Vec<u64> {
    offsets.sort_unstable();
    offsets
}

#[test]
fn specifications_are_read_and_errors_name_what_is_wrong() {
    for (text, spec) in [
        ("null", SinkSpec::Null),
        ("stdout", SinkSpec::Stdout),
        ("file:/var/log/x.ndjson", SinkSpec::File("/var/log/x.ndjson".into())),
        ("file:a:b", SinkSpec::File("a:b".into())),
    ] {
        assert_eq!(text.parse(), Ok(spec.clone()));
        assert_eq!(spec.to_string(), text);
    }
    for (text, message) in [
        ("", "unknown sink \"\": there are stdout, file:PATH and null"),
        ("nul", "unknown sink \"nul\": there are stdout, file:PATH and null"),
        ("Stdout", "unknown sink \"Stdout\": there are stdout, file:PATH and null"),
        ("/var/log/x", "unknown sink \"/var/log/x\": there are stdout, file:PATH and null"),
        ("file:", "sink \"file:\" lacks its path: write file:PATH, such as file:/var/log/duragram.ndjson"),
    ] {
        assert_eq!(text.parse::<SinkSpec>().unwrap_err().to_string(), message);
    }
    let twice = factory(&["null".into(), "file:x".into(), "file:x".into()]).err().unwrap();
    assert_eq!(twice.to_string(), "sink file:x is given twice");
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_at_start_that_names_it() {
    let dir = directory();
    for path in [dir.path().to_owned(), dir.path().join("missing/file")] {
        let mut factory = factory(&[file_spec(&path)]).unwrap();
        let marks = [LaneMark::default()];
        let start = LaneStart { lane: Lane(0), marks: &marks, durable_end: Offset(0), left: &[] };
        let error = factory(&start).err().unwrap().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}

#[test]
fn two_servers_do_not_share_a_file() {
    let dir = directory();
    let path = dir.path().join("out");
    let sinks = write_some(&path, 1);
    let mut other = Sinks { specs: sinks.specs.clone(), marks: vec![LaneMark::default()], ..Sinks::open(&["null"], 1) };
    let error = other.start().unwrap_err().to_string();
    assert!(error.contains("another process writes to it"), "{error}");
    drop(sinks);
    other.start().unwrap();
}

#[test]
fn what_was_written_after_the_last_checkpoint_is_not_written_again() {
    for lanes in [1, 3] {
        let dir = directory();
        let path = dir.path().join("out");
        let mut sinks = write_some(&path, lanes);
        let stored = sinks.marks.clone();
        let more: Vec<_> = (40..60).map(|offset| record(offset, b"y")).collect();
        sinks.present(&more);
        sinks.flush(60);
        sinks.present(&[record(60, b"never flushed")]);
        sinks.marks = stored;
        sinks.start().unwrap();
        sinks.present(&more);
        sinks.present(&[record(60, b"never flushed"), record(61, b"new")]);
        sinks.flush(62);
        assert_eq!(sorted(offsets(&path)), (0..62).collect::<Vec<_>>());
    }
}

#[test]
fn a_crash_while_lines_come_again_finds_them_once_more() {
    let dir = directory();
    let path = dir.path().join("out");
    let mut sinks = write_some(&path, 1);
    let stored = sinks.marks.clone();
    let more: Vec<_> = (40..60).map(|offset| record(offset, b"y")).collect();
    sinks.present(&more);
    sinks.flush(60);
    sinks.marks = stored;
    for (from, to) in [(0, 5), (5, 10), (10, 15), (15, 20)] {
        sinks.start().unwrap();
        sinks.flush(40 + from as u64);
        sinks.present(&more[from..to]);
        sinks.flush(40 + to as u64);
    }
    assert_eq!(offsets(&path), (0..60).collect::<Vec<_>>());
}

#[test]
fn a_crash_before_the_first_checkpoint_is_no_exception() {
    let dir = directory();
    let path = dir.path().join("out");
    fs::write(&path, "a note of the operator's\n").unwrap();
    let mut sinks = write_some(&path, 2);
    sinks.marks = vec![LaneMark::default(); 2];
    sinks.start().unwrap();
    sinks.present(&(0..50).map(|offset| record(offset, b"x")).collect::<Vec<_>>());
    sinks.flush(50);
    let text = fs::read_to_string(&path).unwrap();
    let (note, lines) = text.split_once('\n').unwrap();
    assert_eq!((note, lines.lines().count()), ("a note of the operator's", 50));
}

#[test]
fn lines_of_another_journal_with_the_same_offsets_keep_nothing_out() {
    let dir = directory();
    let path = dir.path().join("out");
    drop(write_some(&path, 1));
    // The data directory was emptied; the new journal's first forty records were never processed before a crash.
    let mut sinks = Sinks::open(&[&file_spec(&path)], 1);
    sinks.durable_end = Offset(40);
    sinks.start().unwrap();
    sinks.present(&(0..40).map(|offset| record(offset, b"other")).collect::<Vec<_>>());
    sinks.flush(40);
    assert_eq!(offsets(&path).len(), 80);
}

#[test]
fn a_torn_last_line_is_cut_and_its_record_written_again() {
    let dir = directory();
    let path = dir.path().join("out");
    let line = {
        let mut line = Vec::new();
        Formatter::default().line(&record(40, "torn \u{1f980}".as_bytes()), &mut line);
        line
    };
    for known in [true, false] {
        for end in 1..line.len() {
            fs::remove_file(&path).ok();
            let mut sinks = write_some(&path, 1);
            let mut bytes = fs::read(&path).unwrap();
            bytes.extend_from_slice(&line[..end]);
            sinks.handlers.clear();
            fs::write(&path, &bytes).unwrap();
            sinks.durable_end = Offset(41);
            if !known {
                sinks.marks[0].sink_state.clear();
            }
            sinks.start().unwrap();
            sinks.present(&[record(40, "torn \u{1f980}".as_bytes())]);
            sinks.flush(41);
            assert_eq!(offsets(&path), (0..41).collect::<Vec<_>>(), "torn after {end} bytes");
        }
    }
}

#[test]
fn holes_that_a_power_cut_left_behind_what_was_synced_are_cut() {
    let dir = directory();
    let path = dir.path().join("out");
    let mut sinks = write_some(&path, 1);
    let stored = sinks.marks.clone();
    let more: Vec<_> = (40..50).map(|offset| record(offset, b"y")).collect();
    sinks.present(&more);
    sinks.flush(50);
    sinks.handlers.clear();
    let mut bytes = fs::read(&path).unwrap();
    let hole = bytes.len() - 700;
    bytes[hole..hole + 100].fill(0);
    bytes.extend_from_slice(&[0; 5000]);
    fs::write(&path, &bytes).unwrap();
    sinks.marks = stored;
    sinks.start().unwrap();
    sinks.present(&more);
    sinks.flush(50);
    assert_eq!(offsets(&path), (0..50).collect::<Vec<_>>());
}

#[test]
fn nothing_of_somebody_elses_is_cut_or_overwritten() {
    let dir = directory();
    for foreign in ["text without an end", "{\"offset\":1}", "[\n{", "\0\0\0", "text\n", "{\"offset\":1}\n{\"off"] {
        let path = dir.path().join("foreign");
        fs::write(&path, foreign).unwrap();
        let mut sinks = write_some(&path, 2);
        let text = fs::read_to_string(&path).unwrap();
        let rest = text.strip_prefix(foreign).unwrap_or_else(|| panic!("{foreign:?} is gone"));
        assert_eq!(rest.trim_start_matches('\n').lines().count(), 40, "{foreign:?}");
        assert!(foreign.ends_with('\n') || rest.starts_with('\n'));
        sinks.start().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn after_rotation_and_sighup_lines_go_to_the_new_file_and_a_crash_doubles_none() {
    for (lanes, checkpoint_after) in [(1, false), (3, false), (3, true)] {
        let dir = directory();
        let (path, rotated) = (dir.path().join("out"), dir.path().join("out.1"));
        let mut sinks = write_some(&path, lanes);
        let mut stored = sinks.marks.clone();
        let before: Vec<_> = (40..50).map(|offset| record(offset, b"before")).collect();
        let after: Vec<_> = (50..60).map(|offset| record(offset, b"after")).collect();
        sinks.present(&before);
        sinks.flush(50);
        fs::rename(&path, &rotated).unwrap();
        sinks.handlers.iter_mut().for_each(|handler| handler.reopen().unwrap());
        sinks.flush(50);
        if checkpoint_after {
            // The first lane's mark names the new file, the others' still the old one.
            stored[0] = sinks.marks[0].clone();
        }
        sinks.present(&after);
        sinks.flush(60);
        sinks.marks = stored;
        sinks.start().unwrap();
        let again: Vec<_> = [before, after].concat();
        let again: Vec<_> = again.into_iter().filter(|r| sinks.marks[sinks.lane(r)].watermark <= r.offset).collect();
        sinks.present(&again);
        sinks.flush(60);
        assert_eq!(sorted(offsets(&rotated)), (0..50).collect::<Vec<_>>(), "{lanes} lanes");
        assert_eq!(sorted(offsets(&path)), (50..60).collect::<Vec<_>>(), "{lanes} lanes");
    }
}

#[test]
fn a_file_that_was_renamed_while_the_server_was_down_is_read_where_it_is_now() {
    let dir = directory();
    let (path, rotated) = (dir.path().join("out"), dir.path().join("out.1"));
    let mut sinks = write_some(&path, 2);
    let stored = sinks.marks.clone();
    let more: Vec<_> = (40..50).map(|offset| record(offset, b"y")).collect();
    sinks.present(&more);
    sinks.flush(50);
    sinks.handlers.clear();
    fs::rename(&path, &rotated).unwrap();
    sinks.marks = stored;
    sinks.start().unwrap();
    sinks.present(&more);
    sinks.present(&[record(50, b"new")]);
    sinks.flush(51);
    assert_eq!(sorted(offsets(&rotated)), (0..50).collect::<Vec<_>>());
    assert_eq!(offsets(&path), [50]);
}

#[test]
fn a_reopen_that_fails_goes_on_with_the_file_that_is_open() {
    let dir = directory();
    let (path, rotated) = (dir.path().join("out"), dir.path().join("out.1"));
    let mut sinks = write_some(&path, 1);
    fs::rename(&path, &rotated).unwrap();
    fs::create_dir(&path).unwrap();
    sinks.handlers[0].reopen().unwrap_err();
    sinks.present(&[record(40, b"y")]);
    sinks.flush(41);
    assert_eq!(offsets(&rotated), (0..41).collect::<Vec<_>>());
    fs::remove_dir(&path).unwrap();
    sinks.handlers[0].reopen().unwrap();
    sinks.present(&[record(41, b"z")]);
    sinks.flush(42);
    assert_eq!(offsets(&path), [41]);
}

/// Puts something else in the file's place.
type Deed = fn(&Path);

#[test]
fn a_file_that_is_deleted_or_replaced_is_made_anew_and_no_line_goes_where_nobody_can_read_it() {
    let deeds: [(&str, Deed); 3] = [
        ("deleted", |path| fs::remove_file(path).unwrap()),
        ("replaced", |path| {
            fs::write(path.with_extension("new"), "a note\n").unwrap();
            fs::rename(path.with_extension("new"), path).unwrap();
        }),
        ("deleted and made again, perhaps with the same number", |path| {
            fs::remove_file(path).unwrap();
            fs::write(path, "").unwrap();
        }),
    ];
    for (what, deed) in deeds {
        for reopened in [false, true] {
            let dir = directory();
            let path = dir.path().join("out");
            let mut sinks = write_some(&path, 2);
            let stored = sinks.marks.clone();
            sinks.present(&(40..50).map(|offset| record(offset, b"y")).collect::<Vec<_>>());
            deed(&path);
            if reopened {
                sinks.handlers.iter_mut().for_each(|handler| handler.reopen().unwrap());
            }
            sinks.flush(50);
            let ours = || {
                let text = fs::read_to_string(&path).unwrap();
                let text = text.strip_prefix("a note\n").unwrap_or(&text).to_owned();
                fs::write(path.with_extension("ours"), text).unwrap();
                sorted(offsets(&path.with_extension("ours")))
            };
            assert_eq!(ours(), (40..50).collect::<Vec<_>>(), "{what}");
            // A crash before a checkpoint knows of the new file doubles none.
            sinks.marks = stored;
            sinks.start().unwrap();
            sinks.present(&(40..60).map(|offset| record(offset, b"y")).collect::<Vec<_>>());
            sinks.flush(60);
            let ours = ours();
            assert_eq!(ours.iter().filter(|&&offset| offset >= 50).count(), 10, "{what}: {ours:?}");
            assert_eq!(ours, (40..60).collect::<Vec<_>>(), "{what}");
        }
    }
}

#[test]
fn what_is_no_file_in_a_deleted_files_place_is_told_and_its_lines_wait_for_a_file() {
    let deeds: [(&str, Deed); 3] = [
        ("FIFO", |path| mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap()),
        ("device", |path| symlink("/dev/null", path).unwrap()),
        ("directory", |path| fs::create_dir(path).unwrap()),
    ];
    for (what, deed) in deeds {
        let dir = directory();
        let path = dir.path().join("out");
        let mut sinks = write_some(&path, 1);
        fs::remove_file(&path).unwrap();
        deed(&path);
        sinks.present(&[record(40, b"y")]);
        for _ in 0..2 {
            let error = sinks.handlers[0].flush().unwrap_err().to_string();
            assert!(error.contains(what) && error.contains(&path.display().to_string()), "{error}");
            let error = sinks.handlers[0].reopen().unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        fs::rename(&path, dir.path().join("other")).unwrap();
        sinks.flush(41);
        assert_eq!(offsets(&path), [40], "{what}");
    }
}

#[test]
fn without_its_directory_a_file_waits_and_goes_on_when_it_is_back() {
    let dir = directory();
    let inner = dir.path().join("logs");
    fs::create_dir(&inner).unwrap();
    let path = inner.join("out");
    let mut sinks = write_some(&path, 1);
    fs::remove_dir_all(&inner).unwrap();
    sinks.present(&(40..50).map(|offset| record(offset, b"y")).collect::<Vec<_>>());
    for _ in 0..3 {
        let error = sinks.handlers[0].flush().unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()) && error.contains("deleted"), "{error}");
    }
    fs::create_dir(&inner).unwrap();
    sinks.flush(50);
    assert_eq!(offsets(&path), (40..50).collect::<Vec<_>>());
}

#[test]
fn a_file_that_was_renamed_is_written_to_on_until_somebody_deletes_it() {
    let dir = directory();
    let (path, rotated) = (dir.path().join("out"), dir.path().join("out.1"));
    let mut sinks = write_some(&path, 1);
    fs::rename(&path, &rotated).unwrap();
    sinks.present(&[record(40, b"y")]);
    sinks.flush(41);
    assert_eq!(offsets(&rotated), (0..41).collect::<Vec<_>>());
    assert!(!path.exists());
    // gzip has replaced it.
    fs::remove_file(&rotated).unwrap();
    sinks.present(&[record(41, b"y")]);
    sinks.flush(42);
    assert_eq!(offsets(&path), [41]);
}

#[test]
fn a_file_that_is_cut_is_written_to_on_at_its_end() {
    let dir = directory();
    let path = dir.path().join("out");
    let mut sinks = write_some(&path, 1);
    fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    sinks.present(&[record(40, b"y")]);
    sinks.flush(41);
    assert_eq!(offsets(&path), [40]);
}

#[test]
fn with_another_number_of_lanes_lines_are_found_also_in_a_renamed_file() {
    for lanes in [1, 5] {
        let dir = directory();
        let (path, rotated) = (dir.path().join("out"), dir.path().join("out.1"));
        let mut sinks = write_some(&path, 3);
        let stored = sinks.marks.clone();
        let more: Vec<_> = (40..60).map(|offset| record(offset, b"y")).collect();
        sinks.present(&more[..10]);
        sinks.flush(50);
        fs::rename(&path, &rotated).unwrap();
        sinks.handlers.iter_mut().for_each(|handler| handler.reopen().unwrap());
        sinks.present(&more[10..]);
        sinks.flush(60);
        let mark = LaneMark { watermark: Offset(40), sink_state: Vec::new() };
        (sinks.left, sinks.marks) = (stored, vec![mark; lanes]);
        // And once more before the lanes have passed these lines, then with states of their own.
        for round in 0..2 {
            sinks.start().unwrap();
            if round == 0 {
                sinks.flush(40);
                sinks.left.clear();
            }
        }
        sinks.present(&more);
        sinks.present(&[record(60, b"new")]);
        sinks.flush(61);
        assert_eq!(sorted(offsets(&rotated)), (0..50).collect::<Vec<_>>());
        assert_eq!(sorted(offsets(&path)), (50..61).collect::<Vec<_>>());
    }
}

#[test]
fn a_device_is_written_and_never_cut_or_synced() {
    let dir = directory();
    let link = dir.path().join("null");
    symlink("/dev/null", &link).unwrap();
    let mut sinks = write_some(&link, 2);
    sinks.handlers.iter_mut().for_each(|handler| handler.reopen().unwrap());
    sinks.flush(40);
    sinks.start().unwrap();

    let mut full = Sinks::open(&["file:/dev/full"], 1);
    full.present(&[record(0, b"x")]);
    let error = full.handlers[0].flush().unwrap_err().to_string();
    assert!(error.starts_with("file:/dev/full: writing to /dev/full: "), "{error}");
}

#[test]
fn lines_in_memory_are_bounded_also_when_nothing_is_flushed() {
    let dir = directory();
    let path = dir.path().join("out");
    let mut sinks = Sinks::open(&[&file_spec(&path)], 1);
    let payload = vec![b'x'; 60_000];
    let records = 3 * crate::limits::SINK_LINES_BYTES as u64 / 60_000;
    sinks.present(&(0..records).map(|offset| record(offset, &payload)).collect::<Vec<_>>());
    let written = fs::metadata(&path).unwrap().len();
    assert!(written > 2 * crate::limits::SINK_LINES_BYTES as u64, "{written}");
    sinks.flush(records);
    assert_eq!(offsets(&path), (0..records).collect::<Vec<_>>());

    let mut full = Sinks::open(&["file:/dev/full"], 1);
    let records: Vec<_> = (0..records).map(|offset| record(offset, &payload)).collect();
    let mut outcomes = Outcomes::new(records.len());
    full.handlers[0].process(&records, &mut outcomes);
    let taken = (0..records.len()).take_while(|&i| *outcomes.answer(i) == crate::process::Answer::Done).count();
    assert!((1..records.len() / 2).contains(&taken), "{taken} of {}", records.len());
    assert!(outcomes.unavailable_reason().is_some());
}
