//! The asks themselves: found by client, bounded in number, forgotten when they are had or too old.

mod report;

use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeMap, HashSet};

use duragram_proto::{ClientId, Epoch, Seq};

pub(super) use report::SeenAt;

use super::held::Held;
use crate::limits;
use crate::model::{AnswerRecord, AskId, AskRecord, Now, Offset, SessionId};

/// A message whose sender wants an answer.
#[derive(Debug)]
pub(in crate::dialect::duragram) struct Ask {
    epoch: Epoch,
    seq: Seq,
    offset: Offset,
    /// The number of the commit that must have landed before anything is told of it: of its entry, then of its answer.
    rests_on: u64,
    /// When its entry was acked, in monotonic microseconds; 0 if that was before the start.
    acked_us: u64,
    answer: Option<AnswerRecord>,
    /// The TAKE that is held for it while it is open.
    pub(super) held: Option<Box<Held>>,
    sealed: bool,
    /// It is in [`AskTable::changed`], and needs no second place there.
    changed: bool,
    /// The journal may hold a record of it.
    recorded: bool,
}

impl Ask {
    /// The number of the commit that what is told of it rests on.
    pub(super) fn rests_on(&self) -> u64 {
        self.rests_on
    }

    /// When its entry was acked, in monotonic microseconds; 0 if that is not known.
    pub(super) fn acked_us(&self) -> u64 {
        self.acked_us
    }

    /// Its entry is acked now.
    pub(in crate::dialect::duragram) fn acked_at(&mut self, now: Now) {
        self.acked_us = now.mono_us;
    }

    /// What became of it; `None` while it is open.
    pub(super) fn answer(&self) -> Option<&AnswerRecord> {
        self.answer.as_ref()
    }

    fn key(&self) -> (Epoch, Seq) {
        (self.epoch, self.seq)
    }

    fn record(&self, client: ClientId) -> AskRecord {
        let session = SessionId { client, epoch: self.epoch };
        AskRecord { id: AskId { session, seq: self.seq }, offset: self.offset, answer: self.answer.clone() }
    }
}

/// Which of a client's asks has to give way to a new one: to a sealed one a plain one, which anybody can have forged and nobody can
/// take any more, whatever its epoch is; else that of the lowest epoch, if that is lower.
fn gives_way(asks: &[Ask], session: SessionId, sealed: bool) -> Option<&Ask> {
    let plain = asks.iter().find(|ask| sealed && !ask.sealed);
    plain.or_else(|| asks.first().filter(|ask| ask.epoch < session.epoch))
}

/// An ask that is no more.
#[derive(Debug)]
pub(in crate::dialect::duragram) struct Gone {
    /// The ask was known by this id.
    pub(super) id: AskId,
    /// The offset of its entry.
    pub(super) offset: Offset,
    /// It was answered before it was forgotten.
    pub(super) answered: bool,
    /// The TAKE that was held for it.
    pub(super) held: Option<Box<Held>>,
}

/// The asks of all clients.
#[derive(Debug)]
pub(in crate::dialect::duragram) struct AskTable {
    /// Those of each client in the order of epochs and seqs. The map's hash is keyed, since ids are chosen by whoever sends.
    clients: HashMap<ClientId, Vec<Ask>>,
    /// Those that are open, by the offsets of their entries.
    open: BTreeMap<Offset, AskId>,
    asks_max: usize,
    plain_max: usize,
    len: usize,
    /// So many of them came plain.
    plain: usize,
    /// No answer is older, in seconds of service.
    oldest_answer_s: u64,
    /// Those that have changed since the last checkpoint began, and forgotten ones that may have a record.
    changed: HashSet<AskId>,
    /// Those that the checkpoint being written has still to take.
    round: Vec<AskId>,
    /// How many were opened since the last checkpoint began: a start opens them again.
    opened: usize,
}

impl AskTable {
    /// Makes a table with room for `asks_max` asks.
    pub(in crate::dialect::duragram) fn new(asks_max: usize) -> Self {
        Self {
            clients: HashMap::new(),
            open: BTreeMap::new(),
            asks_max,
            plain_max: asks_max,
            len: 0,
            plain: 0,
            oldest_answer_s: u64::MAX,
            changed: HashSet::new(),
            round: Vec::new(),
            opened: 0,
        }
    }

    /// From now on plain asks get no more than half of the room.
    pub(in crate::dialect::duragram) fn keep_half_for_sealed(&mut self) {
        self.plain_max = self.asks_max / 2;
    }

