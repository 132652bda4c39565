//! Asks and answers, judged from what is durable and from the wires: one answer for each ask, told when it is durable and its effect
//! before it, to whoever took it, and GONE only where a rule lets an ask be forgotten (PROTOCOL.md#answers-server).

mod gone;
mod vouchers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use duragram::limits;
use duragram::model::AskRecord;
use duragram::proto::client::Status;
use duragram::proto::codec::{Answer, AnswerStatus, Data, Reject};

use super::{Map, Oracle, RUDE, RecordKey, Sid, index};
use crate::asks::{Answerer, AskSeen};
use crate::plan::Plan;
use vouchers::Voucher;

/// What is known of all asks.
#[derive(Default)]
pub(crate) struct Asks {
    answerer: Option<Answerer>,
    ttl_us: u64,
    asks_max: usize,
    plain_max: usize,
    /// How much later than it is due an ANSWER may leave: datagrams before it may wait, and commits.
    slack_us: u64,
    /// The server is being stopped: it waits for its sinks, until they come back if they have to be asked again, before it answers anybody.
    stopping: bool,
    /// Messages that were sent with ASK.
    sent: BTreeSet<(Sid, u64)>,
    /// When the first of these came to the server, as a number of what is delivered.
    delivered: BTreeMap<(Sid, u64), u64>,
    /// How many asks each client has sent there, and all together.
    of_client: Map<u64, usize>,
    number: u64,
    /// The asks that are durable, by the offsets of their entries.
    durable: BTreeMap<u64, Ask>,
    /// The offsets of one name: a session that was forgotten may ask with a seq again.
    offsets: Map<(Sid, u64), Vec<u64>>,
    /// What handlers gave for records that asked.
    given: Map<RecordKey, Vec<Given>>,
    /// Below these seqs answers were had, by those who say so: with the number of the TAKE.
    had: Map<Sid, Vec<(u64, u64)>>,
    vouchers: BTreeMap<(Sid, u64), Vec<Voucher>>,
    /// Of sealed sessions, which counters came first from where, in this life of the process.
    heard: Map<Sid, BTreeMap<u64, Vec<SocketAddr>>>,
    /// Where the newest datagram of a session came from.
    newest: Map<Sid, SocketAddr>,
    life: u64,
    pub(crate) seen: [u64; AskSeen::COUNT],
}

/// An ask whose entry is durable.
struct Ask {
    sid: Sid,
    seq: u64,
    life: u64,
    answer: Option<Stored>,
    /// When its effect was durable first, or its dead letter.
    finished_us: Option<u64>,
    /// An ANSWER has told of it.
    told: bool,
    /// The number of the TAKE that was told GONE last, and the life of the process.
    gone: Option<(u64, u64)>,
    found: Option<AskSeen>,
    /// Nobody will answer it: the sinks that would are gone, or others than when it was made, and begin beyond it.
    is_orphan: bool,
}

/// An answer that is durable at the server.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Stored {
    failed: bool,
    body: Vec<u8>,
    since_us: u64,
}

/// What a handler gave for one record.
struct Given {
    body: Vec<u8>,
    /// Whether a flush has made its effect durable.
    kept: bool,
}

impl Asks {
    pub(crate) fn new(plan: &Plan) -> Self {
        let config = plan.dialect.asks;
        // As many commits as datagrams may be before it, two slow ones for each that may be under way, and the waits between them: one
        // before each, and where several are under way one more before its sync.
        let steps = if plan.under_way_max > 1 { 2 } else { 1 };
        let queue_us = 3 * steps * plan.sync_us * plan.socket_datagrams as u64;
        let slow_us = if plan.disk.slow > 0 { 8 * plan.slow_sync_us } else { 0 };
        Self {
            answerer: plan.asks.as_ref().map(|asks| asks.answerer),
            ttl_us: config.answer_ttl_s * 1_000_000,
            asks_max: config.asks_max,
            plain_max: if plan.mode.has_keys() { config.asks_max / 2 } else { config.asks_max },
            slack_us: 2 * plan.tick_us + queue_us + slow_us,
            ..Self::default()
        }
    }

    pub(crate) fn saw(&mut self, seen: AskSeen) {
        self.seen[seen as usize] += 1;
    }

