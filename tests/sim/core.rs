//! What the parts of a simulated server share with the simulation around it: the clock, the disk's fate, the wire out, the
//! oracle, the trace. All of it in one thread; the locks are there because the server's parts may be sent to others.

use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use duragram::journal::testing::simulated::{Change, Family, Fate, Write};
use duragram::model::{Clock, Lane, Now, Record, SessionId};
use duragram::net::{Outbox, Transmit};
use duragram::process::{Handler, HandlerError, LaneStart, Outcomes};
use duragram::proto::{ClientId, Epoch};

use crate::asks;
use crate::oracle::{Oracle, Sid};
use crate::plan::{DiskFaults, HandlerFaults};
use crate::rng::{Rng, mix};
pub(crate) use crate::sabotage::Sabotage;
use crate::sabotage::Stalled;

pub(crate) struct Core {
    /// Microseconds since the simulation's start.
    pub(crate) now_us: u64,
    /// What the server's clock of day is off by.
    pub(crate) skew_us: i64,
    pub(crate) rng: Rng,
    pub(crate) oracle: Oracle,
    pub(crate) disk: DiskFaults,
    pub(crate) handlers: HandlerFaults,
    /// Nothing goes wrong any more with what processes records.
    pub(crate) calm: bool,
    pub(crate) sync_us: u64,
    pub(crate) slow_sync_us: u64,
    /// The fate of the next batch, if it is decided already.
    pub(crate) forced: Option<Fate>,
    /// A write has failed in this life of the process: the next commit, or stop, says so.
    pub(crate) write_failed: bool,
    /// The disk fails for good.
    pub(crate) broken: bool,
    /// The process is dead, or has to end.
    pub(crate) dead: bool,
    /// Replies after which the process dies, if it is to die while it sends.
    pub(crate) dies_after_replies: Option<u64>,
    /// How long an answer may be that a handler gives; `None` where nobody asks.
    pub(crate) answer_bytes_max: Option<usize>,
    /// Answers that handlers have given.
    pub(crate) bodies: u64,
    /// ANSWERs that a defect holds back.
    pub(crate) stalled: Vec<Stalled>,
    /// Replies on their way: when they were sent, where to, what.
    pub(crate) replies: Vec<(SocketAddr, Vec<u8>)>,
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) trace: Trace,
    pub(crate) counts: Counts,
}

/// How often what happened, so that a run that tests nothing is seen.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) datagrams: u64,
    pub(crate) writes: u64,
    pub(crate) starts: u64,
    pub(crate) refused_starts: u64,
    pub(crate) kills: u64,
    pub(crate) power_cuts: u64,
    pub(crate) storage_failures: u64,
    pub(crate) damages: u64,
    pub(crate) panics: u64,
    pub(crate) acked: u64,
    pub(crate) expired: u64,
    pub(crate) epochs: u64,
}

/// A hash of everything that happened, and, if asked for, a line for each.
#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) hash: u64,
    pub(crate) print: bool,
}

impl Trace {
    pub(crate) fn note(&mut self, now_us: u64, what: &'static str, numbers: [u64; 2], bytes: &[u8]) {
        // Of a datagram and its CRC-32 the CRC-32 is always the same.
        let sum = u64::from(crc32fast::hash(&bytes[..bytes.len().saturating_sub(1)]));
        for number in [now_us, numbers[0], numbers[1], sum << 32 | bytes.len() as u64] {
            self.hash = mix(self.hash ^ number);
        }
        if self.print {
            println!(
                "{:>14.6} {what} {} {} ({} bytes, {sum:08x})",
                now_us as f64 / 1e6,
                numbers[0],
                numbers[1],
                bytes.len()
            );
        }
    }

    pub(crate) fn say(&self, now_us: u64, what: impl FnOnce() -> String) {
        if self.print {
            println!("{:>14.6} {}", now_us as f64 / 1e6, what());
        }
    }
}

#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Core>>);

/// The server's clock starts at this Unix time.
const UNIX_US_AT_ZERO: u64 = 1_800_000_000_000_000;

