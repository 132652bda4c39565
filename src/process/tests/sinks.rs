//! Tests of configured sinks beside each other: each has its own place, its own troubles and its own dead letters.

mod answers;
mod asked_and_lost;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use prometheus_client::registry::Registry;

use super::*;
use crate::journal::JournalError;
use crate::model::{BacklogConfig, ChannelSet, LaneMark, SinkId, SinkRecord};

/// What one sink's target has got, over all runs, and how it behaves.
#[derive(Default)]
struct Target {
    records: Vec<Key>,
    calls: Vec<usize>,
    retried: Vec<Key>,
    lost: Vec<(u64, u64)>,
    /// How often a handler was made.
    made: usize,
    /// The state with which the last one was made.
    began_with: Vec<u8>,
    away: bool,
    /// It gives up the record of this entry.
    gives_up: Option<u64>,
    /// It can do nothing yet with the record of this entry, and makes durable what it has done of the others.
    retries: Option<u64>,
    /// It takes so many records of a call, and then goes away.
    takes: Option<usize>,
    flush_fails: bool,
}

struct Fake(Arc<Mutex<Target>>);

impl Handler for Fake {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        let mut target = lock(&self.0);
        target.calls.push(records.len());
        if target.away {
            return outcomes.unavailable("gone fishing");
        }
        for (i, record) in records.iter().enumerate() {
            if target.takes == Some(i) {
                return outcomes.unavailable("gone fishing");
            }
            if target.gives_up == Some(record.offset.0) {
                outcomes.give_up(i, "never");
            } else if target.retries == Some(record.offset.0) {
                outcomes.retry(i, "not yet");
            } else {
                target.records.push(key(record));
                outcomes.done(i);
            }
        }
    }

    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        let target = lock(&self.0);
        if target.flush_fails {
            Err(HandlerError::new("no paper"))
        } else {
            Ok(vec![target.records.len().to_le_bytes()[0]])
        }
    }

    fn settle(&mut self) -> Result<bool, HandlerError> {
        Ok(lock(&self.0).retries.is_some())
    }

    fn retry(&mut self, record: &Record<'_>, outcomes: &mut Outcomes) {
        lock(&self.0).retried.push(key(record));
        outcomes.done(0);
    }

    fn lost(&mut self, from: Offset, to: Offset) {
        lock(&self.0).lost.push((from.0, to.0));
    }

    fn moved(&mut self) -> Vec<u8> {
        b"elsewhere".to_vec()
    }
}

/// What is configured of a sink.
#[derive(Clone, Default)]
struct Setup {
    channels: Option<ChannelSet>,
    batch_delay_ms: u64,
    answering: Answering,
}

/// A server with sinks of these names, driven by hand.
struct Sinks {
    disk: MemoryDisk,
    journal: MemoryJournal,
    dead: Arc<dyn DeadLetters>,
    lanes: Lanes,
    control: SinkControl,
    targets: BTreeMap<String, Arc<Mutex<Target>>>,
    seqs: u64,
}

fn sink_record(name: &str) -> SinkRecord {
    let id = SinkId(name.bytes().fold(1, |id, byte| id * 256 + u128::from(byte)));
    SinkRecord::new(id, name, 7, LaneMark::default(), 1)
}

impl Sinks {
    fn new(names: &[&str]) -> Self {
        Self::start(MemoryDisk::default(), names, BTreeMap::new(), 0, &Setup::default())
    }

