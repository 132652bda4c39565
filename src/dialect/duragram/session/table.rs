//! All sessions: found by (client, epoch), bounded in number, forgotten when idle for long.
//!
//! Sessions stand in chunks of a fixed size, so that a table that grows copies none of them and has no more than a chunk
//! to spare; what a session takes in all is bounded by [`limits::SESSION_BYTES`].

mod chunks;

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};

use duragram_proto::{ClientId, Epoch, Seq};
use hashbrown::HashTable;

use crate::dialect::duragram::session::rules::{Neighbours, Place};
use crate::dialect::duragram::session::{Judgement, Session};
use crate::limits;
use crate::model::{Entry, EntryKind, SessionId, SessionRecord};
use chunks::Chunks;

/// The sessions, stored densely; the hash tables hold indexes only.
#[derive(Debug)]
pub struct SessionTable {
    sessions: Chunks,
    free: Vec<u32>,
    by_id: HashTable<u32>,
    /// For each client, the index of its session with the highest epoch, of its sealed ones if it has any.
    newest: HashTable<u32>,
    /// The session of a client that a HELLO has opened and in which nothing has come, of as many clients as there is room for.
    unused: HashTable<u32>,
    /// SipHash with keys of this process: ids are chosen by whoever sends, and the time of an ack tells how long a search took.
    /// A faster hash that is keyed too, such as foldhash, does not claim to withstand who can ask and measure.
    hasher: RandomState,
    sessions_max: usize,
    /// Plain ones among them, and how many there may be.
    plain: usize,
    plain_max: usize,
    /// The last session looked up: a client's datagrams come in runs.
    last: u32,
    touched: VecDeque<u32>,
    sweep: usize,
    /// Where the search for a plain session to evict goes on.
    plain_sweep: usize,
}

/// The table holds its maximum of sessions. Nothing changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableFull;

impl SessionTable {
    /// An empty table for at most `sessions_max` sessions.
    pub fn new(sessions_max: usize) -> Self {
        Self {
            sessions: Chunks::default(),
            free: Vec::new(),
            by_id: HashTable::new(),
            newest: HashTable::new(),
            unused: HashTable::new(),
            hasher: RandomState::new(),
            sessions_max,
            plain: 0,
            plain_max: sessions_max,
            last: u32::MAX,
            touched: VecDeque::new(),
            sweep: 0,
            plain_sweep: 0,
        }
    }

    /// From now on plain sessions get no more than half of the table: what is sealed finds the other half, and plain traffic,
    /// which anybody can forge, cannot take it away.
    pub fn keep_half_for_sealed(&mut self) {
        self.plain_max = self.sessions_max / 2;
    }

    /// Counts the sessions, idle ones included.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether no session is in the table.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Returns the session's record as a checkpoint would write it; `None` without such a session.
    #[cfg(test)]
    pub fn record_of(&self, id: SessionId) -> Option<SessionRecord> {
        self.sessions.iter().find(|session| session.id == id).map(Session::record)
    }

    /// Whether there is no room for another plain session.
    pub fn is_full(&self) -> bool {
        self.len() >= self.sessions_max || self.plain >= self.plain_max
    }

    /// The index of a session, good until the next `expire`.
    pub fn find(&mut self, id: SessionId) -> Option<u32> {
        if let Some(session) = self.sessions.at(self.last)
            && session.id == id
        {
            return Some(self.last);
        }
        let hash = self.hasher.hash_one(id);
        let sessions = &self.sessions;
        let index = *self.by_id.find(hash, |&i| sessions.at(i).is_some_and(|s| s.id == id))?;
        self.last = index;
        Some(index)
    }

    /// The session at an index given by `find` or `open`.
    pub fn at(&mut self, index: u32) -> &mut Session {
        self.sessions.at_mut(index).expect("indexes are used before sessions expire")
    }