impl Shared {
    pub(crate) fn new(core: Core) -> Self {
        Self(Arc::new(Mutex::new(core)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides about a write to the disk, which takes its time.
    pub(crate) fn decide(&self, write: Write<'_>) -> Fate {
        self.lock().decide(write)
    }
}

impl Core {
    pub(crate) fn unix_us(&self) -> u64 {
        (UNIX_US_AT_ZERO + self.now_us).saturating_add_signed(self.skew_us)
    }

    pub(crate) fn true_unix_us(&self) -> u64 {
        UNIX_US_AT_ZERO + self.now_us
    }

    fn decide(&mut self, write: Write<'_>) -> Fate {
        self.counts.writes += 1;
        let slow = self.rng.ppm(self.disk.slow);
        self.now_us += match write {
            Write::Ahead(_) => 1 + self.rng.below(self.sync_us / 2),
            _ if slow => self.rng.below(self.slow_sync_us),
            _ => self.sync_us / 2 + self.rng.below(self.sync_us),
        };
        self.oracle.now_us = self.now_us;
        let fate = self.forced.take().unwrap_or_else(|| self.draw(write));
        let changes = if let Write::Batch(changes) | Write::Ahead(changes) = write { changes } else { &[] };
        let number = |fate| match fate {
            Fate::Synced => 0,
            Fate::SyncedThenKilled => 1,
            Fate::SyncFails => 2,
            Fate::WriteFails(part) => 3 + u64::from(part) * 8,
            Fate::Killed => 4,
            Fate::PowerFails(seed) => seed,
            Fate::Lies => 6,
        };
        self.trace.note(self.now_us, "write", [number(fate), changes.len() as u64], &[]);
        self.trace.say(self.now_us, || format!("{fate:?} {}", describe(write)));
        for change in changes {
            if let Change::Put { family, stored, .. } = change {
                self.trace.note(self.now_us, "put", [*family as u64, 0], stored);
            }
            if let Change::Delete { family: Family::Meta, .. } = change {
                self.counts.expired += 1;
            }
        }
        let succeeds = matches!(fate, Fate::Synced | Fate::Lies | Fate::SyncedThenKilled);
        match write {
            Write::Batch(_) | Write::Sync if succeeds => {
                self.oracle.synced_what_was_written();
                self.oracle.synced(changes);
            }
            // What is missing from a write that failed may happen to stand there already.
            Write::Batch(_) | Write::Ahead(_) if !changes.is_empty() => self.oracle.unsure(changes),
            _ => {}
        }
        match fate {
            Fate::Killed | Fate::SyncedThenKilled => self.counts.kills += 1,
            Fate::PowerFails(_) => self.counts.power_cuts += 1,
            Fate::SyncFails | Fate::WriteFails(_) => {
                self.counts.storage_failures += 1;
                self.write_failed = true;
                self.broken |= self.disk.stays_broken;
            }
            Fate::Synced | Fate::Lies => {}
        }
        self.dead |= matches!(fate, Fate::Killed | Fate::SyncedThenKilled | Fate::PowerFails(_));
        fate
    }

    fn draw(&mut self, write: Write<'_>) -> Fate {
        let faults = self.disk;
        let rng = &mut self.rng;
        if self.broken && rng.one_in(2) {
            return Fate::SyncFails;
        }
        if matches!(write, Write::Witness(_) | Write::Settle) {
            return match rng.below(3) {
                0 if rng.ppm(faults.recovery_dies) => Fate::Killed,
                1 if rng.ppm(faults.recovery_dies) => Fate::PowerFails(rng.next()),
                _ => Fate::Synced,
            };
        }
        if rng.ppm(faults.killed) {
            Fate::Killed
        } else if rng.ppm(faults.killed_synced) {
            Fate::SyncedThenKilled
        } else if rng.ppm(faults.power_fails) {
            Fate::PowerFails(rng.next())
        } else if rng.ppm(faults.sync_fails) && !matches!(write, Write::Ahead(_)) {
            Fate::SyncFails
        } else if rng.ppm(faults.write_fails) && !matches!(write, Write::Sync) {
            Fate::WriteFails(u8::try_from(rng.below(256)).expect("a byte"))
        } else if self.sabotage == Some(Sabotage::LyingSync) {
            Fate::Lies
        } else {
            Fate::Synced
        }
    }
}

fn describe(write: Write<'_>) -> String {
    match write {
        Write::Batch(changes) | Write::Ahead(changes) => {
            let change = |change: &Change| match change {
                Change::Put { family, key, value, .. } => format!("put {family:?} {key:02x?} ({} bytes)", value.len()),
                Change::Delete { family, key } => format!("delete {family:?} {key:02x?}"),
                Change::DeleteRange { family, from, to } => format!("delete {family:?} {from:02x?}..{to:02x?}"),
            };
            let when = if matches!(write, Write::Ahead(_)) { "ahead: " } else { "" };
            format!("{when}{}", changes.iter().map(change).collect::<Vec<_>>().join(", "))
        }
        other => format!("{other:?}"),
    }
}

/// The clock of one process: its monotonic part starts with it.
#[derive(Clone)]
pub(crate) struct ProcessClock {
    pub(crate) core: Shared,
    pub(crate) started_us: u64,
}

impl ProcessClock {
    /// The clock goes on to that time, and nothing happens before it.
    pub(crate) fn pass_until(&self, mono_us: u64) {
        let mut core = self.core.lock();
        core.now_us = core.now_us.max(self.started_us + mono_us);
        core.oracle.now_us = core.now_us;
    }
}

impl Clock for ProcessClock {
    fn now(&self) -> Now {
        let core = self.core.lock();
        Now { mono_us: core.now_us - self.started_us, unix_us: core.unix_us() }
    }
}

/// The server's end of the network.
pub(crate) struct Wire(pub(crate) Shared);

impl Transmit for Wire {
    fn transmit(&mut self, outbox: &Outbox) {
        let mut core = self.0.lock();
        for (peer, datagram) in outbox.iter() {
            if core.dead {
                return;
            }
            core.reply(peer.addr, datagram);
            if let Some(left) = &mut core.dies_after_replies {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    core.dead = true;
                }
            }
        }
    }
}

impl Core {
    fn reply(&mut self, mut to: SocketAddr, datagram: &[u8]) {
        let mut datagram = datagram.to_vec();
        if let Some(sabotage) = self.sabotage {
            self.sabotage_ack(sabotage, to, &mut datagram);
            if self.sabotage_answer(sabotage, &mut to, &mut datagram).is_none() {
                return;
            }
        }
        while let Some(at) = self.stalled.iter().position(|(at_us, ..)| *at_us <= self.now_us) {
            let (_, to, datagram) = self.stalled.swap_remove(at);
            self.oracle.replied(to, &datagram);
        }
        self.trace.note(self.now_us, "reply", [u64::from(to.port()), 0], &datagram);
        self.oracle.replied(to, &datagram);
        self.replies.push((to, datagram));
    }
}

impl Core {
    /// A handler has done a record; who asks gets an answer that is another one each time.
    pub(crate) fn done(&mut self, i: usize, record: &Record<'_>, outcomes: &mut Outcomes) {
        let (Some(bytes_max), Some(_)) = (self.answer_bytes_max, outcomes.awaits(i)) else { return outcomes.done(i) };
        self.bodies += 1;
        let body = asks::body(self.bodies, bytes_max);
        if self.sabotage == Some(Sabotage::AnswerEarly) {
            self.tell_early(record, &body);
        }
        outcomes.done_with_what_fits(i, &body);
        let fits = body.len() <= bytes_max;
        self.oracle.gives((record.offset.0, record.index), if fits { body } else { Vec::new() });
    }
}

/// The lane of a session.
pub(crate) fn lane_of(lanes: u16) -> impl Fn(Sid) -> usize {
    move |(client, epoch)| {
        let epoch = Epoch::new(epoch).expect("never 0");
        usize::from(Lane::of(SessionId { client: ClientId(client), epoch }, lanes).0)
    }
}

/// A handler whose sink keeps what was flushed.
pub(crate) struct Sink {
    core: Shared,
    lane: usize,
    lanes: u16,
}

impl Sink {
    pub(crate) fn open(core: &Shared, start: &LaneStart<'_>) -> Self {
        let (lane, lanes) = (usize::from(start.lane.0), start.lanes());
        core.lock().oracle.lane_starts(lane, start.mark().watermark.0, lane_of(lanes));
        Self { core: core.clone(), lane, lanes }
    }
}

impl Handler for Sink {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        let core = &mut *self.core.lock();
        core.oracle.presented(self.lane, records, lane_of(self.lanes));
        let faults = core.handlers;
        if core.rng.ppm(faults.unavailable) {
            return outcomes.unavailable("away");
        }
        if core.oracle.violation.is_some() {
            return outcomes.done_all();
        }
        for (i, record) in records.iter().enumerate() {
            let key = (record.offset.0, record.index);
            core.trace.note(core.now_us, "record", [key.0, u64::from(key.1)], &[]);
            if core.rng.ppm(faults.retry) {
                outcomes.retry(i, "later");
            } else if core.rng.ppm(faults.give_up) {
                outcomes.give_up(i, "never");
                core.oracle.answered(self.lane, key, false);
            } else if core.rng.ppm(faults.silent) {
                return;
            } else if core.rng.ppm(faults.panics) {
                core.counts.panics += 1;
                resume_unwind(Box::new("as planned"));
            } else {
                core.done(i, record, outcomes);
                if !(core.sabotage == Some(Sabotage::LaneSkips) && core.rng.one_in(16)) {
                    core.oracle.answered(self.lane, key, true);
                }
            }
        }
    }

    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        let core = &mut *self.core.lock();
        if core.rng.ppm(core.handlers.flush_fails) {
            return Err(HandlerError::new("the sink is away"));
        }
        if core.sabotage != Some(Sabotage::SinkForgets) {
            core.oracle.flushed(self.lane);
        }
        if core.rng.ppm(core.handlers.panics) {
            core.counts.panics += 1;
            resume_unwind(Box::new("as planned"));
        }
        Ok(Vec::new())
    }

    fn settle(&mut self) -> Result<bool, HandlerError> {
        self.flush().map(|_| true)
    }
}