    fn start(
        disk: MemoryDisk,
        names: &[&str],
        mut targets: BTreeMap<String, Arc<Mutex<Target>>>,
        seqs: u64,
        setup: &Setup,
    ) -> Self {
        let opened = disk.open(&mut |_| ());
        let metrics = Metrics::register(&mut Registry::default());
        let mailbox = Progress::new_mailbox();
        let mut sinks = Vec::new();
        for &name in names {
            let known = opened.sinks.iter().find(|record| record.name == name).cloned();
            let record = known.unwrap_or_else(|| sink_record(name));
            let backlog = BacklogConfig::default();
            let cursor = Cursor::new(&record, setup.channels.clone(), backlog, 2, &metrics);
            let (marks, former) = (vec![record.mark.clone()], record.former.clone());
            let renumbered = Renumbered { marks, left: Vec::new(), former };
            let batch_delay = std::time::Duration::from_millis(setup.batch_delay_ms);
            let config = LaneConfig { batch_delay, answering: setup.answering, ..config() };
            let parts = LaneParts {
                progress: Progress::resume_sink(opened.end, renumbered, cursor, &mailbox, &metrics),
                journal: Arc::new(disk.clone()),
                dead: Arc::clone(&opened.dead),
                metrics: metrics.clone(),
                config,
                seed: 7,
            };
            let target = Arc::clone(targets.entry(name.to_owned()).or_default());
            let factory: HandlerFactory = Box::new(move |start| {
                lock(&target).made += 1;
                lock(&target).began_with.clone_from(&start.mark().sink_state);
                Ok(Box::new(Fake(Arc::clone(&target))))
            });
            sinks.push((parts, factory));
        }
        let is_gone = |record: &SinkRecord| !names.contains(&record.name.as_str());
        let gone = opened.sinks.into_iter().filter(is_gone).collect();
        let lanes = Lanes::build_sinks(sinks, gone).unwrap();
        let control = SinkControl::new(&lanes);
        Self { disk, journal: opened.journal, dead: opened.dead, lanes, control, targets, seqs }
    }

    /// Killed, and started again with sinks of these names.
    fn restart(self, names: &[&str]) -> Self {
        Self::start(self.disk, names, self.targets, self.seqs, &Setup::default())
    }

    fn publish(&mut self, entries: u64) {
        self.publish_on(entries, 0);
    }

    fn publish_on(&mut self, entries: u64, channel: u16) {
        let mut builder = BlockBuilder::default();
        for _ in 0..entries {
            self.seqs += 1;
            builder.push(&crate::model::EntryMeta { channel, ..meta(1, self.seqs) }, b"a record");
        }
        let durable = self.journal.commit(&mut builder, &[]).unwrap();
        self.lanes.fanout.publish(durable.block().unwrap());
    }

    fn settle(&mut self, mono_us: u64) {
        for worker in &mut self.lanes.workers {
            while matches!(worker.step(at(mono_us)), LaneStep::Worked) {}
        }
    }

    /// As the committer does it.
    fn checkpoint(&mut self) -> Result<(), JournalError> {
        let cursors = &self.lanes.cursors;
        let (retried, asked) = (cursors.retried(), cursors.asked());
        let sinks = cursors.records();
        let held = sinks.iter().filter(|sink| sink.holds).map(|sink| sink.mark.watermark).min();
        let at = self.journal.end();
        let checkpoint = Checkpoint { at, sinks, retried, trim_below: held.unwrap_or(at), ..Checkpoint::default() };
        self.journal.checkpoint(&checkpoint)?;
        cursors.checkpointed(&checkpoint.retried, &checkpoint.sinks, asked);
        Ok(())
    }

    fn target(&self, name: &str) -> MutexGuard<'_, Target> {
        lock(&self.targets[name])
    }

    fn mark(&self, name: &str) -> u64 {
        self.lanes.cursors.named(name).unwrap().lowest_watermark().0
    }

    fn stored(&self, name: &str) -> Option<SinkRecord> {
        self.disk.sinks().into_iter().find(|record| record.name == name)
    }

    /// The sink loses what lies below, as the committer decides.
    fn lose_below(&self, name: &str, to: u64) {
        let lost = self.lanes.cursors.named(name).unwrap().lose_below(Offset(to), 9);
        assert!(lost.is_some());
    }
}