    /// The ask of this name that became durable last, and where its entry is.
    fn latest(&self, sid: Sid, seq: u64) -> Option<(u64, &Ask)> {
        let offset = *self.offsets.get(&(sid, seq))?.last()?;
        Some((offset, self.durable.get(&offset)?))
    }

    /// As many asks may be remembered as there may be, of this client or of all.
    fn may_be_full(&self, client: u64) -> bool {
        let most = self.asks_max.min(self.plain_max);
        self.of_client.get(&client).is_some_and(|&asks| asks >= limits::ASKS_PER_CLIENT) || self.delivered.len() >= most
    }
}

impl Oracle {
    /// The server is being stopped.
    pub(crate) fn stops(&mut self) {
        self.asks.stopping = true;
    }

    /// A client has sent a message, and wants an answer or none.
    pub(super) fn sent_asking(&mut self, data: &Data<'_>) {
        let name = ((data.client.0, data.epoch.value()), data.seq.0);
        if self.asks.answerer.is_none() || name.0.0 >= RUDE {
            return;
        }
        if data.asks() {
            self.asks.sent.insert(name);
        } else if self.asks.sent.contains(&name) {
            self.fail(|| format!("seq {} of {:?} asks, and is sent again without", name.1, name.0));
        }
    }

    /// An entry is durable that asks, or does not.
    pub(super) fn entry_asks(&mut self, sid: Sid, seq: u64, offset: u64, asks: bool) {
        if self.asks.answerer.is_none() {
            return;
        }
        if sid.0 < RUDE && asks != self.asks.sent.contains(&(sid, seq)) {
            self.fail(|| format!("entry {offset}, seq {seq} of {sid:?}, asks: {asks}, and was sent otherwise"));
        }
        if !asks {
            return;
        }
        let (life, sealed) = (self.asks.life, self.mode.is_some_and(|mode| sid.0 < RUDE && mode.seals(sid.0)));
        self.asks.offsets.entry((sid, seq)).or_default().push(offset);
        let ask = Ask {
            sid,
            seq,
            life,
            answer: None,
            finished_us: None,
            told: false,
            gone: None,
            found: None,
            is_orphan: false,
        };
        self.asks.durable.insert(offset, ask);
        self.note_orphans();
        self.asks.saw(if sealed { AskSeen::AskedSealed } else { AskSeen::Asked });
    }

    /// A handler has done a record that asks, and this is what it gives for it.
    pub(crate) fn gives(&mut self, key: RecordKey, body: Vec<u8>) {
        self.asks.given.entry(key).or_default().push(Given { body, kept: false });
    }

    /// What was done with this record is durable.
    pub(super) fn effect_is_durable(&mut self, key: RecordKey) {
        self.asks.given.get_mut(&key).into_iter().flatten().for_each(|given| given.kept = true);
        self.finished(key.0);
    }

    pub(super) fn finished(&mut self, offset: u64) {
        let now_us = self.now_us;
        if let Some(ask) = self.asks.durable.get_mut(&offset) {
            ask.finished_us.get_or_insert(now_us);
        }
    }

    /// A life of the server begins: what handlers had not flushed is gone, and so are the TAKEs.
    pub(super) fn asks_begin(&mut self, records: &[(Vec<u8>, Vec<u8>)]) {
        let asks = &mut self.asks;
        asks.life += 1;
        asks.stopping = false;
        asks.given.values_mut().for_each(|given| given.retain(|given| given.kept));
        asks.vouchers.clear();
        asks.heard.clear();
        if asks.answerer.is_none() {
            return;
        }
        for (key, value) in records {
            let found = if key.first() == Some(&b'r') { AskSeen::FoundInLog } else { AskSeen::FoundInAsk };
            for record in duragram::journal::testing::simulated::stored_answers(key, value) {
                if let (Some(ask), Some(_)) = (asks.durable.get_mut(&record.offset.0), &record.answer) {
                    ask.found = Some(found);
                }
            }
        }
    }

