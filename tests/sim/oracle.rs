//! What must hold, judged from what went over the simulated wires and disks alone: nothing here asks the server.
//!
//! The first violation ends a run.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::net::SocketAddr;
use std::sync::Arc;

use duragram::journal::Block;
use duragram::journal::testing::simulated::{Change, Family};
use duragram::limits;
use duragram::model::{Content, Entry, EntryKind, Record};
use duragram::proto::codec::{self, Ack, Datagram, Welcome};

use crate::plan::Plan;
use crate::rng::mix;
use crate::sealed::{self, Mode};

/// Hashes alike in every run.
pub(crate) type Map<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;
/// Client and epoch.
pub(crate) type Sid = (u64, u32);
/// Offset and index.
type RecordKey = (u64, u16);

/// Client ids from here on belong to nobody who keeps to the protocol.
pub(crate) const RUDE: u64 = 1 << 32;

/// One durable entry.
struct Journaled {
    session: Sid,
    /// First and last seq; the same but for gaps.
    seqs: (u64, u64),
    hash: u64,
    records: Vec<RecordState>,
}

#[derive(Clone, Copy, Default)]
struct RecordState {
    /// Made durable by its sink.
    kept: bool,
    /// A durable dead letter.
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
    /// Written and not synced when the process died, and when: there as a whole, or not at all.
    unsure: Option<(u64, Vec<Change>)>,
    lanes: Vec<LaneView>,
    pub(crate) acks: u64,
}