#[test]
fn a_sink_that_is_away_holds_nobody_up_and_gets_all_when_it_is_back() {
    let mut sinks = Sinks::new(&["a", "b"]);
    sinks.target("a").away = true;
    for round in 0..20 {
        sinks.publish(50);
        sinks.settle(round * 60_000);
    }
    sinks.settle(2_000_000);
    assert_eq!(sinks.target("b").records, keys(0..1000));
    assert_eq!((sinks.mark("a"), sinks.mark("b")), (0, 1000));
    assert_eq!(sinks.dead.count(), 0, "an outage makes no dead letters");
    sinks.target("a").away = false;
    sinks.settle(20_000_000);
    sinks.settle(21_000_000);
    assert_eq!(sinks.target("a").records, keys(0..1000));
    assert_eq!(sinks.mark("a"), 1000);
}

#[test]
fn after_a_restart_each_sink_goes_on_where_it_was() {
    let mut sinks = Sinks::new(&["a", "b"]);
    sinks.publish(10);
    sinks.settle(0);
    sinks.settle(1_000_000);
    sinks.target("a").away = true;
    sinks.publish(10);
    sinks.settle(1_000_000);
    sinks.settle(2_000_000);
    sinks.checkpoint().unwrap();
    assert_eq!(sinks.disk.low(), Offset(10), "what one sink lacks is kept, and no more");
    let marks = ["a", "b"].map(|name| sinks.stored(name).unwrap().mark);
    assert_eq!(marks.map(|mark| (mark.watermark.0, mark.sink_state)), [(10, vec![10]), (20, vec![20])]);
    sinks.target("a").away = false;
    let mut sinks = sinks.restart(&["b", "a"]);
    sinks.publish(5);
    sinks.settle(0);
    for name in ["a", "b"] {
        assert_eq!(sinks.target(name).records, keys(0..25), "{name}");
    }
}

#[test]
fn a_sink_that_is_not_configured_keeps_its_place_until_it_is_removed() {
    let mut sinks = Sinks::new(&["a", "b"]);
    sinks.publish(10);
    sinks.settle(0);
    sinks.settle(1_000_000);
    sinks.checkpoint().unwrap();
    let mut sinks = sinks.restart(&["b"]);
    sinks.publish(10);
    sinks.settle(0);
    sinks.settle(1_000_000);
    sinks.checkpoint().unwrap();
    assert_eq!(sinks.disk.low(), Offset(10));
    let listed: Vec<_> = sinks.control.list().into_iter().map(|sink| (sink.record.name, sink.configured)).collect();
    assert_eq!(listed, [("b".to_owned(), true), ("a".to_owned(), false)]);
    let mut sinks = sinks.restart(&["a", "b"]);
    sinks.settle(0);
    assert_eq!(sinks.target("a").records, keys(0..20), "it comes back and goes on");
    let mut sinks = sinks.restart(&["b"]);
    let error = sinks.control.pause("a").unwrap_err();
    assert_eq!(error, SinkControlError::NotConfigured("a".into()));
    let answer = sinks.control.remove("a").unwrap();
    assert!(answer.try_recv().is_err(), "it is not durable yet");
    sinks.checkpoint().unwrap();
    assert_eq!(answer.try_recv(), Ok(()));
    assert_eq!(sinks.stored("a"), None);
    assert_eq!(sinks.disk.low(), Offset(20));
    let unknown = sinks.control.remove("a").unwrap_err().to_string();
    assert_eq!(unknown, "there is no sink \"a\"; there are: b");
}

#[test]
fn records_of_channels_that_a_sink_does_not_take_count_as_processed() {
    let setup = Setup { channels: Some(ChannelSet::of([7])), ..Setup::default() };
    let mut sinks = Sinks::start(MemoryDisk::default(), &["a"], BTreeMap::new(), 0, &setup);
    sinks.publish_on(5, 0);
    sinks.settle(0);
    assert_eq!(sinks.mark("a"), 5, "there is nothing to wait for");
    sinks.publish_on(2, 7);
    sinks.publish_on(3, 8);
    sinks.settle(0);
    sinks.settle(1_000_000);
    assert_eq!(sinks.target("a").records, keys(5..7));
    assert_eq!(sinks.mark("a"), 10);
}