    /// The disk holds what became of an ask.
    pub(super) fn answer_is_durable(&mut self, record: AskRecord) {
        let AskRecord { id, offset, answer: Some(answer) } = record else { return };
        let (sid, seq, offset) = ((id.session.client.0, id.session.epoch.value()), id.seq.0, offset.0);
        let stored = Stored { failed: answer.failed, body: answer.body.to_vec(), since_us: self.now_us };
        let Some(ask) = self.asks.durable.get(&offset).filter(|ask| (ask.sid, ask.seq) == (sid, seq)) else {
            return self.fail(|| format!("{stored:?} is stored for seq {seq} of {sid:?}, which is no ask"));
        };
        if let Some(before) = &ask.answer {
            let is_same = (before.failed, &before.body) == (stored.failed, &stored.body);
            if !is_same {
                let before = before.clone();
                self.fail(|| format!("seq {seq} of {sid:?} is answered {before:?}, and {stored:?} later"));
            }
            return;
        }
        let is_later_life = ask.life < self.asks.life;
        if let Err(why) = self.may_answer(offset, &stored) {
            self.fail(|| format!("{stored:?} is durable for seq {seq} of {sid:?}, and {why}"));
        }
        self.finished(offset);
        if is_later_life {
            self.asks.saw(AskSeen::AnsweredAfterCrash);
        }
        if let Some(ask) = self.asks.durable.get_mut(&offset) {
            ask.answer = Some(stored);
        }
    }

