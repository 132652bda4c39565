//! The model server's asks and answers after the letter of PROTOCOL.md#answers-server: a service of random slowness, TAKEs
//! that are held, and a history of all that was ever answered.

use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use super::model_server::{SessionKey, encode};
use crate::Seq;
use crate::codec::{Answer, AnswerStatus, Datagram, Take};
use crate::random::Random;

/// A server holds a TAKE no longer than this, in milliseconds.
const HOLD_MS_MAX: u32 = 20_000;
/// And so many for a session.
const HELD_MAX: usize = 16;

pub(super) type AskKey = (SessionKey, u64);
pub(super) type Given = (AnswerStatus, Vec<u8>);

/// A TAKE that waits for its answer.
struct Held {
    take: Take,
    until_us: u64,
    room: usize,
}

pub(super) struct ModelAnswers {
    /// Whether it knows asks at all.
    pub(super) has_extension: bool,
    /// Asks in all that it has room for.
    pub(super) asks_max: usize,
    /// The longest that a message is worked on, and the longest body.
    pub(super) service_us: u64,
    pub(super) body_len_max: usize,
    /// What was ever answered to whom, also what is forgotten.
    pub(super) history: BTreeMap<AskKey, Vec<Given>>,
    /// TAKEs that came stand here with the time at which they did.
    pub(super) takes: Vec<(u64, Take)>,
    /// What is on disk: open, or answered.
    durable: BTreeMap<AskKey, Option<Given>>,
    live: BTreeMap<AskKey, Option<Given>>,
    /// When an open ask will have been worked on.
    working: BTreeMap<AskKey, u64>,
    held: Vec<Held>,
    random: Random,
}

impl ModelAnswers {
    pub(super) fn new() -> Self {
        Self {
            has_extension: true,
            asks_max: usize::MAX,
            service_us: 2_000_000,
            body_len_max: 600,
            history: BTreeMap::new(),
            takes: Vec::new(),
            durable: BTreeMap::new(),
            live: BTreeMap::new(),
            working: BTreeMap::new(),
            held: Vec::new(),
            random: Random::new(5),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.live.len() < self.asks_max
    }

    pub(super) fn journaled(&mut self, key: AskKey) {
        self.live.insert(key, None);
    }

    /// A sync: what was journaled asks, and what was forgotten is.
    pub(super) fn commit(&mut self, now_us: u64) {
        self.durable = self.live.clone();
        self.work(now_us);
    }

    /// SIGKILL. What was not durable is as it was before, what is open is worked on again.
    pub(super) fn crash(&mut self, now_us: u64) {
        self.live = self.durable.clone();
        self.held.clear();
        self.working.clear();
        self.work(now_us);
    }

    pub(super) fn forget_all(&mut self) {
        self.live.clear();
        self.durable.clear();
        self.held.clear();
        self.working.clear();
    }

    fn work(&mut self, now_us: u64) {
        for key in self.durable.iter().filter(|(_, answer)| answer.is_none()).map(|(key, _)| *key) {
            let service_us = self.random.up_to(self.service_us);
            self.working.entry(key).or_insert(now_us + service_us);
        }
    }

    pub(super) fn is_working(&self) -> bool {
        !self.working.is_empty()
    }

    pub(super) fn is_ready(&self, session: SessionKey) -> bool {
        self.live.iter().any(|((of, _), answer)| *of == session && answer.is_some())
    }

    /// Returns how many asks it keeps, answered or not.
    pub(super) fn kept(&self) -> usize {
        self.live.len()
    }

    pub(super) fn next_us(&self) -> Option<u64> {
        let work = self.working.values().min().copied();
        let hold = self.held.iter().map(|held| held.until_us).min();
        work.into_iter().chain(hold).min()
    }

    /// Answers what is due: work that is done, TAKEs that were held long enough.
    pub(super) fn due(&mut self, now_us: u64) -> Vec<Vec<u8>> {
        let done: Vec<AskKey> = self.working.iter().filter(|(_, at)| **at <= now_us).map(|(key, _)| *key).collect();
        let mut told = Vec::new();
        for key in done {
            self.working.remove(&key);
            let Some(kept @ None) = self.live.get_mut(&key) else { continue };
            let status = if self.random.up_to(7) == 0 { AnswerStatus::Failed } else { AnswerStatus::Done };
            let len = usize::try_from(self.random.up_to(self.body_len_max as u64)).unwrap();
            let body: Vec<u8> = (0..len).map(|_| self.random.next().to_le_bytes()[0]).collect();
            *kept = Some((status, body.clone()));
            // On disk before it is told.
            self.durable.insert(key, kept.clone());
            self.history.entry(key).or_default().push((status, body));
            let held = self.held.iter().position(|held| key_of(&held.take) == key);
            if let Some(Held { take, room, .. }) = held.map(|at| self.held.swap_remove(at)) {
                told.extend(self.answer(&take, room, 0));
            }
        }
        while let Some(at) = self.held.iter().position(|held| held.until_us <= now_us) {
            let Held { take, room, .. } = self.held.swap_remove(at);
            told.extend(self.answer(&take, room, 0));
        }
        told
    }

    /// Handles a TAKE of `len` bytes.
    pub(super) fn receive(&mut self, now_us: u64, take: &Take, len: usize) -> Option<Vec<u8>> {
        self.takes.push((now_us, *take));
        let (session, room) = ((take.client, take.epoch), len - crate::codec::MIN_LEN);
        let below = |key: &AskKey| key.0 == session && key.1 < take.base().0;
        self.live.retain(|key, _| !below(key));
        self.working.retain(|key, _| !below(key));
        self.held.retain(|held| key_of(&held.take) != key_of(take));
        let is_open = self.live.get(&key_of(take)).is_some_and(Option::is_none);
        let held = self.held.iter().filter(|held| (held.take.client, held.take.epoch) == session).count();
        if is_open && take.wait_ms > 0 && held < HELD_MAX {
            let until_us = now_us + u64::from(take.wait_ms.min(HOLD_MS_MAX)) * 1_000;
            self.held.push(Held { take: *take, until_us, room });
            return None;
        }
        self.answer(take, room, 1_000)
    }

    fn answer(&self, take: &Take, room: usize, retry_after_ms: u32) -> Option<Vec<u8>> {
        let (status, number, body) = match self.live.get(&key_of(take)) {
            None => (AnswerStatus::Gone, 0, vec![]),
            Some(None) => (AnswerStatus::Pending, retry_after_ms, vec![]),
            Some(Some((status, body))) => {
                let length = u32::try_from(body.len()).unwrap();
                (*status, length, if body.len() <= room { body.clone() } else { vec![] })
            }
        };
        let Take { client, epoch, seq: Seq(seq), .. } = *take;
        Some(encode(&Datagram::Answer(Answer { client, epoch, seq: Seq(seq), status, number, body: &body })))
    }
}

fn key_of(take: &Take) -> AskKey {
    ((take.client, take.epoch), take.seq.0)
}
