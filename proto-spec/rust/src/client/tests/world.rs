//! A client, a model server and a path between them that loses, repeats and reorders, in virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::vec;
use std::vec::Vec;

use super::super::{AskSlot, Client, Event, MessageId, Outgoing, SendError, Slot, Status};
use super::model_server::ModelServer;
use crate::codec::AnswerStatus;
use crate::random::Random;
use crate::{Epoch, Seq};

/// By how much a datagram is late that is.
const LATE_US_MAX: u64 = 15_000_000;

/// Both directions of the path behave like this.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    pub(super) delay_us: u64,
    /// Up to this much more, at random: reorders.
    pub(super) jitter_us: u64,
    pub(super) loss_per_mille: u64,
    pub(super) repeat_per_mille: u64,
    /// Time that the bottleneck takes for one datagram to the server; 0: it has no bottleneck.
    pub(super) serialization_us: u64,
    /// Datagrams that wait before the bottleneck; more are lost.
    pub(super) queue_max: u64,
    /// So many come seconds late.
    pub(super) late_per_mille: u64,
}

impl Path {
    pub(super) const CLEAN: Self = Self {
        delay_us: 5_000,
        jitter_us: 0,
        loss_per_mille: 0,
        repeat_per_mille: 0,
        serialization_us: 0,
        queue_max: u64::MAX,
        late_per_mille: 0,
    };
}

/// A part of the datagrams that the client sends one after the other in which the path loses some.
#[derive(Clone, Copy, Debug)]
pub(super) struct Burst {
    /// Datagrams that the client sends before it.
    pub(super) after: usize,
    pub(super) len: usize,
    pub(super) share_percent: u64,
    /// Lost are the server's answers to these, not these.
    pub(super) answers: bool,
}

/// What happens to the server at a time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Incident {
    Crash,
    ForgetSessions,
    Window(u16),
    Credit(u16),
    Refuse(Option<(Option<u16>, crate::codec::RejectCode, u32)>),
    EpochMin(u32),
    /// Room for so many asks.
    AsksMax(usize),
    /// Nothing passes the path until the next `Up`.
    Down,
    Up,
}

#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) channel: u16,
    pub(super) batch: bool,
    pub(super) payload: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum To {
    Server,
    Client,
}

/// Time, number (so that what is simultaneous keeps its order), where to, what.
type Travelling = Reverse<(u64, u64, To, Vec<u8>)>;

/// What stands at the end of the path before a model server, which speaks plain mode only.
pub(super) trait Translate {
    /// Sees every transmission of the client, before the path does anything to it.
    fn sent(&mut self, datagram: &[u8]);
    fn to_server(&mut self, datagram: &[u8]) -> Vec<u8>;
    fn to_client(&mut self, datagram: &[u8]) -> Vec<u8>;
}

pub(super) struct World<M, B, A = [AskSlot; 0], Y = [u8; 0]> {
    pub(super) client: Client<M, B, A, Y>,
    pub(super) server: ModelServer,
    pub(super) path: Path,
    pub(super) translate: Option<std::boxed::Box<dyn Translate>>,
    /// The time of a sync.
    pub(super) sync_us: u64,
    pub(super) now_us: u64,
    pub(super) messages: BTreeMap<MessageId, Message>,
    pub(super) outcomes: BTreeMap<MessageId, Event>,
    /// Which messages ask: each of so many; 0: none.
    pub(super) asks_each: u64,
    /// Asks and what became of them.
    pub(super) asked: BTreeSet<MessageId>,
    pub(super) answers: BTreeMap<MessageId, Status>,
    /// Events that are not the end of a message.
    pub(super) others: Vec<Event>,
    pub(super) incidents: VecDeque<(u64, Incident)>,
    /// Datagrams to the server from this many on are lost.
    pub(super) lose_from: Option<usize>,
    pub(super) burst: Option<Burst>,
    carried_to_server: usize,
    /// When the server got a datagram.
    pub(super) arrivals: Vec<(u64, Vec<u8>)>,
    waiting: VecDeque<Message>,
    travelling: BinaryHeap<Travelling>,
    commit_at_us: Option<u64>,
    bottleneck_free_us: u64,
    down: bool,
    random: Random,
    count: u64,
}