    /// Notes that a session has changed at `service_s` seconds of service and belongs in the next checkpoint.
    pub fn touch(&mut self, index: u32, service_s: u64) {
        let session = self.sessions.at_mut(index).expect("indexes are used before sessions expire");
        session.last_active_s = service_s;
        if !session.touched {
            session.touched = true;
            self.touched.push_back(index);
        }
        if session.listed && !session.is_unused() {
            self.unlist(index);
        }
    }

    /// Opens a plain session (PROTOCOL.md#rule-1): everything up to `floor` is accounted for.
    pub fn open(&mut self, id: SessionId, floor: Seq, hello_nonce: Option<u64>) -> Result<u32, TableFull> {
        if self.is_full() {
            return Err(TableFull);
        }
        Ok(self.insert(Session::new(id, floor, hello_nonce)))
    }

    /// Opens a sealed session, whose epoch is above those of its client's others. Of a client that has as many as it may it
    /// takes the place of the oldest; in a full table that of a plain one, if it finds one that was not heard since
    /// `idle_before_s` seconds of service. The one evicted is returned, and must be taken out of the checkpoint.
    pub fn open_sealed(
        &mut self,
        id: SessionId,
        floor: Seq,
        idle_before_s: u64,
    ) -> Result<(u32, Option<SessionId>), TableFull> {
        let evicted = if let Some(oldest) = self.one_too_many(id.client) {
            let at_rest = self.sessions.at(oldest).is_some_and(Session::is_at_rest);
            Some(at_rest.then(|| self.forget(oldest)).flatten().ok_or(TableFull)?)
        } else if self.len() >= self.sessions_max {
            Some(self.evict_plain(idle_before_s).ok_or(TableFull)?)
        } else {
            None
        };
        Ok((self.insert(Session::new_sealed(id, floor)), evicted))
    }

    /// The session that the client must give up for a new one.
    fn one_too_many(&mut self, client: ClientId) -> Option<u32> {
        let mut at = self.newest_of(client)?;
        for _ in 1..limits::SEALED_SESSIONS_PER_CLIENT {
            at = self.at(at).neighbours().older?.index();
        }
        Some(at)
    }

    /// Forgets a plain session that was not heard for long, if there is one among those looked at now.
    fn evict_plain(&mut self, idle_before_s: u64) -> Option<SessionId> {
        if self.plain == 0 {
            return None;
        }
        for _ in 0..self.sessions.len().min(limits::SESSIONS_SWEPT) {
            let at = index(self.plain_sweep % self.sessions.len());
            self.plain_sweep = at as usize + 1;
            let idle = |s: &Session| !s.is_sealed() && s.last_active_s < idle_before_s && s.is_at_rest();
            if self.sessions.at(at).is_some_and(idle) {
                return self.forget(at);
            }
        }
        None
    }

    /// The client's session with the highest epoch, of its sealed ones if it has any.
    pub fn newest_of(&mut self, client: ClientId) -> Option<u32> {
        let hash = self.hasher.hash_one(client);
        let sessions = &self.sessions;
        self.newest.find(hash, |&i| sessions.at(i).is_some_and(|s| s.id.client == client)).copied()
    }

    /// The session that the client was given by HELLO last, if nothing has come in it and nothing waits for it.
    pub fn unused_of(&mut self, client: ClientId) -> Option<u32> {
        let hash = self.hasher.hash_one(client);
        let sessions = &self.sessions;
        let index = *self.unused.find(hash, |&i| sessions.at(i).is_some_and(|s| s.id.client == client))?;
        sessions.at(index).is_some_and(|s| s.is_unused() && s.pending == u32::MAX).then_some(index)
    }

