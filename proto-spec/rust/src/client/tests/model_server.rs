//! A server after the letter of PROTOCOL.md#server-rules, as naive as can be: sets and maps, no shared code but the
//! codec. It journals in memory, makes durable when told to, and panics where the client breaks its duties.

use std::collections::{BTreeMap, BTreeSet};
use std::vec;
use std::vec::Vec;

use super::model_answers::ModelAnswers;
use crate::codec::{Ack, Data, Datagram, Durability, Hello, Ping, Reject, RejectCode, Welcome, decode};
use crate::{ClientId, Epoch, Seq};

pub(super) type SessionKey = (ClientId, Epoch);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) session: SessionKey,
    pub(super) seq: Seq,
    pub(super) channel: u16,
    pub(super) batch: bool,
    pub(super) payload: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Session {
    floor: u64,
    above: BTreeSet<u64>,
}

/// A session that the next commit will ack.
struct Touched {
    arrived_us: u64,
    datagram_len: usize,
    new: bool,
}

pub(super) struct ModelServer {
    pub(super) window: u16,
    /// What of the window is told at most: smaller while there is a backlog.
    pub(super) credit_max: u16,
    /// The answer to all DATA of this channel, or of any.
    pub(super) refuse: Option<(Option<u16>, RejectCode, u32)>,
    pub(super) payload_len_max: usize,
    /// Whether it sets COMPLETE; servers before it was defined do not.
    pub(super) tells_completeness: bool,
    /// Sessions below this epoch are refused as stale.
    pub(super) epoch_min: u32,
    pub(super) unix_s: u32,
    pub(super) journal: Vec<Entry>,
    /// Seqs that a client gave up, and seqs that it claims were acked and that are not here.
    pub(super) abandoned: u64,
    pub(super) missing: u64,
    /// Datagrams whose base no client of this journal can have reached.
    pub(super) stale: u64,
    /// Datagrams that were journaled already.
    pub(super) duplicates: u64,
    pub(super) answers: ModelAnswers,
    durable: BTreeMap<SessionKey, Session>,
    live: BTreeMap<SessionKey, Session>,
    journal_durable: usize,
    touched: BTreeMap<SessionKey, Touched>,
    welcomed: BTreeMap<ClientId, (u64, Epoch)>,
}

impl ModelServer {
    pub(super) fn new(window: u16) -> Self {
        Self {
            window,
            credit_max: u16::MAX,
            refuse: None,
            payload_len_max: usize::MAX,
            tells_completeness: true,
            epoch_min: 0,
            unix_s: 1,
            journal: Vec::new(),
            abandoned: 0,
            missing: 0,
            stale: 0,
            duplicates: 0,
            answers: ModelAnswers::new(),
            durable: BTreeMap::new(),
            live: BTreeMap::new(),
            journal_durable: 0,
            touched: BTreeMap::new(),
            welcomed: BTreeMap::new(),
        }
    }

    /// Handles a datagram; the reply, if there is one at once.
    pub(super) fn receive(&mut self, now_us: u64, bytes: &[u8]) -> Option<Vec<u8>> {
        let reply = match decode(bytes).expect("a client sends nothing broken") {
            Datagram::Data(data) => self.receive_data(now_us, &data, bytes.len()),
            Datagram::Hello(hello) => Some(self.receive_hello(&hello)),
            Datagram::Ping(ping) => Some(self.receive_ping(&ping, bytes.len())),
            Datagram::Take(take) => self.answers.receive(now_us, &take, bytes.len()),
            other => panic!("a client never sends {other:?}"),
        };
        assert!(reply.as_ref().is_none_or(|reply| reply.len() <= bytes.len()), "amplification");
        reply
    }

    fn receive_data(&mut self, now_us: u64, data: &Data<'_>, datagram_len: usize) -> Option<Vec<u8>> {
        let key = (data.client, data.epoch);
        let reject = |code, retry_after_ms| {
            let (client, epoch) = (data.client, data.epoch.value());
            Some(encode(&Datagram::Reject(Reject { client, epoch, code, refused: data.seq.0, retry_after_ms })))
        };
        assert!(data.is_supported());
        if data.options != 0 && !self.answers.has_extension {
            return reject(RejectCode::Unsupported, 0);
        }
        if data.payload.len() > self.payload_len_max {
            return reject(RejectCode::TooLarge, 0);
        }
        if let Some((channel, code, retry_after_ms)) = self.refuse
            && channel.is_none_or(|channel| channel == data.channel)
        {
            return reject(code, retry_after_ms);
        }
        if data.epoch.value() < self.epoch_min {
            return reject(RejectCode::StaleEpoch, 0);
        }
        let (seq, base) = (data.seq.0, data.base().0);
        let window = u64::from(self.window);
        // PROTOCOL.md#rule-1.
        let session = self.live.entry(key).or_insert_with(|| Session { floor: base - 1, above: BTreeSet::new() });
        let mut moved = false;
        // PROTOCOL.md#rule-4.
        if base - 1 > session.floor {
            if base - 1 > session.floor + window {
                self.stale += 1;
                return reject(RejectCode::StaleEpoch, 0);
            }
            let missing = (session.floor + 1..base).filter(|seq| !session.above.contains(seq)).count() as u64;
            *(if data.skip { &mut self.abandoned } else { &mut self.missing }) += missing;
            session.floor = base - 1;
            session.settle();
            moved = true;
        }
        // PROTOCOL.md#rule-2, PROTOCOL.md#rule-3.
        let duplicate = seq <= session.floor || session.above.contains(&seq);
        if !duplicate && seq > session.floor + window {
            return reject(RejectCode::BeyondWindow, 0);
        }
        if duplicate {
            self.duplicates += 1;
            let durable = self.durable.get(&key).is_some_and(|durable| durable.has(seq));
            if durable && !moved && !self.touched.contains_key(&key) {
                return Some(self.ack(key, datagram_len, 0, true));
            }
        } else {
            if data.asks() && !self.answers.has_room() {
                return reject(RejectCode::Busy, 300);
            }
            // PROTOCOL.md#rule-5.
            session.above.insert(seq);
            session.settle();
            self.journal.push(Entry {
                session: key,
                seq: data.seq,
                channel: data.channel,
                batch: data.batch,
                payload: data.payload.to_vec(),
            });
            if data.asks() {
                self.answers.journaled((key, seq));
            }
        }
        let new = !duplicate || self.touched.get(&key).is_some_and(|touched| touched.new);
        self.touched.insert(key, Touched { arrived_us: now_us, datagram_len, new });
        None
    }