impl<M, B, A, Y> World<M, B, A, Y>
where
    M: AsRef<[Slot]> + AsMut<[Slot]>,
    B: AsRef<[u8]> + AsMut<[u8]>,
    A: AsRef<[AskSlot]> + AsMut<[AskSlot]>,
    Y: AsRef<[u8]> + AsMut<[u8]>,
{
    pub(super) fn new(client: Client<M, B, A, Y>, server: ModelServer, path: Path, seed: u64) -> Self {
        Self {
            client,
            server,
            path,
            translate: None,
            sync_us: 200,
            now_us: 0,
            messages: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            asks_each: 0,
            asked: BTreeSet::new(),
            answers: BTreeMap::new(),
            others: Vec::new(),
            incidents: VecDeque::new(),
            lose_from: None,
            burst: None,
            carried_to_server: 0,
            arrivals: Vec::new(),
            waiting: VecDeque::new(),
            travelling: BinaryHeap::new(),
            commit_at_us: None,
            bottleneck_free_us: 0,
            down: false,
            random: Random::new(seed),
            count: 0,
        }
    }

    pub(super) fn offer(&mut self, messages: impl IntoIterator<Item = Message>) {
        self.waiting.extend(messages);
    }

    /// Runs until every offered message has its outcome and no incident is left. Panics when nothing more will happen
    /// before, or at a virtual time limit.
    pub(super) fn run(&mut self) {
        while !(self.is_settled() && self.incidents.is_empty()) {
            self.step();
        }
    }

    /// All that is under way arrives, though nothing is waited for.
    pub(super) fn arrive_all(&mut self) {
        while let Some(Reverse((at, _, to, datagram))) = self.travelling.pop() {
            self.now_us = self.now_us.max(at);
            self.arrive(to, datagram);
        }
    }

    /// When all that is under way now will have arrived.
    pub(super) fn last_arrival_us(&self) -> u64 {
        self.travelling.iter().map(|Reverse((at, ..))| *at).max().unwrap_or(0)
    }

    /// The application has no more to send than what the client has taken.
    pub(super) fn offer_no_more(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn run_until(&mut self, time_us: u64) {
        while self.next_time_us().is_some_and(|next| next <= time_us) {
            if self.is_settled() && self.incidents.is_empty() {
                break;
            }
            self.step();
        }
        self.now_us = time_us;
    }

    fn is_settled(&self) -> bool {
        let all_told = self.outcomes.len() == self.messages.len() && self.client.asking() == 0;
        self.waiting.is_empty() && self.client.is_idle() && all_told
    }

    /// Lets the application and the client do what they can now, then moves on to the next thing that happens.
    pub(super) fn step(&mut self) {
        self.drain();
        if self.is_settled() && self.incidents.is_empty() {
            return;
        }
        let next = self.next_time_us().expect("the client waits for nothing, and nothing is under way: stuck");
        assert!(next < 100_000_000_000, "not done after a virtual day: {} queued", self.client.queued());
        self.now_us = self.now_us.max(next);
        while self.incidents.front().is_some_and(|(at, _)| *at <= self.now_us) {
            let (_, incident) = self.incidents.pop_front().unwrap();
            self.happen(incident);
        }
        if self.commit_at_us.is_some_and(|at| at <= self.now_us) {
            self.commit_at_us = None;
            for ack in self.server.commit(self.now_us) {
                self.carry(To::Client, ack);
            }
        }
        for answer in self.server.answers.due(self.now_us) {
            self.carry(To::Client, answer);
        }
        while self.travelling.peek().is_some_and(|Reverse((at, ..))| *at <= self.now_us) {
            let Reverse((_, _, to, datagram)) = self.travelling.pop().unwrap();
            self.arrive(to, datagram);
        }
        if self.server.has_uncommitted() && self.commit_at_us.is_none() {
            self.commit_at_us = Some(self.now_us + self.sync_us);
        }
        if self.client.poll_timeout().is_some_and(|at| at <= self.now_us) {
            self.client.handle_timeout(self.now_us);
            assert!(self.client.poll_timeout().is_none_or(|at| at > self.now_us), "a timer that is always due");
        }
        self.drain();
    }

    fn next_time_us(&mut self) -> Option<u64> {
        self.drain();
        let travelling = self.travelling.peek().map(|Reverse((at, ..))| *at);
        let incident = self.incidents.front().map(|(at, _)| *at);
        let answer = self.server.answers.next_us();
        [travelling, incident, answer, self.commit_at_us, self.client.poll_timeout()].into_iter().flatten().min()
    }

    pub(super) fn drain(&mut self) {
        loop {
            while let Some(event) = self.client.poll_event() {
                self.note(event);
            }
            self.note_answers();
            let before = self.waiting.len();
            while let Some(message) = self.waiting.front() {
                let Message { channel, batch, payload } = message;
                let asks = !batch && self.asks_each > 0 && (self.messages.len() as u64).is_multiple_of(self.asks_each);
                let sent = match asks {
                    true => self.client.ask(self.now_us, *channel, payload),
                    false => self.client.send(self.now_us, Outgoing { channel: *channel, batch: *batch, payload }),
                };
                match sent {
                    Ok(id) => {
                        if asks {
                            self.asked.insert(id);
                        }
                        let message = self.waiting.pop_front().unwrap();
                        assert!(self.messages.insert(id, message).is_none(), "{id:?} was given twice");
                    }
                    Err(SendError::Full) => break,
                    Err(error) => panic!("{error:?}"),
                }
            }
            let mut out = vec![0; self.client.datagram_len_max()];
            let mut sent = false;
            while let Some(len) = self.client.poll_transmit(self.now_us, &mut out) {
                sent = true;
                self.carry(To::Server, out[..len].to_vec());
            }
            if !sent && self.waiting.len() == before {
                return;
            }
        }
    }

    fn note(&mut self, event: Event) {
        let message = match event {
            Event::Acked { message, seq, epoch, .. } => {
                self.check_journaled(message, seq, epoch);
                message
            }
            Event::Failed { message, .. } | Event::Abandoned { message } => message,
            other => return self.others.push(other),
        };
        assert!(self.messages.contains_key(&message), "{message:?} was never sent");
        assert!(self.outcomes.insert(message, event).is_none(), "a second outcome: {event:?}");
    }

    /// Each answer comes once, to who asked and was acked, and is the one that the server gave.
    fn note_answers(&mut self) {
        while let Some(answered) = self.client.poll_answer() {
            let id = answered.message.expect("asked in this run");
            assert!(self.asked.contains(&id), "{id:?} never asked");
            let place = match self.outcomes.get(&id) {
                Some(Event::Acked { seq, epoch, .. }) => (*epoch, *seq),
                other => panic!("{id:?} is answered and {other:?}"),
            };
            assert_eq!(place, (answered.epoch, answered.seq), "{id:?}");
            let status = match answered.status {
                Status::Done => AnswerStatus::Done,
                Status::Failed => AnswerStatus::Failed,
                Status::Gone => AnswerStatus::Gone,
            };
            let history = &self.server.answers.history;
            let given = history.iter().find(|(((_, epoch), seq), _)| (*epoch, Seq(*seq)) == place);
            let is_given =
                given.is_some_and(|(_, all)| all.iter().any(|(s, body)| (*s, &body[..]) == (status, answered.body)));
            assert!(is_given || status == AnswerStatus::Gone, "{id:?} has {answered:?}, given was {given:?}");
            assert_eq!(self.answers.insert(id, answered.status), None, "a second answer of {id:?}");
        }
    }

    /// The promise, as far as the protocol goes: what is acked is journaled, byte for byte.
    fn check_journaled(&self, id: MessageId, seq: Seq, epoch: Epoch) {
        let entries = self.server.journal.iter().rev();
        let entry = entries.into_iter().find(|entry| entry.seq == seq && entry.session.1 == epoch);
        let entry = entry.unwrap_or_else(|| panic!("{id:?} was acked as {epoch}/{seq}, which is not journaled"));
        let message = &self.messages[&id];
        assert_eq!(
            (entry.channel, entry.batch, &entry.payload),
            (message.channel, message.batch, &message.payload),
            "{id:?} was acked as {epoch}/{seq}, which is another message"
        );
    }

    fn happen(&mut self, incident: Incident) {
        match incident {
            Incident::Crash => self.server.crash(self.now_us),
            Incident::ForgetSessions => self.server.forget_sessions(self.now_us),
            Incident::Window(window) => self.server.window = window,
            Incident::Credit(credit) => self.server.credit_max = credit,
            Incident::Refuse(refuse) => self.server.refuse = refuse,
            Incident::EpochMin(epoch) => self.server.epoch_min = epoch,
            Incident::AsksMax(most) => self.server.answers.asks_max = most,
            Incident::Down => self.down = true,
            Incident::Up => self.down = false,
        }
    }

    fn arrive(&mut self, to: To, datagram: Vec<u8>) {
        match to {
            To::Server => {
                self.arrivals.push((self.now_us, datagram.clone()));
                let datagram = match &mut self.translate {
                    Some(translate) => translate.to_server(&datagram),
                    None => datagram,
                };
                if let Some(reply) = self.server.receive(self.now_us, &datagram) {
                    self.carry(To::Client, reply);
                }
            }
            // Old acks, of an earlier epoch or of a seq that failed, may be ignored.
            To::Client => _ = self.client.handle_datagram(self.now_us, &mut datagram.clone()),
        }
    }

    fn carry(&mut self, to: To, mut datagram: Vec<u8>) {
        match (&mut self.translate, to) {
            (Some(translate), To::Server) => translate.sent(&datagram),
            (Some(translate), To::Client) => datagram = translate.to_client(&datagram),
            (None, _) => {}
        }
        if to == To::Server {
            self.carried_to_server += 1;
            if self.lose_from.is_some_and(|from| self.carried_to_server > from) {
                return;
            }
        }
        if self.is_lost_in_burst(to) {
            return;
        }
        if self.down || self.random.up_to(999) < self.path.loss_per_mille {
            return;
        }
        let mut leaves_us = self.now_us;
        if to == To::Server && self.path.serialization_us > 0 {
            let waits_us = self.bottleneck_free_us.saturating_sub(self.now_us);
            if waits_us / self.path.serialization_us >= self.path.queue_max {
                return;
            }
            leaves_us += waits_us + self.path.serialization_us;
            self.bottleneck_free_us = leaves_us;
        }
        let copies = if self.random.up_to(999) < self.path.repeat_per_mille { 2 } else { 1 };
        for _ in 0..copies {
            let mut at = leaves_us + self.path.delay_us + self.random.up_to(self.path.jitter_us);
            if self.path.late_per_mille > 0 && self.random.up_to(999) < self.path.late_per_mille {
                at += self.random.up_to(LATE_US_MAX);
            }
            self.count += 1;
            self.travelling.push(Reverse((at, self.count, to, datagram.clone())));
        }
    }
}

impl<M, B, A, Y> World<M, B, A, Y> {
    /// Datagrams that the client has sent.
    pub(super) fn sent(&self) -> usize {
        self.carried_to_server
    }

    fn is_lost_in_burst(&mut self, to: To) -> bool {
        let Some(burst) = self.burst else { return false };
        let number = match to {
            To::Server => self.carried_to_server,
            // The answer to the datagram that has arrived last, as it was counted when it was sent: nothing overtakes here.
            To::Client => self.arrivals.len(),
        };
        let within = (burst.after + 1..=burst.after + burst.len).contains(&number);
        within && burst.answers == (to == To::Client) && self.random.up_to(99) < burst.share_percent
    }
}

/// `count` messages of random lengths up to `len_max`, each different.
pub(super) fn messages(count: usize, len_max: usize, seed: u64) -> Vec<Message> {
    let mut random = Random::new(seed);
    let mut message = |n: usize| {
        let len = usize::try_from(random.up_to(len_max as u64)).unwrap();
        let mut payload: Vec<u8> = (0..len).map(|_| random.next().to_le_bytes()[0]).collect();
        // A number, so that mixing two messages up does not go unnoticed.
        for (byte, number) in payload.iter_mut().zip((n as u64).to_le_bytes()) {
            *byte = number;
        }
        Message { channel: 0, batch: false, payload }
    };
    (0..count).map(&mut message).collect()
}
