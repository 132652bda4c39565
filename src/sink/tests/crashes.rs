//! The file sink against a model: whatever is flushed, stored, rotated, torn and killed in whatever order, each record is
//! in the files exactly once, and each line is whole.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::{Sink, directory, file_spec, offsets, record};
use crate::model::{FormerLanes, LaneMark, Offset};
use crate::record_json::{Formatter, LINE_START};
use crate::sink::file_state::{FileId, FileState};

#[derive(Clone, Debug)]
enum Op {
    /// The journal gets so many records.
    Commit(u64),
    /// The lane is presented so many of them.
    Present(usize),
    /// The lane flushes what it was presented.
    Flush,
    /// A checkpoint stores the lane's mark.
    Checkpoint,
    /// The file gets another name, as when logrotate renames it.
    Rename,
    /// The operator asks the sink to open its files anew.
    Reopen,
    /// SIGKILL in the middle of a write, of which so many bytes arrive, and a new start; `together`: in a journal that holds
    /// the marks of two lanes which wrote to the file together.
    Crash { bytes: usize, together: bool },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (1..30u64).prop_map(Op::Commit),
        6 => (1..20usize).prop_map(Op::Present),
        4 => Just(Op::Flush),
        2 => Just(Op::Checkpoint),
        1 => Just(Op::Rename),
        1 => Just(Op::Reopen),
        2 => (0..2000usize, any::<bool>()).prop_map(|(bytes, together)| Op::Crash { bytes, together }),
    ]
}

struct Model {
    dir: TempDir,
    sink: Sink,
    /// The mark that was stored last, and the one before it: as lanes that wrote together leave them, one ahead of the other.
    stored: [LaneMark; 2],
    /// Of lanes that wrote together: as it is stored, and as it is known.
    stored_former: Vec<FormerLanes>,
    former: Vec<FormerLanes>,
    /// The lane's next record, and the lines that it holds in memory.
    next: u64,
    unflushed: Vec<u64>,
    end: u64,
    in_files: BTreeSet<u64>,
    renamed: usize,
    /// The sink writes to the file at its path, and not to a renamed one.
    is_open: bool,
}

fn payload(offset: u64) -> Vec<u8> {
    format!("the {offset}th").repeat(usize::try_from(offset % 5).unwrap()).into_bytes()
}

impl Model {
    fn path(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn renamed_path(&self) -> PathBuf {
        self.dir.path().join(format!("out.{}", self.renamed))
    }

    /// Whether the journal knows that the lane writes to this file: only then may the next rotation come.
    fn is_known(&self) -> bool {
        let id = FileId::of(&fs::metadata(self.path()).unwrap());
        let state = |mark: &LaneMark| serde_json::from_slice::<FileState>(&mark.sink_state).ok();
        self.stored.iter().all(|mark| state(mark).is_some_and(|state| state.first.id == id))
    }

    /// The lane's next record at or above an offset.
    fn own(&self, from: u64) -> Option<u64> {
        let passed = |offset| {
            let session = record(offset, b"").session;
            self.former.iter().any(|lanes| lanes.have_passed(session, Offset(offset)))
        };
        (from..self.end).find(|&offset| !passed(offset))
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Commit(records) => self.end += records,
            Op::Present(records) => {
                for _ in 0..records {
                    let Some(offset) = self.own(self.next) else { break };
                    self.sink.present(&[record(offset, &payload(offset))]);
                    if !self.in_files.contains(&offset) {
                        self.unflushed.push(offset);
                    }
                    self.next = offset + 1;
                }
            }
            Op::Flush => {
                self.sink.flush(self.next);
                self.in_files.extend(self.unflushed.drain(..));
            }
            Op::Checkpoint => {
                self.stored = [self.sink.mark.clone(), self.stored[0].clone()];
                self.stored_former = self.former.clone();
            }
            Op::Rename => {
                if self.is_open && self.is_known() {
                    self.renamed += 1;
                    fs::rename(self.path(), self.renamed_path()).unwrap();
                    self.is_open = false;
                }
            }
            Op::Reopen => {
                self.sink.handler.reopen().unwrap();
                self.is_open = true;
            }
            Op::Crash { bytes, together } => self.crash(bytes, together),
        }
    }

    fn crash(&mut self, bytes: usize, together: bool) {
        let (mut formatter, mut lines) = (Formatter::default(), Vec::new());
        for &offset in &self.unflushed {
            formatter.line(&record(offset, &payload(offset)), &mut lines);
        }
        let open = if self.is_open { self.path() } else { self.renamed_path() };
        self.sink.kill();
        let mut file = OpenOptions::new().append(true).open(open).unwrap();
        // The few first bytes of a file show nobody whose they are: such a start stays.
        let bytes = if file.metadata().unwrap().len() == 0 { bytes.max(LINE_START.len()) } else { bytes };
        file.write_all(&lines[..bytes.min(lines.len())]).unwrap();
        self.former = self.stored_former.clone();
        (self.sink.mark, self.sink.left) = (self.stored[0].clone(), Vec::new());
        if together {
            let watermarks: Vec<Offset> = self.stored.iter().map(|mark| mark.watermark).collect();
            let watermark = watermarks.iter().copied().min().unwrap();
            self.sink.mark = LaneMark { watermark, sink_state: Vec::new() };
            self.sink.left = self.stored.to_vec();
            self.former.push(FormerLanes(watermarks));
        }
        self.sink.durable_end = Offset(self.end);
        self.sink.start().unwrap();
        // As a lane does first of all.
        self.sink.flush(self.sink.mark.watermark.0);
        self.in_files = self.written().into_iter().collect();
        self.is_open = true;
        self.next = self.sink.mark.watermark.0;
        self.unflushed.clear();
    }

    fn finish(&mut self) {
        self.apply(&Op::Present(usize::MAX));
        self.apply(&Op::Flush);
    }

    fn written(&self) -> Vec<u64> {
        let files = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut all: Vec<u64> = files.flat_map(|path| offsets(&path)).collect();
        all.sort_unstable();
        all
    }
}

proptest! {
    #[test]
    fn each_record_is_in_the_files_exactly_once(ops in proptest::collection::vec(op(), 1..60)) {
        let dir = directory();
        let sink = Sink::open(&file_spec(&dir.path().join("out")));
        let mut model = Model {
            dir, sink, stored: Default::default(), stored_former: Vec::new(), former: Vec::new(), next: 0, unflushed: Vec::new(),
            end: 0, in_files: BTreeSet::new(), renamed: 0, is_open: true,
        };
        for op in &ops {
            model.apply(op);
        }
        model.finish();
        prop_assert_eq!(model.written(), (0..model.end).collect::<Vec<_>>());
    }
}
