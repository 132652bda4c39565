//! What must hold, judged from what went over the simulated wires and disks alone: nothing here asks the server.
//!
//! The first violation ends a run.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::net::SocketAddr;
use std::sync::Arc;

use duragram::journal::Block;
use duragram::journal::testing::simulated::Change;
use duragram::limits;
use duragram::model::SinkRecord;

use crate::plan::Plan;
use crate::rng::mix;
use crate::sealed::Mode;
pub(crate) use sinks::Truth;

pub(crate) mod asks;
mod disk;
mod processing;
mod sinks;
mod wires;

/// Hashes alike in every run.
pub(crate) type Map<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;
/// A client and an epoch name a session.
pub(crate) type Sid = (u64, u32);
/// An offset and an index name a record.
type RecordKey = (u64, u16);

/// Client ids from here on belong to nobody who keeps to the protocol.
pub(crate) const RUDE: u64 = 1 << 32;

/// The journal holds this entry durably.
struct Journaled {
    session: Sid,
    channel: u16,
    /// First and last seq; the same but for gaps.
    seqs: (u64, u64),
    hash: u64,
    records: Vec<RecordState>,
}

#[derive(Clone, Copy, Default)]
struct RecordState {
    /// Made durable by its sink.
    kept: bool,
    /// It became a dead letter, durably.
    dead: bool,
}

impl RecordState {
    fn finished(self) -> bool {
        self.kept || self.dead
    }
}

#[derive(Default)]
struct Session {
    /// When it was last seen that the server knows it: by an ack, or a durable entry.
    known_us: u64,
    /// It was idle for so long that the server may have forgotten it, and the journal ended here then.
    forgettable: Option<u64>,
    /// The highest floor in an ack, since it may last have been forgotten.
    floor: u64,
    /// The highest seq that an ack told to be journaled, as long as the server must remember the session.
    told: u64,
    /// Every seq up to here is accounted for.
    verified: u64,
    /// The highest base that reached the server, with SKIP and at all.
    skip_base: u64,
    base: u64,
    /// Runs of seqs that the journal names as lost.
    gaps: Vec<(u64, u64)>,
    nonce: Option<u64>,
    /// Bytes that came well sealed, and that were answered.
    sealed_bytes: (u64, u64),
}

/// What a sealed client was given by WELCOME.
#[derive(Default)]
struct Given {
    /// The nonce for which it got each epoch.
    nonces: BTreeMap<u32, u64>,
    /// The highest in which anything is durable.
    opened: u32,
    /// Nonces that have come in this life of the process, with the highest epoch given or opened before.
    heard: BTreeMap<u64, u32>,
}

impl Given {
    fn last(&self) -> u32 {
        self.nonces.last_key_value().map_or(0, |(epoch, _)| *epoch).max(self.opened)
    }
}

/// What a lane was shown in this life of the process.
#[derive(Default)]
struct LaneView {
    highest: Option<RecordKey>,
    open: BTreeSet<RecordKey>,
    unflushed: Vec<RecordKey>,
}

#[derive(Default)]
pub(crate) struct Oracle {
    ttl_us: u64,
    pub(crate) now_us: u64,
    window: u16,
    clock_wild: bool,
    mode: Option<Mode>,
    /// Of all that the server has sealed, in all its lives.
    counter: u64,
    given: BTreeMap<u64, Given>,
    block_bytes_max: usize,
    pub(crate) violation: Option<String>,
    /// A commit has failed in this life of the process.
    pub(crate) failed: bool,
    sent: Map<(Sid, u64), Vec<u64>>,
    entries: Vec<Journaled>,
    low: u64,
    offset_of: Map<(Sid, u64), u64>,
    sessions: Map<Sid, Session>,
    bytes: Map<SocketAddr, (u64, u64)>,
    values: [BTreeMap<Vec<u8>, Vec<u8>>; 3],
    /// Written and not synced, and when, in their order: after a crash some of the first are there, each as a whole.
    unsure: VecDeque<(u64, Vec<Change>)>,
    lanes: Vec<LaneView>,
    /// Configured sinks have the place of the lanes.
    has_sinks: bool,
    pub(crate) truth: Truth,
    pub(crate) asks: asks::Asks,
    pub(crate) acks: u64,
}

/// What a start of the server finds.
pub(crate) struct Found {
    pub(crate) low: u64,
    pub(crate) end: u64,
    pub(crate) blocks: Vec<Arc<Block>>,
    /// Keys and values of sessions, of sealed clients, of asks and their answers, of the counter's limit.
    pub(crate) records: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) dead: Vec<Vec<u8>>,
    pub(crate) sinks: Vec<SinkRecord>,
}

fn content(channel: u16, batch: bool, payload: &[u8]) -> u64 {
    let crc = u64::from(crc32fast::hash(payload));
    mix(crc << 32 | u64::from(channel) << 1 | u64::from(batch)) ^ payload.len() as u64
}

impl Oracle {
    pub(crate) fn new(plan: &Plan) -> Self {
        let config = &plan.dialect;
        Self {
            clock_wild: plan.clock_wild,
            has_sinks: plan.sinks.is_some(),
            asks: asks::Asks::new(plan),
            mode: Some(plan.mode),
            ttl_us: match plan.mode {
                // A plain session may have to give way before.
                Mode::Mixed => config.session_ttl_s.min(limits::PLAIN_IDLE_S) * 1_000_000,
                _ => config.session_ttl_s * 1_000_000,
            },
            window: config.window,
            // A datagram over the limit, and a gap for every other seq of a window.
            block_bytes_max: plan.committer.commit_bytes_max + 1_600 + usize::from(config.window) * 48,
            ..Self::default()
        }
    }

    pub(crate) fn fail(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(what());
        }
    }

    /// The session, which the server shows now that it knows. It may have forgotten it before, if that was long ago.
    fn known(&mut self, sid: Sid) -> &mut Session {
        let session = self.sessions.entry(sid).or_default();
        let idle = session.known_us > 0 && self.now_us - session.known_us > self.ttl_us / 2;
        if sid.0 >= RUDE || idle {
            session.forgettable = Some(self.entries.len() as u64);
            (session.floor, session.told) = (0, 0);
        }
        session.known_us = self.now_us;
        session
    }
}

/// The place of an entry in memory.
fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a run has few entries")
}

fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}