#[test]
fn records_wait_for_others_to_fill_a_call_and_no_longer_than_they_may() {
    let setup = Setup { batch_delay_ms: 100, ..Setup::default() };
    let mut sinks = Sinks::start(MemoryDisk::default(), &["a"], BTreeMap::new(), 0, &setup);
    sinks.publish(3);
    sinks.settle(0);
    sinks.publish(4);
    sinks.settle(99_999);
    assert_eq!(sinks.target("a").calls, [0; 0]);
    let waits = sinks.lanes.workers[0].step(at(99_999));
    assert!(matches!(waits, LaneStep::Idle { until_us: Some(100_000) }), "{waits:?}");
    sinks.settle(100_000);
    assert_eq!(sinks.target("a").calls, [7]);
    sinks.publish(crate::limits::LANE_BATCH_RECORDS as u64);
    sinks.settle(100_001);
    assert_eq!(sinks.target("a").calls.len(), 2, "a full call waits for nobody");
}

#[test]
fn how_far_a_sink_is_behind_is_shown_at_once() {
    let mut sinks = Sinks::new(&["a"]);
    let lag = |sinks: &Sinks| sinks.lanes.cursors.groups()[0].cursor().unwrap().metrics().lag.get();
    sinks.publish(3);
    assert_eq!(lag(&sinks), 3, "no check of bounds has come since");
    sinks.settle(0);
    sinks.settle(1_000_000);
    assert_eq!(lag(&sinks), 0);
}

#[test]
fn a_dead_letter_belongs_to_its_sink_and_is_retried_only_there() {
    let mut sinks = Sinks::new(&["a", "b"]);
    sinks.target("a").gives_up = Some(1);
    sinks.publish(3);
    sinks.settle(0);
    sinks.settle(1_000_000);
    let letters = sinks.dead.list(DeadLetterId::FIRST, 10).unwrap();
    assert_eq!(letters.iter().map(|letter| letter.id.sink).collect::<Vec<_>>(), [sink_record("a").id]);
    assert_eq!(sinks.target("b").records, keys(0..3));
    let answer = sinks.lanes.control.retry_dead(&letters[0]).unwrap();
    sinks.settle(1_000_000);
    assert_eq!(sinks.target("a").retried, [(1, 0)]);
    assert!(sinks.target("b").retried.is_empty());
    sinks.checkpoint().unwrap();
    assert_eq!(answer.try_recv(), Ok(Ok(())));
    assert_eq!(sinks.dead.count(), 0);
    let sinks = sinks.restart(&["b", "c"]);
    let error = sinks.lanes.control.retry_dead(&letters[0]).unwrap_err();
    assert_eq!(error, NotAsked::NoSuchSink(sink_record("a").id));
    let mut of_all = letters[0].clone();
    of_all.id.sink = SinkId::EMBEDDED;
    assert_eq!(sinks.lanes.control.retry_dead(&of_all).unwrap_err(), NotAsked::OfAllSinks);
    assert!(sinks.restart(&["b"]).lanes.control.retry_dead(&of_all).is_ok(), "of one sink there is no doubt");
}

#[test]
fn a_stop_drains_every_sink_that_is_there_and_waits_for_none_that_is_not() {
    let mut sinks = Sinks::new(&["a", "b", "c"]);
    sinks.target("a").away = true;
    drop(sinks.control.pause("c").unwrap());
    sinks.publish(10);
    sinks.lanes.control.drain(5_000_000);
    let mut ends = BTreeMap::new();
    for mono_us in [0, 5_000_000] {
        for worker in &mut sinks.lanes.workers {
            let name = worker.name().sink().unwrap().to_owned();
            loop {
                match worker.step(at(mono_us)) {
                    LaneStep::Worked => {}
                    LaneStep::Finished { drained } => {
                        ends.insert(name, (mono_us, drained));
                        break;
                    }
                    _ => break,
                }
            }
        }
        sinks.lanes.workers.retain(|worker| !ends.contains_key(worker.name().sink().unwrap()));
    }
    assert_eq!(ends["b"], (0, true));
    assert_eq!(ends["c"], (0, false), "a paused sink has nothing to wait for");
    assert_eq!(ends["a"], (5_000_000, false));
    assert_eq!(sinks.target("b").records, keys(0..10));
}
