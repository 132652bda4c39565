//! Tests of the sinks that write lines, made as the server makes them.

mod crashes;
mod recovery;
mod rotation;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use duragram_proto::{ClientId, Epoch, Seq};
use tempfile::TempDir;

use super::*;
use crate::model::{Content, Lane, LaneMark, Offset, Record, SessionId, SinkId};
use crate::process::handler::{Outcome, Outcomes};

fn record(offset: u64, payload: &[u8]) -> Record<'_> {
    let session = SessionId { client: ClientId(offset % 16), epoch: Epoch::new(1).unwrap() };
    let content = Content::Payload(payload);
    let (received_unix_us, seq) = (1_767_323_045_000_000 + offset, Seq(offset + 1));
    Record { offset: Offset(offset), index: 0, session, seq, channel: 0, received_unix_us, asks: false, content }
}

/// A sink's only lane, and what the journal holds of it.
struct Sink {
    config: SinkConfig,
    mark: LaneMark,
    durable_end: Offset,
    /// What several lanes had left that wrote to its file together.
    left: Vec<LaneMark>,
    handler: Box<dyn Handler>,
}

impl Sink {
    fn open(spec: &str) -> Self {
        let config: SinkConfig = spec.parse().unwrap();
        let (mark, durable_end, left) = (LaneMark::default(), Offset(0), Vec::new());
        let mut sink = Self { config, mark, durable_end, left, handler: Box::new(Null) };
        sink.start().unwrap();
        sink
    }

    /// Drops what was there, as SIGKILL does.
    fn kill(&mut self) {
        self.handler = Box::new(Null);
    }

    /// Makes the handler for what the journal holds, after such a kill.
    fn start(&mut self) -> Result<(), HandlerError> {
        self.kill();
        let start = LaneStart {
            journal: None,
            instance: None,
            sink: SinkId::EMBEDDED,
            lane: Lane(0),
            marks: std::slice::from_ref(&self.mark),
            durable_end: self.durable_end,
            left: &self.left,
        };
        self.handler = handler(&self.config, &start)?;
        Ok(())
    }

    fn present(&mut self, records: &[Record<'_>]) {
        for record in records {
            let mut outcomes = Outcomes::new(1);
            self.handler.process(&[*record], &mut outcomes);
            assert!(outcomes.all_done(), "{outcomes:?}");
            self.durable_end = self.durable_end.max(record.offset.plus(1));
        }
    }

    /// Flushes; all records below `watermark` were presented.
    fn flush(&mut self, watermark: u64) {
        let sink_state = self.handler.flush().unwrap();
        self.mark = LaneMark { watermark: Offset(watermark), sink_state };
    }
}

/// In memory where there is such a thing: most cases sync dozens of times, and no power is cut here.
fn directory() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

fn file_spec(path: &Path) -> String {
    format!("file:{}", path.display())
}

fn write_some(path: &Path) -> Sink {
    let mut sink = Sink::open(&file_spec(path));
    sink.present(&(0..40).map(|offset| record(offset, b"x")).collect::<Vec<_>>());
    sink.flush(40);
    sink
}

/// The offsets of a file's lines, each of which must be whole.
fn offsets(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    let offset = |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["offset"].as_u64().unwrap();
    text.lines().map(offset).collect()
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_at_start_that_names_it() {
    let dir = directory();
    let mut sink = Sink::open("null");
    for path in [dir.path().to_owned(), dir.path().join("missing/file")] {
        sink.config = file_spec(&path).parse().unwrap();
        let error = sink.start().unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}

#[test]
fn two_servers_do_not_share_a_file_and_neither_do_two_lanes() {
    let dir = directory();
    let path = dir.path().join("out");
    let sink = write_some(&path);
    let mut other = Sink { config: sink.config.clone(), ..Sink::open("null") };
    let error = other.start().unwrap_err().to_string();
    assert!(error.contains("another process writes to it"), "{error}");
    drop(sink);
    other.start().unwrap();
    other.kill();
    let marks = [LaneMark::default(), LaneMark::default()];
    let start = LaneStart {
        journal: None,
        instance: None,
        sink: SinkId::EMBEDDED,
        lane: Lane(0),
        marks: &marks,
        durable_end: Offset(0),
        left: &[],
    };
    let error = handler(&other.config, &start).err().unwrap().to_string();
    assert!(error.contains("one lane, not 2"), "{error}");
}

#[test]
fn a_device_is_written_and_never_cut_or_synced() {
    let dir = directory();
    let link = dir.path().join("null");
    symlink("/dev/null", &link).unwrap();
    let mut sink = write_some(&link);
    sink.handler.reopen().unwrap();
    sink.flush(40);
    sink.start().unwrap();

    let mut full = Sink::open("file:/dev/full");
    full.present(&[record(0, b"x")]);
    let error = full.handler.flush().unwrap_err().to_string();
    assert!(error.starts_with("writing to /dev/full: "), "{error}");
}

#[test]
fn lines_in_memory_are_bounded_also_when_nothing_is_flushed() {
    let dir = directory();
    let path = dir.path().join("out");
    let mut sink = Sink::open(&file_spec(&path));
    let payload = vec![b'x'; 60_000];
    let records = 3 * crate::limits::SINK_LINES_BYTES as u64 / 60_000;
    sink.present(&(0..records).map(|offset| record(offset, &payload)).collect::<Vec<_>>());
    let written = fs::metadata(&path).unwrap().len();
    assert!(written > 2 * crate::limits::SINK_LINES_BYTES as u64, "{written}");
    sink.flush(records);
    assert_eq!(offsets(&path), (0..records).collect::<Vec<_>>());

    let mut full = Sink::open("file:/dev/full");
    let records: Vec<_> = (0..records).map(|offset| record(offset, &payload)).collect();
    let mut outcomes = Outcomes::new(records.len());
    full.handler.process(&records, &mut outcomes);
    let taken = (0..records.len()).take_while(|&i| *outcomes.outcome(i) == Outcome::Done).count();
    assert!((1..records.len() / 2).contains(&taken), "{taken} of {}", records.len());
    assert!(outcomes.unavailable_reason().is_some());
}