/// What a start of the server finds.
pub(crate) struct Found {
    pub(crate) low: u64,
    pub(crate) end: u64,
    pub(crate) blocks: Vec<Arc<Block>>,
    /// Keys and values of sessions, of sealed clients, of the counter's limit.
    pub(crate) records: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) dead: Vec<Vec<u8>>,
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

    // ---- the wires ----

    /// A client, or whoever, has sent this.
    pub(crate) fn sent(&mut self, datagram: &[u8]) {
        let Some((datagram, _)) = sealed::read(datagram) else { return };
        if let Ok(Datagram::Data(data)) = codec::decode(&datagram) {
            let sid = (data.client.0, data.epoch.value());
            let hash = content(data.channel, data.batch, data.payload);
            let hashes = self.sent.entry((sid, data.seq.0)).or_default();
            if !hashes.contains(&hash) {
                hashes.push(hash);
            }
            if hashes.len() > 1 && sid.0 < RUDE {
                self.fail(|| format!("client {sid:?} has sent two messages as seq {}", data.seq));
            }
        }
    }

    /// The server's socket has got this.
    pub(crate) fn delivered(&mut self, from: SocketAddr, datagram: &[u8]) {
        let len = datagram.len() as u64;
        let Some((datagram, counter)) = sealed::read(datagram) else { return };
        match (counter, codec::decode(&datagram)) {
            (None, _) => self.bytes.entry(from).or_default().0 += len,
            (Some(_), Ok(said)) => self.sessions.entry(sealed_for(&said)).or_default().sealed_bytes.0 += len,
            (Some(_), Err(_)) => {}
        }
        match codec::decode(&datagram) {
            Ok(Datagram::Data(data)) => {
                let base = data.base().0;
                let session = self.sessions.entry((data.client.0, data.epoch.value())).or_default();
                session.base = session.base.max(base);
                if data.skip {
                    session.skip_base = session.skip_base.max(base);
                }
            }
            Ok(Datagram::Hello(hello)) if counter.is_some() => {
                let given = self.given.entry(hello.client.0).or_default();
                let last = given.last();
                given.heard.entry(hello.nonce).or_insert(last);
            }
            _ => {}
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

    /// The server has sent this.
    pub(crate) fn replied(&mut self, to: SocketAddr, datagram: &[u8]) {
        let len = datagram.len() as u64;
        let Some((datagram, counter)) = sealed::read(datagram) else {
            return self.fail(|| format!("the server has sent to {to} what no key opens"));
        };
        if let Some(counter) = counter {
            let before = std::mem::replace(&mut self.counter, counter);
            if counter <= before {
                self.fail(|| format!("the server seals with number {counter}, and had come to {before}"));
            }
        }
        let said = codec::decode(&datagram);
        let (received, sent) = match (counter, &said) {
            // The acks of a sealed session go to its client, wherever they are asked for from.
            (Some(_), Ok(said)) => &mut self.sessions.entry(sealed_for(said)).or_default().sealed_bytes,
            _ => self.bytes.entry(to).or_default(),
        };
        *sent += len;
        let (received, sent) = (*received, *sent);
        if sent > received {
            self.fail(|| format!("{sent} bytes were sent to {to} for {received} that came"));
        }
        match said {
            Ok(Datagram::Ack(ack)) => self.acked(&ack),
            Ok(Datagram::Welcome(welcome)) if counter.is_some() => self.welcomed_sealed(&welcome),
            Ok(Datagram::Welcome(welcome)) => {
                let sid = (welcome.client.0, welcome.epoch.value());
                if self.failed {
                    self.fail(|| format!("WELCOME {sid:?} after a failed commit"));
                }
                // A later epoch of the client may have taken its place by now: this one is not given again either way.
                let keys = session_key(sid)..=session_key((sid.0, u32::MAX));
                if self.values[Family::Meta as usize].range(keys).next().is_none() {
                    self.fail(|| format!("WELCOME {sid:?}: neither the epoch nor a later one is on disk"));
                }
                let session = self.sessions.entry(sid).or_default();
                let other = session.nonce.is_some_and(|nonce| nonce != welcome.nonce);
                session.nonce = Some(welcome.nonce);
                if other && !self.clock_wild {
                    self.fail(|| format!("epoch {sid:?} is given out a second time"));
                }
            }
            Ok(Datagram::Reject(_)) => {}
            other => self.fail(|| format!("the server has sent {other:?}")),
        }
    }

    fn welcomed_sealed(&mut self, welcome: &Welcome) {
        let (client, epoch) = (welcome.client.0, welcome.epoch.value());
        if self.failed {
            self.fail(|| format!("WELCOME {client} {epoch} after a failed commit"));
        }
        // In no session yet, so the epochs on disk are those that the journal holds for the client.
        let stored = self.values[Family::Meta as usize].get(&client_key(client));
        let highest = stored.and_then(|value| value.last_chunk()).map_or(0, |given| u32::from_le_bytes(*given));
        if highest < epoch {
            self.fail(|| format!("WELCOME {client} {epoch}: on disk it was given {highest}"));
        }
        let given = self.given.entry(client).or_default();
        let heard = given.heard.get(&welcome.nonce).copied();
        match (given.nonces.insert(epoch, welcome.nonce), heard) {
            (Some(nonce), _) if nonce != welcome.nonce => {
                self.fail(|| format!("epoch {epoch} of {client} is given out a second time"));
            }
            (_, None) => self.fail(|| format!("WELCOME {client} {epoch}: it did not ask")),
            (Some(_), _) => {}
            // Answers may overtake each other, so what was given since it asked can be higher.
            (None, Some(last)) if epoch > last => {}
            (None, Some(last)) => self.fail(|| format!("client {client} is given epoch {epoch} after {last}")),
        }
    }

    fn acked(&mut self, ack: &Ack<'_>) {
        self.acks += 1;
        let sid = (ack.client.0, ack.epoch.value());
        let floor = ack.floor.0;
        if self.failed {
            return self.fail(|| format!("an ack to {sid:?} after a failed commit"));
        }
        if ack.credit == 0 || ack.credit > self.window {
            self.fail(|| format!("an ack to {sid:?} gives credit {}", ack.credit));
        }
        let mut missing = None;
        self.known(sid);
        let session = self.sessions.entry(sid).or_default();
        let back = (floor < session.floor).then_some(session.floor);
        session.floor = session.floor.max(floor);
        // What the client itself gave up; of someone who does as he likes, also what he claims.
        let allowed = if sid.0 < RUDE { session.skip_base } else { session.base };
        session.verified = session.verified.max(allowed.saturating_sub(1).min(floor));
        while session.verified < floor {
            let seq = session.verified + 1;
            let gap = session.gaps.iter().any(|&(from, to)| from <= seq && seq <= to);
            if !gap && !self.offset_of.contains_key(&(sid, seq)) {
                missing = Some(seq);
                break;
            }
            session.verified = seq;
        }
        let end = floor.saturating_add(8 * ack.bitmap.len() as u64);
        let concealed = (ack.complete && session.told > end).then_some(session.told);
        session.told = session.told.max(floor);
        for (at, byte) in (0u64..).zip(ack.bitmap) {
            for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                let seq = floor + 1 + at * 8 + bit;
                session.told = session.told.max(seq);
                if !self.offset_of.contains_key(&(sid, seq)) {
                    missing = Some(seq);
                }
            }
        }
        if let Some(seq) = missing {
            self.fail(|| format!("seq {seq} of {sid:?} is acked and not durable"));
        }
        if let Some(seq) = concealed {
            self.fail(|| format!("an ack of {sid:?} is complete up to {end}, and an earlier one told of {seq}"));
        }
        if let Some(before) = back {
            self.fail(|| format!("the floor of {sid:?} goes back from {before} to {floor}"));
        }
    }

    /// A client counts this message as delivered.
    pub(crate) fn believed(&mut self, sid: Sid, seq: u64, channel: u16, batch: bool, payload: &[u8]) {
        let hash = content(channel, batch, payload);
        match self.offset_of.get(&(sid, seq)).map(|&offset| &self.entries[index(offset)]) {
            Some(entry) if entry.hash == hash => {}
            Some(_) => {
                self.fail(|| format!("{sid:?} believes seq {seq} delivered; another message is journaled as it"))
            }
            None => self.fail(|| format!("{sid:?} believes seq {seq} delivered; it is not durable")),
        }
    }

    // ---- the disk ----

    /// A batch is durable.
    pub(crate) fn synced(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put { family, key, value, .. } => {
                    match family {
                        Family::Journal => self.block(key, value),
                        Family::Dead => self.dead_letter(key),
                        Family::Meta => {}
                    }
                    self.values[*family as usize].insert(key.clone(), value.clone());
                }
                Change::Delete { family, key } => drop(self.values[*family as usize].remove(key)),
                Change::DeleteRange { family, from, to } => {
                    if *family == Family::Journal {
                        self.trimmed(be(to));
                    }
                    let values = &mut self.values[*family as usize];
                    let keys: Vec<_> = values.range(from.clone()..to.clone()).map(|(key, _)| key.clone()).collect();
                    keys.iter().for_each(|key| drop(values.remove(key)));
                }
            }
        }
    }

    /// A batch was written, and whether it is there will be seen at the next start.
    pub(crate) fn unsure(&mut self, changes: &[Change]) {
        self.unsure = Some((self.now_us, changes.to_vec()));
    }

    fn block(&mut self, key: &[u8], value: &[u8]) {
        let block = match Block::parse(value.to_vec()) {
            Ok(block) => block,
            Err(error) => return self.fail(|| format!("a block that cannot be read is written: {error}")),
        };
        let end = self.entries.len() as u64;
        if block.first().0 != end || be(key) != end {
            self.fail(|| format!("{block:?} is written where the journal ends at {end}"));
        }
        if block.size() > self.block_bytes_max {
            self.fail(|| format!("{block:?} has {} bytes", block.size()));
        }
        for entry in block.entries() {
            self.entry(&entry);
        }
    }

    fn entry(&mut self, entry: &Entry<'_>) {
        let sid = (entry.meta.session.client.0, entry.meta.session.epoch.value());
        let offset = self.entries.len() as u64;
        let hash = content(entry.meta.channel, entry.meta.batch, entry.payload);
        let to = entry.meta.seq.0;
        // What was opened sealed is never opened again, however long it was idle.
        let sealed = sid.0 < RUDE && self.mode.is_some_and(|mode| mode.seals(sid.0));
        let forgettable = self.known(sid).forgettable.filter(|_| !sealed);
        if entry.meta.sealed != sealed {
            self.fail(|| format!("entry {offset} of {sid:?} came sealed: {}", entry.meta.sealed));
        }
        if sealed {
            let given = self.given.entry(sid.0).or_default();
            given.opened = given.opened.max(sid.1);
        }
        let (from, records) = match entry.kind {
            EntryKind::Data => {
                if !self.sent.get(&(sid, to)).is_some_and(|hashes| hashes.contains(&hash)) {
                    self.fail(|| format!("entry {offset}, seq {to} of {sid:?}, is nothing that was sent"));
                }
                let before = self.offset_of.insert((sid, to), offset);
                if let Some(before) = before.filter(|&before| forgettable.is_none_or(|end| end <= before)) {
                    self.fail(|| format!("seq {to} of {sid:?} is entry {before} and entry {offset}"));
                }
                (to, entry.records().count())
            }
            EntryKind::Gap { from, .. } => {
                if forgettable.is_none() {
                    self.fail(|| format!("entry {offset} says that seqs {from} to {to} of {sid:?} were lost"));
                }
                self.sessions.entry(sid).or_default().gaps.push((from.0, to));
                (from.0, 1)
            }
        };
        let records = vec![RecordState::default(); records];
        self.entries.push(Journaled { session: sid, seqs: (from, to), hash, records });
    }

    fn dead_letter(&mut self, key: &[u8]) {
        let (offset, nth) = (be(&key[..8]), usize::from(u16::from_be_bytes([key[8], key[9]])));
        match self.entries.get_mut(index(offset)).and_then(|entry| entry.records.get_mut(nth)) {
            Some(record) => record.dead = true,
            None => self.fail(|| format!("a dead letter of record {nth} of entry {offset}, which is not durable")),
        }
    }

    fn trimmed(&mut self, to: u64) {
        for offset in self.low..to.min(self.entries.len() as u64) {
            if !self.entries[index(offset)].records.iter().all(|record| record.finished()) {
                self.fail(|| format!("entry {offset} is trimmed and not processed"));
            }
        }
        self.low = self.low.max(to);
    }

    /// The server has started, or refuses to.
    pub(crate) fn started(&mut self, found: &Found, lanes: usize) {
        self.failed = false;
        self.lanes = (0..lanes).map(|_| LaneView::default()).collect();
        self.given.values_mut().for_each(|given| given.heard.clear());
        let unsure = self.unsure.take();
        let Err(without) = self.compare(found) else { return };
        let Some((written_us, unsure)) = unsure else { return self.fail(|| format!("after a start {without}")) };
        let now_us = std::mem::replace(&mut self.now_us, written_us);
        self.synced(&unsure);
        self.now_us = now_us;
        if let Err(with) = self.compare(found) {
            self.fail(|| format!("after a start {without}; and if the last write counts, {with}"));
        }
    }

    fn compare(&self, found: &Found) -> Result<(), String> {
        let [blocks, meta, dead] = &self.values;
        let end = self.entries.len() as u64;
        let low = blocks.keys().next().map_or(end, |key| be(key));
        if (found.low, found.end) != (low, end) {
            return Err(format!("entries {}..{} are there, not {low}..{end}", found.low, found.end));
        }
        if !blocks.values().map(Vec::as_slice).eq(found.blocks.iter().map(|block| block.bytes())) {
            return Err("the blocks are not those that were written".into());
        }
        let kept = |key: &[u8]| matches!(key[0], b's' | b'e' | b'n');
        let records = meta.iter().filter(|(key, _)| kept(key)).map(|(key, value)| (key.clone(), value.clone()));
        if !records.eq(found.records.iter().cloned()) {
            return Err("the records are not those that were written".into());
        }
        if !dead.keys().eq(&found.dead) {
            return Err("the dead letters are not those that were written".into());
        }
        Ok(())
    }

    // ---- processing ----

    /// A lane begins at its watermark, with the state that its sink gave for that.
    pub(crate) fn lane_starts(&mut self, lane: usize, watermark: u64, lane_of: impl Fn(Sid) -> usize) {
        let end = self.entries.len() as u64;
        if watermark > end {
            self.fail(|| format!("lane {lane} begins at {watermark}, the journal ends at {end}"));
        }
        for offset in self.low..watermark.min(end) {
            let entry = &self.entries[index(offset)];
            if lane_of(entry.session) == lane && !entry.records.iter().all(|record| record.finished()) {
                self.fail(|| format!("lane {lane} begins at {watermark} and entry {offset} is not processed"));
            }
        }
    }

    /// A handler is called.
    pub(crate) fn presented(&mut self, lane: usize, records: &[Record<'_>], lane_of: impl Fn(Sid) -> usize) {
        let entries = &self.entries;
        let dead = |key: &RecordKey| entries[index(key.0)].records[usize::from(key.1)].dead;
        let highest = self.lanes[lane].highest;
        let unfinished = self.lanes[lane].open.iter().copied().find(|key| !dead(key));
        let goes_on = records.iter().any(|record| Some((record.offset.0, record.index)) > highest);
        if let (true, Some(open)) = (goes_on, unfinished) {
            self.fail(|| format!("lane {lane} goes on and record {open:?} is not finished"));
        }
        for record in records {
            let key = (record.offset.0, record.index);
            let sid = (record.session.client.0, record.session.epoch.value());
            let Some(entry) = self.entries.get(index(key.0)) else {
                return self.fail(|| format!("lane {lane} is shown record {key:?}, which is not durable"));
            };
            let same = match record.content {
                Content::Payload(payload) if entry.records.len() == 1 => {
                    let batched = || {
                        let len = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_le_bytes();
                        content(record.channel, true, &[&len, payload].concat())
                    };
                    entry.seqs.0 == record.seq.0
                        && (entry.hash == content(record.channel, false, payload) || entry.hash == batched())
                }
                Content::Payload(_) => entry.seqs.0 == record.seq.0,
                Content::Gap { from, to } => entry.seqs == (from.0, to.0),
            };
            let open = self.lanes[lane].open.contains(&key);
            if !same || entry.session != sid || entry.records.len() <= usize::from(key.1) {
                return self.fail(|| format!("record {key:?} is shown otherwise than it is journaled"));
            }
            if lane_of(sid) != lane {
                self.fail(|| format!("record {key:?} is shown to lane {lane}"));
            }
            let view = &mut self.lanes[lane];
            if Some(key) <= view.highest && !open {
                return self.fail(|| format!("record {key:?} is shown to lane {lane} a second time, or too late"));
            }
            view.highest = view.highest.max(Some(key));
            view.open.insert(key);
        }
    }

    /// A handler answers *done*, or that it gives up and the lane must make a dead letter.
    pub(crate) fn answered(&mut self, lane: usize, key: RecordKey, done: bool) {
        self.lanes[lane].open.remove(&key);
        if done {
            self.lanes[lane].unflushed.push(key);
        }
    }

    /// A handler has made all that it has done durable.
    pub(crate) fn flushed(&mut self, lane: usize) {
        for key in std::mem::take(&mut self.lanes[lane].unflushed) {
            self.entries[index(key.0)].records[usize::from(key.1)].kept = true;
        }
    }

    /// Nothing more is under way.
    pub(crate) fn at_the_end(&mut self) {
        let left = self.entries.iter().position(|entry| !entry.records.iter().all(|record| record.finished()));
        if let Some(offset) = left {
            self.fail(|| format!("entry {offset} was never processed"));
        }
    }
}

fn session_key((client, epoch): Sid) -> Vec<u8> {
    [&b"s"[..], &client.to_be_bytes(), &epoch.to_be_bytes()].concat()
}

fn client_key(client: u64) -> Vec<u8> {
    [&b"e"[..], &client.to_be_bytes()].concat()
}

/// For which session something sealed is reckoned: HELLOs and what answers them, for none.
fn sealed_for(said: &Datagram<'_>) -> Sid {
    match said {
        Datagram::Data(data) => (data.client.0, data.epoch.value()),
        Datagram::Ping(ping) => (ping.client.0, ping.epoch.value()),
        Datagram::Ack(ack) => (ack.client.0, ack.epoch.value()),
        Datagram::Reject(reject) => (reject.client.0, reject.epoch),
        Datagram::Hello(hello) => (hello.client.0, 0),
        Datagram::Welcome(welcome) => (welcome.client.0, 0),
    }
}

/// The place of an entry in memory.
fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a run has few entries")
}

fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}