    /// Gives the place of a session in which nothing has come to one of the same client in another epoch, which it has not used
    /// (PROTOCOL.md#welcome). Returns the session that is evicted for it, whose record must go.
    ///
    /// So whoever asks for epoch after epoch takes one place. What still comes in the old epoch opens it again.
    pub fn renew(&mut self, index: u32, epoch: Epoch, nonce: u64) -> SessionId {
        let old = self.at(index).id;
        let new = SessionId { client: old.client, epoch };
        if let Ok(found) = self.by_id.find_entry(self.hasher.hash_one(old), |&i| i == index) {
            found.remove();
        }
        self.at(index).renew(new, nonce);
        let (sessions, hasher) = (&self.sessions, &self.hasher);
        let live = |i: u32| sessions.at(i).expect("only live sessions are indexed");
        self.by_id.insert_unique(hasher.hash_one(new), index, |&i| hasher.hash_one(live(i).id));
        let hash = hasher.hash_one(new.client);
        match self.newest.find_mut(hash, |&i| live(i).id.client == new.client) {
            Some(newest) if live(*newest).id.epoch < epoch => *newest = index,
            Some(_) => {}
            None => drop(self.newest.insert_unique(hash, index, |&i| hasher.hash_one(live(i).id.client))),
        }
        self.last = index;
        old
    }

    /// An epoch that the client has not used: above its highest, and not below `unix_s`, the time of day in seconds
    /// (PROTOCOL.md#welcome). Past the last epoch, one from the time of day on that no session of the client has, and behind
    /// those that one has: a lower one may have been given in the same second, before its place went to a later one. `None`
    /// when none is found soon, which passes as time does.
    pub fn unused_epoch(&mut self, client: ClientId, unix_s: u64) -> Option<Epoch> {
        let clock = u32::try_from(unix_s).ok().and_then(Epoch::new).unwrap_or(FIRST_EPOCH);
        let known = [self.newest_of(client), self.unused_of(client)];
        let highest = known.into_iter().flatten().map(|index| self.at(index).id.epoch).max();
        let above = highest.map_or(Some(FIRST_EPOCH), Epoch::next).map(|above| above.max(clock));
        above.and_then(|above| self.free_epoch(client, above)).or_else(|| self.free_epoch(client, clock))
    }

    /// The first one from `from` on behind which the client has no session nearby.
    fn free_epoch(&mut self, client: ClientId, from: Epoch) -> Option<Epoch> {
        let mut free = None;
        let mut tried = Some(from);
        for _ in 0..EPOCHS_TRIED {
            let Some(epoch) = tried else { break };
            let taken = self.find(SessionId { client, epoch }).is_some();
            free = if taken { None } else { free.or(Some(epoch)) };
            tried = epoch.next();
        }
        free
    }

    /// Puts back a session from a checkpoint. Recovery does not refuse what was accepted before a lower maximum was set.
    /// Returns false, and changes nothing, for a record that no session can have made.
    pub fn restore(&mut self, record: &SessionRecord) -> bool {
        let Some(session) = Session::restore(record) else { return false };
        if let Some(index) = self.find(record.id) {
            self.forget(index);
        }
        self.insert(session);
        true
    }

    /// Applies a journaled entry, by the rules that accepted it. Applying an entry twice changes nothing.
    pub fn replay(&mut self, entry: &Entry<'_>, service_s: u64) {
        let id = entry.meta.session;
        let base = Seq(entry.meta.seq.0.saturating_sub(u64::from(entry.meta.span)));
        let known = self.find(id);
        let opened = |floor| match entry.meta.sealed {
            true => Session::new_sealed(id, floor),
            false => Session::new(id, floor, None),
        };
        let index = match entry.kind {
            EntryKind::Gap { from, to } => {
                let index = known.unwrap_or_else(|| self.insert(opened(Seq(from.0.saturating_sub(1)))));
                self.at(index).apply_gap(to);
                index
            }
            EntryKind::Data => {
                let index = known.unwrap_or_else(|| self.insert(opened(Seq(base.0.saturating_sub(1)))));
                // The window may have been wider when the entry was accepted.
                let judgement = self.at(index).receive(entry.meta.seq, base, entry.meta.skip, u16::MAX);
                if matches!(judgement, Judgement::Stale | Judgement::BeyondWindow(_)) {
                    tracing::error!(session = %id, seq = %entry.meta.seq, "a journaled entry does not fit its session");
                }
                index
            }
        };
        self.touch(index, service_s);
    }

