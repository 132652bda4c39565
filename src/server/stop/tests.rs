//! Tests of the end of the lanes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crossbeam_channel::{TryRecvError, bounded};
use duragram_proto::{ClientId, Epoch, Seq};
use prometheus_client::registry::Registry;

use super::*;
use crate::journal::testing::memory::MemoryDisk;
use crate::journal::{BlockBuilder, Journal as _};
use crate::metrics::Metrics;
use crate::model::{DialectId, EntryMeta, Record, SessionId};
use crate::process::{
    Handler, HandlerError, HandlerFactory, LaneConfig, LaneParts, Lanes, Outcomes, Progress, spawn_lanes,
};

/// Takes a millisecond for each call, and counts the records.
struct Slow(Arc<AtomicU64>);

impl Handler for Slow {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        thread::sleep(Duration::from_millis(1));
        self.0.fetch_add(records.len() as u64, Ordering::SeqCst);
        outcomes.done_all();
    }

    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        Ok(Vec::new())
    }
}

#[test]
fn a_second_request_to_stop_waits_until_the_lanes_have_left_the_database() {
    const ENTRIES: u64 = 100_000;
    let disk = MemoryDisk::default();
    let mut opened = disk.open(&mut |_| ());
    let mut block = BlockBuilder::default();
    let session = SessionId { client: ClientId(1), epoch: Epoch::new(1).unwrap() };
    for seq in 1..=ENTRIES {
        let meta = EntryMeta {
            dialect: DialectId::DURAGRAM,
            session,
            seq: Seq(seq),
            span: 0,
            skip: false,
            batch: false,
            asks: false,
            sealed: false,
            channel: 0,
            received_unix_us: 1,
        };
        block.push(&meta, b"x");
    }
    let durable = opened.journal.commit(&mut block, &[]).unwrap();
    let metrics = Metrics::register(&mut Registry::default());
    let progress = Progress::resume(opened.end, &opened.lanes, opened.former, 2, &metrics);
    let config = LaneConfig { batch_records_max: 1, ..LaneConfig::default() };
    let parts = LaneParts { progress, journal: Arc::new(disk), dead: opened.dead, metrics, config, seed: 1 };
    let processed = Arc::new(AtomicU64::new(0));
    let processed_ = Arc::clone(&processed);
    let mut factory: HandlerFactory = Box::new(move |_| Ok(Box::new(Slow(Arc::clone(&processed_)))));
    let Lanes { workers, mut fanout, control, .. } = Lanes::build(&parts, &mut factory).unwrap();
    let clock = SystemClock::start();
    let ends = spawn_lanes(workers, clock).unwrap();
    fanout.publish(durable.block().unwrap());

    let (stop, stops) = bounded(1);
    stop.send(()).unwrap();
    drain(&control, &ends, &stops, clock, Duration::from_secs(3600), || Ok(())).unwrap();
    assert_eq!(ends.try_recv().unwrap_err(), TryRecvError::Disconnected, "a lane is still at work");
    assert!(processed.load(Ordering::SeqCst) < ENTRIES, "all was processed: the request came too late");
}