    fn receive_hello(&mut self, hello: &Hello) -> Vec<u8> {
        let (client, nonce) = (hello.client, hello.nonce);
        if let Some((_, code @ (RejectCode::Busy | RejectCode::SealedOnly | RejectCode::Storage), retry_after_ms)) =
            self.refuse
        {
            return encode(&Datagram::Reject(Reject { client, epoch: 0, code, refused: nonce, retry_after_ms }));
        }
        let known = self.welcomed.get(&client).filter(|(n, epoch)| {
            *n == nonce && self.live.get(&(client, *epoch)).is_some_and(|session| session.floor == 0)
        });
        let epoch = known.map(|(_, epoch)| *epoch).unwrap_or_else(|| {
            let highest = self.live.keys().filter(|key| key.0 == client).map(|key| key.1.value()).max();
            Epoch::new((highest.unwrap_or(0) + 1).max(self.unix_s).max(self.epoch_min)).unwrap()
        });
        let session = Session { floor: 0, above: BTreeSet::new() };
        self.live.entry((client, epoch)).or_insert_with(|| session.clone());
        self.durable.entry((client, epoch)).or_insert(session);
        self.welcomed.insert(client, (nonce, epoch));
        encode(&Datagram::Welcome(Welcome { client, epoch, credit: self.credit(), nonce }))
    }

    fn receive_ping(&mut self, ping: &Ping, datagram_len: usize) -> Vec<u8> {
        self.ack((ping.client, ping.epoch), datagram_len, 0, true)
    }

    /// Makes all that was received durable, and acks it (PROTOCOL.md#rule-6): the end of a sync.
    pub(super) fn commit(&mut self, now_us: u64) -> Vec<Vec<u8>> {
        self.journal_durable = self.journal.len();
        self.answers.commit(now_us);
        let touched = core::mem::take(&mut self.touched);
        for key in touched.keys() {
            self.durable.insert(*key, self.live[key].clone());
        }
        let ack = |(key, touched): (&SessionKey, &Touched)| {
            let delay_us = u32::try_from(now_us - touched.arrived_us).unwrap();
            self.ack(*key, touched.datagram_len, delay_us, !touched.new)
        };
        touched.iter().map(ack).collect()
    }

    pub(super) fn has_uncommitted(&self) -> bool {
        !self.touched.is_empty()
    }

    /// SIGKILL: what was not durable is gone.
    pub(super) fn crash(&mut self, now_us: u64) {
        self.answers.crash(now_us);
        self.journal.truncate(self.journal_durable);
        self.live = self.durable.clone();
        self.touched.clear();
    }

    /// The sessions have expired, or the data directory was emptied.
    pub(super) fn forget_sessions(&mut self, now_us: u64) {
        self.crash(now_us);
        self.answers.forget_all();
        self.live.clear();
        self.durable.clear();
    }

    fn credit(&self) -> u16 {
        self.window.min(self.credit_max)
    }

    fn ack(&self, key: SessionKey, datagram_len: usize, delay_us: u32, duplicate: bool) -> Vec<u8> {
        let none = Session { floor: 0, above: BTreeSet::new() };
        let session = self.durable.get(&key).unwrap_or(&none);
        let mut bitmap = vec![0u8; (datagram_len - 32).min(128) / 8 * 8];
        let mut complete = self.tells_completeness;
        for seq in &session.above {
            let bit = usize::try_from(seq - session.floor - 1).unwrap();
            match bitmap.get_mut(bit / 8) {
                Some(byte) => *byte |= 1 << (bit % 8),
                None => complete = false,
            }
        }
        while bitmap.ends_with(&[0; 8]) {
            bitmap.truncate(bitmap.len() - 8);
        }
        encode(&Datagram::Ack(Ack {
            client: key.0,
            epoch: key.1,
            floor: Seq(session.floor),
            credit: self.credit(),
            durability: Durability::Synced,
            duplicate,
            complete,
            ready: self.answers.is_ready(key),
            delay_us,
            bitmap: &bitmap,
        }))
    }
}

impl Session {
    fn settle(&mut self) {
        self.above = self.above.split_off(&(self.floor + 1));
        while self.above.remove(&(self.floor + 1)) {
            self.floor += 1;
        }
    }

    fn has(&self, seq: u64) -> bool {
        seq <= self.floor || self.above.contains(&seq)
    }
}

pub(super) fn encode(datagram: &Datagram<'_>) -> Vec<u8> {
    let mut out = vec![0; 65_536];
    let len = datagram.encode(&mut out).expect("there is room");
    out.truncate(len);
    out
}