    /// Notes that a session was heard, though nothing of it changed: it does not expire. Notes it in steps of `step_s`
    /// seconds, so that not every duplicate makes work for the disk; returns whether it did.
    pub fn keep_alive(&mut self, index: u32, service_s: u64, step_s: u64) -> bool {
        let due = self.at(index).last_active_s + step_s < service_s;
        if due {
            self.touch(index, service_s);
        }
        due
    }

    /// Takes sessions that changed since they were last taken, for a checkpoint, those that have waited longest first: at most
    /// `count_max`, and until their records come to `bytes_max` bytes of memory. Returns how many it took off the list, and
    /// the records of those that still live.
    pub fn take_touched(&mut self, count_max: usize, bytes_max: usize) -> (usize, Vec<SessionRecord>) {
        let mut records = Vec::new();
        let (mut taken, mut bytes) = (0, 0);
        while taken < count_max
            && bytes < bytes_max
            && let Some(index) = self.touched.pop_front()
        {
            taken += 1;
            if let Some(session) = self.sessions.at_mut(index) {
                session.touched = false;
                session.shrink();
                let record = session.record();
                bytes += size_of::<SessionRecord>() + record.above.len() * size_of::<u64>();
                records.push(record);
            }
        }
        (taken, records)
    }

    /// How many sessions there are for `take_touched` to take.
    pub fn touched(&self) -> usize {
        self.touched.len()
    }

    /// Forgets sessions idle since before `before_s` seconds of service, looking at `count` of them from where the last
    /// call stopped. Returns the forgotten ones; they must be taken out of the checkpoint.
    pub fn expire(&mut self, before_s: u64, count: usize) -> Vec<SessionId> {
        let mut expired = Vec::new();
        for _ in 0..count.min(self.sessions.len()) {
            let at = index(self.sweep % self.sessions.len());
            self.sweep = at as usize + 1;
            if self.sessions.at(at).is_some_and(|s| s.last_active_s < before_s && !s.touched) {
                expired.extend(self.forget(at));
            }
        }
        expired
    }

    /// The sealed sessions, in the order of their places.
    pub fn sealed(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.iter().filter(|session| session.is_sealed()).map(Session::id)
    }

    /// The latest activity of any session, in seconds of service: where service time goes on after a restart.
    pub fn last_active_s(&self) -> u64 {
        self.sessions.iter().map(|s| s.last_active_s).max().unwrap_or(0)
    }

    /// The client's sealed sessions, from the newest on; panics if they are not neighbours both ways.
    #[cfg(test)]
    pub(super) fn sealed_of(&mut self, client: ClientId) -> Vec<Epoch> {
        let mut found = Vec::new();
        let mut at = self.newest_of(client).filter(|&at| self.at(at).is_sealed()).map(Place::new);
        let mut newer = None;
        while let Some(place) = at {
            let session = self.at(place.index());
            assert_eq!((session.id.client, session.neighbours().newer), (client, newer));
            found.push(session.id.epoch);
            (newer, at) = (at, session.neighbours().older);
        }
        found
    }

