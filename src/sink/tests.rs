//! Tests of the sinks through the factory, as the server makes them.

mod composite;
mod crashes;
mod recovery;
mod rotation;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use duragram_proto::{ClientId, Epoch, Seq};
use tempfile::TempDir;

use super::*;
use crate::model::{Content, LaneMark, Offset, Record, SessionId, SinkId};
use crate::process::handler::{Answer, Outcomes};

fn record(offset: u64, payload: &[u8]) -> Record<'_> {
    // Sixteen clients, so that every lane has some.
    let session = SessionId { client: ClientId(offset % 16), epoch: Epoch::new(1).unwrap() };
    let content = Content::Payload(payload);
    let (received_unix_us, seq) = (1_767_323_045_000_000 + offset, Seq(offset + 1));
    Record { offset: Offset(offset), index: 0, session, seq, channel: 0, received_unix_us, content }
}

/// The lanes' handlers, and the marks that the journal holds.
struct Sinks {
    specs: Vec<SinkConfig>,
    marks: Vec<LaneMark>,
    durable_end: Offset,
    /// What the lanes of a run with another number of lanes had left.
    left: Vec<LaneMark>,
    handlers: Vec<Box<dyn Handler>>,
}

impl Sinks {
    fn open(specs: &[&str], lanes: usize) -> Self {
        let marks = vec![LaneMark::default(); lanes];
        let specs = specs.iter().map(|&spec| spec.parse().unwrap()).collect();
        let mut sinks = Self { specs, marks, durable_end: Offset(0), left: Vec::new(), handlers: Vec::new() };
        sinks.start().unwrap();
        sinks
    }

    /// Makes the handlers for what the journal holds. Drops what was there, as SIGKILL does.
    fn start(&mut self) -> Result<(), HandlerError> {
        self.handlers.clear();
        let mut factory = factory(self.specs.clone());
        for lane in (0..).map(Lane).take(self.marks.len()) {
            let start = LaneStart {
                journal: None,
                instance: None,
                sink: SinkId::EMBEDDED,
                lane,
                marks: &self.marks,
                durable_end: self.durable_end,
                left: &self.left,
            };
            self.handlers.push(factory(&start)?);
        }
        Ok(())
    }

    fn lane(&self, record: &Record<'_>) -> usize {
        usize::from(Lane::of(record.session, u16::try_from(self.marks.len()).unwrap()).0)
    }

    fn present(&mut self, records: &[Record<'_>]) {
        for record in records {
            let lane = self.lane(record);
            let mut outcomes = Outcomes::new(1);
            self.handlers[lane].process(&[*record], &mut outcomes);
            assert!(outcomes.all_done(), "{outcomes:?}");
            self.durable_end = self.durable_end.max(record.offset.plus(1));
        }
    }

    /// Flushes each lane; all its records below `watermark` were presented.
    fn flush(&mut self, watermark: u64) {
        for lane in 0..self.handlers.len() {
            let sink_state = self.handlers[lane].flush().unwrap();
            self.marks[lane] = LaneMark { watermark: Offset(watermark), sink_state };
        }
    }
}

/// In memory where there is such a thing: most cases sync dozens of times, and no power is cut here.
fn directory() -> TempDir {
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
fn offsets(path: &Path) -> Vec<u64> {
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
fn a_file_that_cannot_be_opened_is_an_error_at_start_that_names_it() {
    let dir = directory();
    for path in [dir.path().to_owned(), dir.path().join("missing/file")] {
        let mut factory = factory(vec![file_spec(&path).parse().unwrap()]);
        let marks = [LaneMark::default()];
        let start = LaneStart {
            journal: None,
            instance: None,
            sink: SinkId::EMBEDDED,
            lane: Lane(0),
            marks: &marks,
            durable_end: Offset(0),
            left: &[],
        };
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
    let taken = (0..records.len()).take_while(|&i| *outcomes.answer(i) == Answer::Done).count();
    assert!((1..records.len() / 2).contains(&taken), "{taken} of {}", records.len());
    assert!(outcomes.unavailable_reason().is_some());
}
