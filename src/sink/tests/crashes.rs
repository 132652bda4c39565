//! The file sink against a model: whatever is flushed, stored, rotated, torn and killed in whatever order, each record is
//! in the files exactly once, and each line is whole.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::{Sinks, directory, offsets, record};
use crate::model::{FormerLanes, LaneMark, Offset};
use crate::record_json::{Formatter, LINE_START};
use crate::sink::Composite;
use crate::sink::file_state::{FileId, FileState};

#[derive(Clone, Debug)]
enum Op {
    /// The journal gets so many records.
    Commit(u64),
    /// A lane is presented so many of its records.
    Present { lane: usize, records: usize },
    /// A lane flushes.
    Flush { lane: usize },
    /// The marks are stored.
    Checkpoint,
    /// logrotate renames the file.
    Rename,
    /// SIGHUP.
    Reopen,
    /// SIGKILL in the middle of a lane's write, of which so many bytes arrive, and a new start with so many lanes.
    Crash { lane: usize, bytes: usize, lanes: Option<usize> },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (1..30u64).prop_map(Op::Commit),
        6 => (0..3usize, 1..20usize).prop_map(|(lane, records)| Op::Present { lane, records }),
        4 => (0..3usize).prop_map(|lane| Op::Flush { lane }),
        2 => Just(Op::Checkpoint),
        1 => Just(Op::Rename),
        1 => Just(Op::Reopen),
        2 => (0..3usize, 0..2000usize, proptest::option::of(1..4usize))
            .prop_map(|(lane, bytes, lanes)| Op::Crash { lane, bytes, lanes }),
    ]
}

struct Model {
    dir: TempDir,
    sinks: Sinks,
    lanes: usize,
    stored: Vec<LaneMark>,
    /// Of runs with other numbers of lanes: as it is stored, and as it is known.
    stored_former: Vec<FormerLanes>,
    former: Vec<FormerLanes>,
    /// Every lane's next record, and the lines that it holds in memory.
    next: Vec<u64>,
    unflushed: Vec<Vec<u64>>,
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

    /// Whether the journal knows that the lanes write to this file: only then may the next rotation come.
    fn is_known(&self) -> bool {
        let id = FileId::of(&fs::metadata(self.path()).unwrap());
        let name = format!("file:{}", self.path().display());
        let state = |mark: &LaneMark| Composite::state_of(&name, &mark.sink_state);
        let knows = |mark| state(mark).is_some_and(|s| serde_json::from_slice::<FileState>(&s).unwrap().first.id == id);
        self.stored.iter().all(knows)
    }

    /// The lane's next record at or above an offset.
    fn own(&self, lane: usize, from: u64) -> Option<u64> {
        let passed = |offset| {
            let session = record(offset, b"").session;
            self.former.iter().any(|lanes| lanes.have_passed(session, Offset(offset)))
        };
        (from..self.end).find(|&offset| self.sinks.lane(&record(offset, b"")) == lane && !passed(offset))
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Commit(records) => self.end += records,
            Op::Present { lane, records } => {
                let lane = lane % self.lanes;
                for _ in 0..records {
                    let Some(offset) = self.own(lane, self.next[lane]) else { break };
                    self.sinks.present(&[record(offset, &payload(offset))]);
                    if !self.in_files.contains(&offset) {
                        self.unflushed[lane].push(offset);
                    }
                    self.next[lane] = offset + 1;
                }
            }
            Op::Flush { lane } => {
                let lane = lane % self.lanes;
                let sink_state = self.sinks.handlers[lane].flush().unwrap();
                self.in_files.extend(self.unflushed[lane].drain(..));
                self.sinks.marks[lane] = LaneMark { watermark: Offset(self.next[lane]), sink_state };
            }
            Op::Checkpoint => {
                self.stored = self.sinks.marks.clone();
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
                self.sinks.handlers.iter_mut().for_each(|handler| handler.reopen().unwrap());
                self.is_open = true;
            }
            Op::Crash { lane, bytes, lanes } => self.crash(lane % self.lanes, bytes, lanes.unwrap_or(self.lanes)),
        }
    }

    fn crash(&mut self, lane: usize, bytes: usize, lanes: usize) {
        let (mut formatter, mut lines) = (Formatter::default(), Vec::new());
        for &offset in &self.unflushed[lane] {
            formatter.line(&record(offset, &payload(offset)), &mut lines);
        }
        let open = if self.is_open { self.path() } else { self.renamed_path() };
        self.sinks.handlers.clear();
        let mut file = OpenOptions::new().append(true).open(open).unwrap();
        // The few first bytes of a file show nobody whose they are: such a start stays.
        let bytes = if file.metadata().unwrap().len() == 0 { bytes.max(LINE_START.len()) } else { bytes };
        file.write_all(&lines[..bytes.min(lines.len())]).unwrap();
        self.sinks.marks = self.stored.clone();
        self.former = self.stored_former.clone();
        self.sinks.left.clear();
        if self.stored.len() != lanes {
            let watermarks: Vec<Offset> = self.stored.iter().map(|mark| mark.watermark).collect();
            let watermark = watermarks.iter().copied().min().unwrap();
            self.sinks.left = self.stored.clone();
            self.sinks.marks = vec![LaneMark { watermark, sink_state: Vec::new() }; lanes];
            self.former.push(FormerLanes(watermarks));
        }
        self.lanes = lanes;
        self.sinks.durable_end = Offset(self.end);
        self.sinks.start().unwrap();
        // As a lane does first of all.
        for (handler, mark) in self.sinks.handlers.iter_mut().zip(&mut self.sinks.marks) {
            mark.sink_state = handler.flush().unwrap();
        }
        self.in_files = self.written().into_iter().collect();
        self.is_open = true;
        self.next = self.sinks.marks.iter().map(|mark| mark.watermark.0).collect();
        self.unflushed = vec![Vec::new(); self.lanes];
    }

    fn finish(&mut self) {
        for lane in 0..self.lanes {
            self.apply(&Op::Present { lane, records: usize::MAX });
            self.apply(&Op::Flush { lane });
        }
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
    fn each_record_is_in_the_files_exactly_once(ops in proptest::collection::vec(op(), 1..60), lanes in 1..4usize) {
        let dir = directory();
        let sinks = Sinks::open(&[&format!("file:{}", dir.path().join("out").display())], lanes);
        let stored = vec![LaneMark::default(); lanes];
        let (next, unflushed) = (vec![0; lanes], vec![Vec::new(); lanes]);
        let mut model = Model {
            dir, sinks, lanes, stored, stored_former: Vec::new(), former: Vec::new(), next, unflushed, end: 0,
            in_files: BTreeSet::new(), renamed: 0, is_open: true,
        };
        for op in &ops {
            model.apply(op);
        }
        model.finish();
        prop_assert_eq!(model.written(), (0..model.end).collect::<Vec<_>>());
    }
}