    /// Memory held for the sessions without their bitmaps, in bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.sessions.bytes()
            + self.by_id.allocation_size()
            + self.newest.allocation_size()
            + self.unused.allocation_size()
            + (self.free.capacity() + self.touched.capacity()) * size_of::<u32>()
    }

    fn insert(&mut self, session: Session) -> u32 {
        let (id, sealed) = (session.id, session.is_sealed());
        self.plain += usize::from(!sealed);
        let at = match self.free.pop() {
            Some(at) => {
                self.sessions.put(at, session);
                at
            }
            None => index(self.sessions.push(session)),
        };
        let (sessions, hasher) = (&self.sessions, &self.hasher);
        let live = |i: u32| sessions.at(i).expect("only live sessions are indexed");
        self.by_id.insert_unique(hasher.hash_one(id), at, |&i| hasher.hash_one(live(i).id));
        let hash = hasher.hash_one(id.client);
        let rank = |i: u32| (live(i).is_sealed(), live(i).id.epoch);
        match self.newest.find_mut(hash, |&i| live(i).id.client == id.client) {
            None => {
                self.newest.insert_unique(hash, at, |&i| hasher.hash_one(live(i).id.client));
            }
            Some(newest) if rank(*newest) < rank(at) => {
                let older = Some(std::mem::replace(newest, at)).filter(|&i| live(i).is_sealed());
                self.link(Some(at), older);
            }
            // Only recovery may put sealed sessions back in another order than that of their epochs.
            Some(newest) if sealed => {
                let mut newer = *newest;
                let older_of = |i: u32| live(i).neighbours().older.map(Place::index);
                while let Some(older) = older_of(newer).filter(|&i| live(i).id.epoch > id.epoch) {
                    newer = older;
                }
                let older = older_of(newer);
                self.link(Some(at), older);
                self.link(Some(newer), Some(at));
            }
            Some(_) => {}
        }
        if self.at(at).is_unused() {
            self.list(at);
        }
        self.last = at;
        at
    }

    /// Notes that nothing has come in this session, the last that its client was given.
    fn list(&mut self, at: u32) {
        let (sessions, hasher) = (&self.sessions, &self.hasher);
        let live = |i: u32| sessions.at(i).expect("only live sessions are indexed");
        let client = live(at).id.client;
        let hash = hasher.hash_one(client);
        let full = self.unused.len() >= limits::UNUSED_SESSIONS;
        let before = match self.unused.find_mut(hash, |&i| live(i).id.client == client) {
            // Recovery may find several: of an earlier version, or opened out of turn.
            Some(before) if live(*before).id.epoch > live(at).id.epoch => return,
            Some(before) => Some(std::mem::replace(before, at)),
            None if full => return,
            None => {
                self.unused.insert_unique(hash, at, |&i| hasher.hash_one(live(i).id.client));
                None
            }
        };
        if let Some(before) = before {
            self.at(before).listed = false;
        }
        self.at(at).listed = true;
    }

    fn unlist(&mut self, at: u32) {
        let session = self.at(at);
        session.listed = false;
        let client = session.id.client;
        let hash = self.hasher.hash_one(client);
        if let Ok(found) = self.unused.find_entry(hash, |&i| i == at) {
            found.remove();
        }
    }

    /// Makes two sealed sessions of a client neighbours, or one of them the first or the last.
    fn link(&mut self, newer: Option<u32>, older: Option<u32>) {
        if let Some(beside) = newer.and_then(|at| self.at(at).neighbours_mut()) {
            beside.older = older.map(Place::new);
        }
        if let Some(beside) = older.and_then(|at| self.at(at).neighbours_mut()) {
            beside.newer = newer.map(Place::new);
        }
    }

    fn forget(&mut self, at: u32) -> Option<SessionId> {
        if self.sessions.at(at)?.listed {
            self.unlist(at);
        }
        let session = self.sessions.take(at)?;
        let Neighbours { newer, older } = session.neighbours();
        let (newer, older) = (newer.map(Place::index), older.map(Place::index));
        self.plain -= usize::from(!session.is_sealed());
        self.link(newer, older);
        if let Ok(found) = self.by_id.find_entry(self.hasher.hash_one(session.id), |&i| i == at) {
            found.remove();
        }
        if let Ok(mut found) = self.newest.find_entry(self.hasher.hash_one(session.id.client), |&i| i == at) {
            match older {
                Some(older) => *found.get_mut() = older,
                // An older plain session of the client may live on, but it is not found by its client any more: the epoch
                // that a HELLO then gets is above the time of day, and `unused_epoch` tries whether it is taken.
                None => {
                    found.remove();
                }
            }
        }
        self.free.push(at);
        self.last = u32::MAX;
        Some(session.id)
    }
}

/// Only a client that used the last epoch there is makes the server try more than one.
const EPOCHS_TRIED: usize = 64;
const FIRST_EPOCH: Epoch = Epoch::new(1).expect("1 is not 0");

/// An index into the table; `limits` keeps it far below 2³².
fn index(at: usize) -> u32 {
    u32::try_from(at).expect("the session table is bounded below 2^32")
}