    /// Whether this may be answered now: the effect is durable, and so is what it says.
    fn may_answer(&self, offset: u64, stored: &Stored) -> Result<(), &'static str> {
        let key = (offset, 0);
        if stored.failed {
            let is_dead = match self.asks.answerer {
                Some(Answerer::Embedded) => self.entries[index(offset)].records[0].dead,
                _ => self.is_dead_letter(key),
            };
            return if is_dead && stored.body.is_empty() { Ok(()) } else { Err("there is no dead letter") };
        }
        if self.asks.answerer == Some(Answerer::Receipts) {
            let is_done = stored.body.is_empty() && self.all_have(offset);
            return if is_done { Ok(()) } else { Err("not all sinks have it") };
        }
        let given = self.asks.given.get(&key);
        let is_given = given.is_some_and(|given| given.iter().any(|given| given.kept && given.body == stored.body));
        if is_given { Ok(()) } else { Err("no handler has made that durable") }
    }

    /// A DATA that asks has come to the server.
    pub(super) fn ask_is_delivered(&mut self, data: &Data<'_>) {
        let sid = (data.client.0, data.epoch.value());
        self.asks.number += 1;
        let number = self.asks.number;
        if self.asks.delivered.insert_first((sid, data.seq.0), number) {
            *self.asks.of_client.entry(sid.0).or_default() += 1;
        }
    }

    /// The server refuses a message for the time being.
    pub(super) fn refused_busy(&mut self, reject: &Reject) {
        let sid = (reject.client.0, reject.epoch);
        let asked = self.asks.delivered.contains_key(&(sid, reject.refused));
        if asked && reject.retry_after_ms == limits::ASK_RETRY_MS {
            self.asks.saw(AskSeen::Busy);
        }
    }

    /// An ack says that an answer is there.
    pub(super) fn is_ready(&mut self, sid: Sid) {
        let of_session = (sid, 0)..=(sid, u64::MAX);
        let answered = self.asks.sent.range(of_session).any(|&(sid, seq)| {
            let offsets = self.asks.offsets.get(&(sid, seq));
            offsets.is_some_and(|all| all.iter().any(|offset| self.asks.durable[offset].answer.is_some()))
        });
        if sid.0 < RUDE && !answered {
            self.fail(|| format!("an ack to {sid:?} says READY, and no answer is durable"));
        }
        self.asks.saw(AskSeen::Ready);
    }

    /// The server has sent an ANSWER of so many bytes.
    pub(super) fn told(&mut self, to: SocketAddr, len: usize, answer: &Answer<'_>) {
        let (sid, seq) = ((answer.client.0, answer.epoch.value()), answer.seq.0);
        if self.failed && answer.status != AnswerStatus::Gone {
            return self.fail(|| format!("{answer:?} after a failed commit"));
        }
        let Some(voucher) = self.redeem(to, len, answer) else {
            let name = (sid, seq);
            let vouchers = self.asks.vouchers.get(&name).cloned().unwrap_or_default();
            return self.fail(|| format!("{answer:?} goes to {to}, and nobody there is to get it now: {vouchers:?}"));
        };
        match answer.status {
            AnswerStatus::Done | AnswerStatus::Failed => self.told_answer(sid, seq, answer, &voucher),
            AnswerStatus::Pending => {
                if self.asks.latest(sid, seq).is_none() {
                    self.fail(|| format!("{answer:?}, and the ask is not durable"));
                }
                let was_held = voucher.wait_us > 0 && voucher.ends_us() <= self.now_us;
                if answer.number == 0 {
                    self.asks.saw(AskSeen::HeldExpired);
                }
                let is_right = if answer.number == 0 { was_held } else { answer.number >= limits::PENDING_RETRY_MS };
                if !is_right {
                    self.fail(|| format!("{answer:?} to a TAKE that was held: {was_held}"));
                }
            }
            AnswerStatus::Gone => self.told_gone(sid, seq, &voucher),
            AnswerStatus::Unknown(_) => self.fail(|| format!("the server has sent {answer:?}")),
        }
    }

    fn told_answer(&mut self, sid: Sid, seq: u64, answer: &Answer<'_>, voucher: &Voucher) {
        let failed = answer.status == AnswerStatus::Failed;
        let says = |stored: &Stored| {
            let is_body = answer.body == stored.body || answer.body.is_empty();
            stored.failed == failed && stored.body.len() as u64 == u64::from(answer.number) && is_body
        };
        let offsets = self.asks.offsets.get(&(sid, seq)).cloned().unwrap_or_default();
        let told = offsets.into_iter().rev().find(|offset| self.asks.durable[offset].answer.as_ref().is_some_and(says));
        let life = self.asks.life;
        let Some(ask) = told.and_then(|offset| self.asks.durable.get_mut(&offset)) else {
            return self.fail(|| format!("{answer:?}, which is not durable"));
        };
        let gone = ask.gone.filter(|&(number, of)| of == life && number < voucher.number);
        let was_held = ask.answer.as_ref().is_some_and(|stored| voucher.arrived_us < stored.since_us);
        let again = std::mem::replace(&mut ask.told, true);
        let found = ask.found;
        self.asks.saw(AskSeen::Answered);
        if failed {
            self.asks.saw(AskSeen::Failed);
        }
        if was_held && voucher.wait_us > 0 {
            self.asks.saw(AskSeen::HeldReleased);
        }
        if again {
            self.asks.saw(AskSeen::TakenAgain);
        }
        if answer.body.len() as u64 != u64::from(answer.number) {
            self.asks.saw(AskSeen::NoRoom);
        }
        found.into_iter().for_each(|found| self.asks.saw(found));
        if gone.is_some() {
            self.fail(|| format!("{answer:?}, and an earlier TAKE was told that it is gone"));
        }
    }

    /// The longest body that is durable for an ask of this name.
    pub(crate) fn body_of(&self, sid: Sid, seq: u64) -> Vec<u8> {
        let offsets = self.asks.offsets.get(&(sid, seq)).into_iter().flatten();
        let bodies = offsets.filter_map(|offset| Some(self.asks.durable[offset].answer.as_ref()?.body.clone()));
        bodies.max_by_key(Vec::len).unwrap_or_default()
    }

    /// A client hands out an answer.
    pub(crate) fn heard(&mut self, sid: Sid, seq: u64, status: Status, length: u32, body: &[u8]) {
        let failed = match status {
            Status::Gone => return,
            Status::Failed => true,
            Status::Done => false,
        };
        let is_it = |stored: &Stored| {
            let is_body = body == stored.body || body.is_empty();
            stored.failed == failed && stored.body.len() as u64 == u64::from(length) && is_body
        };
        let offsets = self.asks.offsets.get(&(sid, seq));
        if !offsets.is_some_and(|all| all.iter().any(|at| self.asks.durable[at].answer.as_ref().is_some_and(is_it))) {
            self.fail(|| format!("{sid:?} hears {status:?} of seq {seq}, and no such answer was ever durable"));
        }
    }
}

/// What `BTreeMap` has no word for.
trait InsertFirst<K, V> {
    /// Whether it was not there before; what was stays.
    fn insert_first(&mut self, key: K, value: V) -> bool;
}

impl<K: Ord, V> InsertFirst<K, V> for BTreeMap<K, V> {
    fn insert_first(&mut self, key: K, value: V) -> bool {
        let before = self.len();
        self.entry(key).or_insert(value);
        self.len() > before
    }
}