    /// Counts the asks, open and answered.
    pub(in crate::dialect::duragram) fn len(&self) -> usize {
        self.len
    }

    /// How many of them are open.
    pub(in crate::dialect::duragram) fn open_len(&self) -> usize {
        self.open.len()
    }

    /// How many were opened since the last checkpoint began.
    pub(in crate::dialect::duragram) fn opened(&self) -> usize {
        self.opened
    }

    /// Whether there is room for another ask of a session, in the place of another one of its client if need be.
    pub(in crate::dialect::duragram) fn has_room(&self, session: SessionId, sealed: bool) -> bool {
        let asks = self.clients.get(&session.client).map_or(&[][..], Vec::as_slice);
        self.fits(asks.len(), self.len, self.plain, sealed)
            || gives_way(asks, session, sealed).is_some_and(|other| {
                self.fits(asks.len() - 1, self.len - 1, self.plain - usize::from(!other.sealed), sealed)
            })
    }

    /// Whether one more ask may be opened where there are so many.
    fn fits(&self, of_client: usize, len: usize, plain: usize, sealed: bool) -> bool {
        of_client < limits::ASKS_PER_CLIENT && len < self.asks_max && (sealed || plain < self.plain_max)
    }

    /// Makes the room that [`has_room`](Self::has_room) has found.
    pub(in crate::dialect::duragram) fn make_room(&mut self, session: SessionId, sealed: bool) -> Option<Gone> {
        let asks = self.clients.get(&session.client)?;
        if self.fits(asks.len(), self.len, self.plain, sealed) {
            return None;
        }
        let other = gives_way(asks, session, sealed)?;
        let id = AskId { session: SessionId { epoch: other.epoch, ..session }, seq: other.seq };
        self.forget(id)
    }

    /// Opens an ask, whose entry is part of the commit with this number. Returns an older one of the same name, which is no
    /// more.
    pub(in crate::dialect::duragram) fn open(
        &mut self,
        id: AskId,
        offset: Offset,
        rests_on: u64,
        sealed: bool,
    ) -> Option<Gone> {
        let before = self.forget(id);
        self.opened += 1;
        self.insert(id, offset, None, rests_on, sealed);
        self.touch(id);
        before
    }

    /// The ask of this name.
    pub(in crate::dialect::duragram) fn find(&mut self, id: AskId) -> Option<&mut Ask> {
        let asks = self.clients.get_mut(&id.session.client)?;
        let at = asks.binary_search_by_key(&(id.session.epoch, id.seq), Ask::key).ok()?;
        asks.get_mut(at)
    }

    /// How many TAKEs are held for a session.
    pub(in crate::dialect::duragram) fn held_of(&self, session: SessionId) -> usize {
        let asks = self.clients.get(&session.client).map_or(&[][..], Vec::as_slice);
        asks.iter().filter(|ask| ask.epoch == session.epoch && ask.held.is_some()).count()
    }

    /// Answers an open ask of this offset, if it is one, in the commit with this number. Returns it, as it is then.
    pub(in crate::dialect::duragram) fn answer(
        &mut self,
        id: AskId,
        offset: Offset,
        answer: AnswerRecord,
        rests_on: u64,
    ) -> Option<&mut Ask> {
        self.find(id).filter(|ask| ask.answer.is_none() && ask.offset == offset)?;
        self.open.remove(&offset);
        self.oldest_answer_s = self.oldest_answer_s.min(answer.answered_s);
        self.touch(id);
        let ask = self.find(id)?;
        (ask.answer, ask.rests_on) = (Some(answer), rests_on);
        Some(ask)
    }

    /// Those that are open below an offset.
    pub(in crate::dialect::duragram) fn open_below(&self, offset: Offset) -> Vec<(AskId, Offset)> {
        self.open.range(..offset).map(|(&offset, &id)| (id, offset)).collect()
    }

    /// Forgets the ask of this name, if there is one.
    pub(in crate::dialect::duragram) fn forget(&mut self, id: AskId) -> Option<Gone> {
        let Entry::Occupied(mut asks) = self.clients.entry(id.session.client) else { return None };
        let at = asks.get().binary_search_by_key(&(id.session.epoch, id.seq), Ask::key).ok()?;
        let ask = asks.get_mut().remove(at);
        if asks.get().is_empty() {
            asks.remove();
        }
        Some(self.forgotten(id, ask))
    }

