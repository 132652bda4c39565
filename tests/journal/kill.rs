//! The journal on disk under SIGKILL: a child process writes and says what is durable, the parent kills it and looks.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use duragram::journal::{
    BlockBuilder, Checkpoint, DeadLetter, DeadLetterId, Journal, Opened, Replay, RocksJournal, RocksOptions, inspect,
};
use duragram::model::{DialectId, EntryMeta, LaneMark, Offset, SessionId, SinkId, SinkLoss, SinkRecord};
use duragram_proto::{ClientId, Epoch, Seq};

const DIRECTORY: &str = "DURAGRAM_TEST_DIRECTORY";

fn session() -> SessionId {
    SessionId { client: ClientId(7), epoch: Epoch::new(1).unwrap() }
}

/// Of the entry with this offset.
fn payload(offset: u64) -> Vec<u8> {
    let len = usize::try_from(offset % 900).unwrap();
    offset.to_le_bytes().into_iter().cycle().take(len).collect()
}

fn letter(offset: Offset, sink: SinkId) -> DeadLetter {
    DeadLetter {
        id: DeadLetterId { offset, index: 0, sink },
        session: session(),
        seq: Seq(1),
        channel: 0,
        received_unix_us: 1,
        payload: payload(offset.0),
        gap_from: None,
        error: String::new(),
        attempts: 1,
        since_unix_us: 1,
        told_failed: false,
    }
}

/// A sink that is as far as the lane, and one that has lost all below.
fn sinks(watermark: u64) -> Vec<SinkRecord> {
    let sink = |id, holds: bool, losses| {
        let mark = LaneMark { watermark: Offset(watermark), sink_state: payload(watermark) };
        SinkRecord { holds, losses, ..SinkRecord::new(SinkId(id), format!("sink-{id}"), 7, mark, 1) }
    };
    let loss = SinkLoss { from: Offset(0), to: Offset(watermark), entries: watermark, unix_us: 1 };
    let losses = if watermark > 0 { vec![loss] } else { Vec::new() };
    vec![sink(1, true, Vec::new()), sink(2, false, losses)]
}

fn small_memtables() -> RocksOptions {
    RocksOptions { memtable_bytes: 1 << 20, ..RocksOptions::default() }
}

/// Runs in the child: writes until it is killed; after each commit it says how far the journal is durable, and how far it
/// was trimmed.
#[test]
#[ignore = "the child process of the test below"]
fn write_until_killed() {
    let path = std::env::var_os(DIRECTORY).expect("run by its parent");
    let opened = RocksJournal::open(Path::new(&path), &small_memtables(), &mut |_| {}).unwrap();
    let Opened { mut journal, dead, low, .. } = opened;
    let (mut block, mut trimmed) = (BlockBuilder::default(), low.0);
    for round in 1u64.. {
        for _ in 0..round % 40 + 1 {
            let offset = journal.end().0 + block.len() as u64;
            let meta = EntryMeta {
                dialect: DialectId::DURAGRAM,
                session: session(),
                seq: Seq(offset + 1),
                span: 0,
                skip: false,
                batch: false,
                asks: false,
                sealed: false,
                channel: 0,
                received_unix_us: 1,
            };
            block.push(&meta, &payload(offset));
        }
        let end = journal.commit(&mut block, &[]).unwrap().end();
        if round % 50 == 0 {
            dead.put(&letter(end, SinkId::EMBEDDED)).unwrap();
            dead.put(&letter(end, SinkId(1))).unwrap();
            trimmed = end.0.saturating_sub(3000).max(trimmed);
            let lanes = vec![LaneMark { watermark: Offset(trimmed), sink_state: Vec::new() }];
            let (trim_below, sinks) = (Offset(trimmed), sinks(trimmed));
            journal.checkpoint(&Checkpoint { at: end, lanes, sinks, trim_below, ..Checkpoint::default() }).unwrap();
        }
        writeln!(std::io::stdout(), "durable {end} trimmed {trimmed} dead {}", dead.count()).unwrap();
    }
}

fn start(path: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "write_until_killed", "--nocapture"])
        .env(DIRECTORY, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    (child, stdout)
}

#[test]
fn what_was_said_to_be_durable_survives_sigkill_again_and_again() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("data");
    for commits in [1, 30, 700, 100, 1500, 3] {
        let (mut child, stdout) = start(&path);
        let said = stdout.lines().map(Result::unwrap).filter(|line| line.starts_with("durable ")).nth(commits).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let numbers: Vec<u64> = said.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [durable, trimmed, dead] = numbers[..] else { panic!("{said}") };

        let verified = inspect::verify(&path).unwrap();
        assert!(verified.damage.is_empty(), "{:?}", verified.damage);
        let mut replayed_to = None;
        let opened = RocksJournal::open(&path, &small_memtables(), &mut |replay| {
            if let Replay::Block(block) = replay {
                replayed_to = Some(block.end());
            }
        });
        let opened = opened.unwrap();
        assert!(opened.end.0 >= durable && opened.dead.count() >= dead, "{said}, found {}", opened.end);
        assert!(opened.low.0 <= trimmed.max(opened.lanes.first().map_or(0, |lane| lane.watermark.0)), "{said}");
        let together = opened.lanes.first().map_or_else(Vec::new, |lane| sinks(lane.watermark.0));
        assert_eq!(opened.sinks, together, "sinks and lanes are of one checkpoint");
        assert!(replayed_to.is_none_or(|end| end == opened.end));
        let mut at = opened.low;
        while at < opened.end {
            for block in opened.reader.read(at, 1 << 20).unwrap() {
                for entry in block.entries() {
                    assert!(entry.payload == payload(entry.offset.0), "entry {}", entry.offset);
                    assert_eq!(entry.meta.seq.0, entry.offset.0 + 1);
                }
                assert_eq!(block.first(), at);
                at = block.end();
            }
        }
    }
}