    /// Forgets those of a session below a seq.
    pub(in crate::dialect::duragram) fn forget_below(&mut self, session: SessionId, seq: Seq) -> Vec<Gone> {
        let Entry::Occupied(mut asks) = self.clients.entry(session.client) else { return Vec::new() };
        let from = asks.get().partition_point(|ask| ask.epoch < session.epoch);
        let to = asks.get().partition_point(|ask| ask.key() < (session.epoch, seq));
        if from >= to {
            return Vec::new();
        }
        let below: Vec<Ask> = asks.get_mut().drain(from..to).collect();
        if asks.get().is_empty() {
            asks.remove();
        }
        below.into_iter().map(|ask| self.forgotten(AskId { session, seq: ask.seq }, ask)).collect()
    }

    /// Forgets all of a session, which has ended.
    pub(in crate::dialect::duragram) fn end(&mut self, session: SessionId) -> Vec<Gone> {
        // No message has seq 2⁶⁴ − 1: `Seq` counts up to it.
        let mut ended = self.forget_below(session, Seq(u64::MAX));
        ended.extend(self.forget(AskId { session, seq: Seq(u64::MAX) }));
        ended
    }

    /// Forgets those that were answered before so many seconds of service. Looks at them only when there can be one.
    pub(in crate::dialect::duragram) fn expire(&mut self, before_s: u64) -> Vec<Gone> {
        if self.oldest_answer_s >= before_s {
            return Vec::new();
        }
        let mut oldest_s = u64::MAX;
        let mut expired = Vec::new();
        for (&client, asks) in &self.clients {
            for ask in asks {
                match &ask.answer {
                    Some(answer) if answer.answered_s < before_s => {
                        let session = SessionId { client, epoch: ask.epoch };
                        expired.push(AskId { session, seq: ask.seq });
                    }
                    Some(answer) => oldest_s = oldest_s.min(answer.answered_s),
                    None => {}
                }
            }
        }
        self.oldest_answer_s = oldest_s;
        // The order of a hash map is another in each process.
        expired.sort_unstable();
        expired.into_iter().filter_map(|id| self.forget(id)).collect()
    }

    /// Takes up the record of an ask. One that is known already, of the same entry or a later one, stays.
    pub(in crate::dialect::duragram) fn restore(&mut self, record: AskRecord) {
        let AskRecord { id, offset, answer } = record;
        if self.find(id).is_some_and(|known| known.offset >= offset) {
            return;
        }
        self.forget(id);
        self.insert(id, offset, answer, 0, false);
        if let Some(ask) = self.find(id) {
            ask.recorded = true;
        }
    }

    /// Takes up the entry of an ask, unless it is known.
    pub(in crate::dialect::duragram) fn replay(&mut self, id: AskId, offset: Offset, sealed: bool) {
        if self.find(id).is_none_or(|known| known.offset < offset) {
            self.open(id, offset, 0, sealed);
        }
    }

    /// Takes up what became of an ask; `None`: it is no more.
    pub(in crate::dialect::duragram) fn replay_answer(&mut self, record: AskRecord) {
        match record.answer {
            Some(answer) => drop(self.answer(record.id, record.offset, answer, 0)),
            None if self.find(record.id).is_some_and(|known| known.offset == record.offset) => {
                drop(self.forget(record.id));
            }
            None => {}
        }
    }

    /// All is replayed: forgets the asks of sessions that are not there, and learns which of the others are sealed. Returns the
    /// sessions of those that are answered, a session for each.
    pub(in crate::dialect::duragram) fn settle(
        &mut self,
        mut is_sealed: impl FnMut(SessionId) -> Option<bool>,
    ) -> Vec<SessionId> {
        let (mut orphans, mut answered, mut plain) = (Vec::new(), Vec::new(), 0);
        for (&client, asks) in &mut self.clients {
            for ask in asks {
                let session = SessionId { client, epoch: ask.epoch };
                match is_sealed(session) {
                    Some(sealed) => {
                        ask.sealed = sealed;
                        plain += usize::from(!sealed);
                        answered.extend(ask.answer.is_some().then_some(session));
                    }
                    None => {
                        plain += usize::from(!ask.sealed);
                        orphans.push(AskId { session, seq: ask.seq });
                    }
                }
            }
        }
        self.plain = plain;
        orphans.into_iter().for_each(|id| drop(self.forget(id)));
        answered
    }

    /// The latest answer, in seconds of service; 0 if there is none.
    pub(in crate::dialect::duragram) fn latest_answer_s(&self) -> u64 {
        let answers = self.clients.values().flatten().filter_map(|ask| ask.answer.as_ref());
        answers.map(|answer| answer.answered_s).max().unwrap_or(0)
    }

    /// A checkpoint begins. Returns how many have changed since the last one did.
    pub(in crate::dialect::duragram) fn begin_round(&mut self) -> usize {
        self.opened = 0;
        self.round.extend(self.changed.drain());
        // In the order of their records, which is the same in each run, and what a database likes to be given.
        self.round.sort_unstable_by(|a, b| b.cmp(a));
        for at in 0..self.round.len() {
            if let Some(ask) = self.find(self.round[at]) {
                ask.changed = false;
            }
        }
        self.round.len()
    }

    /// Takes asks that had changed when the checkpoint began: at most `count_max`, and until their records come to `bytes_max`
    /// bytes of memory. Returns how many it took, the records of those that are there, and the others.
    pub(in crate::dialect::duragram) fn take_round(
        &mut self,
        count_max: usize,
        bytes_max: usize,
    ) -> (usize, Vec<AskRecord>, Vec<AskId>) {
        let (mut taken, mut bytes, mut records, mut forgotten) = (0, 0, Vec::new(), Vec::new());
        while taken < count_max
            && bytes < bytes_max
            && let Some(id) = self.round.pop()
        {
            taken += 1;
            bytes += size_of::<AskRecord>();
            match self.find(id) {
                Some(ask) => {
                    ask.recorded = true;
                    bytes += ask.answer.as_ref().map_or(0, |answer| answer.body.len());
                    records.push(ask.record(id.session.client));
                }
                None => forgotten.push(id),
            }
        }
        (taken, records, forgotten)
    }

    fn insert(&mut self, id: AskId, offset: Offset, answer: Option<AnswerRecord>, rests_on: u64, sealed: bool) {
        match &answer {
            None => drop(self.open.insert(offset, id)),
            Some(answer) => self.oldest_answer_s = self.oldest_answer_s.min(answer.answered_s),
        }
        let ask = Ask {
            epoch: id.session.epoch,
            seq: id.seq,
            offset,
            rests_on,
            acked_us: 0,
            answer,
            held: None,
            sealed,
            changed: false,
            recorded: false,
        };
        self.len += 1;
        self.plain += usize::from(!sealed);
        let asks = self.clients.entry(id.session.client).or_default();
        let at = asks.partition_point(|other| other.key() < ask.key());
        if asks.len() == asks.capacity() {
            // Most clients have one or two.
            asks.reserve_exact((asks.len() / 2).max(1));
        }
        asks.insert(at, ask);
    }

    /// Notes that an ask has changed.
    fn touch(&mut self, id: AskId) {
        let Some(ask) = self.find(id).filter(|ask| !ask.changed) else { return };
        ask.changed = true;
        // One that was forgotten under this name, and may have left a record, is taken with it.
        let first = self.changed.insert(id);
        if !first && let Some(ask) = self.find(id) {
            ask.recorded = true;
        }
    }

    fn forgotten(&mut self, id: AskId, ask: Ask) -> Gone {
        self.len -= 1;
        self.plain -= usize::from(!ask.sealed);
        if ask.answer.is_none() {
            self.open.remove(&ask.offset);
        }
        if ask.recorded {
            self.changed.insert(id);
        } else if ask.changed {
            self.changed.remove(&id);
        }
        Gone { id, offset: ask.offset, answered: ask.answer.is_some(), held: ask.held }
    }

    /// Memory that the asks take without their bodies, in bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        // Of std's tables, what is allocated is at most 8/7 of the capacity, and a byte more for each place. A node of a tree is
        // half full at least, and has a pointer and a length for each eleven.
        let table = |capacity: usize, item: usize| capacity * 8 / 7 * (item + 1);
        table(self.clients.capacity(), size_of::<(ClientId, Vec<Ask>)>())
            + self.clients.values().map(|asks| asks.capacity() * size_of::<Ask>()).sum::<usize>()
            + self.open.len() * 2 * (size_of::<(Offset, AskId)>() + 4)
            + table(self.changed.capacity(), size_of::<AskId>())
            + self.round.capacity() * size_of::<AskId>()
    }
}
