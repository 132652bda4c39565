//! A dialect whose every message asks, lanes that answer whenever the committer looks away, and a committer between the two.

use std::collections::{BTreeMap, VecDeque};
use std::sync::MutexGuard;

use super::super::*;
use crate::dialect::{Admit, Dialect, InvalidRecord, Touched, Work};
use crate::journal::{Records, Replay};
use crate::limits;
use crate::model::{
    AnswerRecord, AnswersRecord, AskId, AskRecord, AskTotals, DialectId, EntryMeta, LaneAnswer, LaneMessage, Processed,
    SinkId, SinkRecord,
};
use crate::net::ReplyQueue;

fn id(offset: u64) -> AskId {
    AskId { session: SessionId { client: ClientId(1), epoch: Epoch::new(1).unwrap() }, seq: Seq(offset + 1) }
}

fn ask(offset: u64) -> AskRecord {
    AskRecord { id: id(offset), offset: Offset(offset), answer: None }
}

/// What a lane says of the entry at an offset.
pub(super) fn answer(offset: u64) -> LaneMessage {
    let body = offset.to_be_bytes()[..].into();
    LaneMessage::Answers(vec![LaneAnswer { id: id(offset), offset: Offset(offset), failed: false, body }])
}

/// So many messages come with each receive.
pub(super) struct Pass(pub(super) usize);

impl Admit for Pass {
    type Request = ();
    type Dropped = ();

    fn admit(&mut self, _: &mut Slab, requests: &mut Vec<()>, (): &mut ()) {
        requests.resize(self.0, ());
    }
}

/// What it has done, for tests to look at.
#[derive(Default)]
pub(super) struct Seen {
    /// Offsets whose answers are durable, as what was written to the journal says.
    pub(super) durable: BTreeMap<u64, AnswerRecord>,
    /// Offsets that were told, in order.
    pub(super) told: Vec<u64>,
}

/// Journals an entry for each message, and keeps what it asks.
pub(super) struct Asking {
    asks: BTreeMap<u64, AskRecord>,
    next: u64,
    changed: VecDeque<u64>,
    answered: Vec<AskRecord>,
    number: u64,
    below: u64,
    seen: Arc<Mutex<Seen>>,
}

impl Asking {
    pub(super) fn new(seen: &Arc<Mutex<Seen>>) -> Self {
        Self {
            asks: BTreeMap::new(),
            next: 0,
            changed: VecDeque::new(),
            answered: Vec::new(),
            number: 0,
            below: 0,
            seen: Arc::clone(seen),
        }
    }

    /// The lowest offset that has no answer.
    pub(super) fn first_open(&self) -> u64 {
        self.asks.values().find(|ask| ask.answer.is_none()).map_or(self.next, |ask| ask.offset.0)
    }
}

impl Dialect for Asking {
    const ID: DialectId = DialectId::DURAGRAM;
    type Admission = Pass;
    type Owed = Vec<u64>;

    fn replay(&mut self, replay: Replay<'_>) {
        match replay {
            Replay::Ask(ask) => drop(self.asks.insert(ask.offset.0, ask)),
            Replay::Answers(record) => {
                self.number = record.number + 1;
                self.asks.extend(record.answers.into_iter().map(|ask| (ask.offset.0, ask)));
            }
            Replay::Block(block) => {
                assert!(block.has_asks());
                for entry in block.entries() {
                    self.asks.entry(entry.offset.0).or_insert_with(|| ask(entry.offset.0));
                }
            }
            _ => {}
        }
        self.next = self.asks.len() as u64;
    }

    fn replayed(&mut self) -> Result<(), InvalidRecord> {
        self.changed.extend(self.asks.keys());
        Ok(())
    }

    fn begin(&mut self, _: Now) {}

    fn absorb<T: Transmit>(&mut self, (): &(), _: &Slab, work: &mut Work<'_, T>) {
        let meta = EntryMeta {
            dialect: DialectId::DURAGRAM,
            session: id(self.next).session,
            seq: id(self.next).seq,
            span: 0,
            skip: false,
            batch: false,
            asks: true,
            sealed: false,
            channel: 0,
            received_unix_us: 1,
        };
        work.block.push(&meta, b"a question");
        self.asks.insert(self.next, ask(self.next));
        self.changed.push_back(self.next);
        self.next += 1;
    }

    fn end(&mut self, (): &()) {}

    fn is_full(&self) -> bool {
        false
    }

    fn close<T: Transmit>(
        &mut self,
        _: &Durable,
        owed: &mut Vec<u64>,
        _: &mut ReplyQueue<T>,
        _: u16,
        _: Now,
    ) -> Records {
        if self.answered.is_empty() {
            return Records::default();
        }
        owed.extend(self.answered.iter().map(|ask| ask.offset.0));
        let answers = Some(AnswersRecord { number: self.number, answers: std::mem::take(&mut self.answered) });
        self.number += 1;
        Records { answers, ..Records::default() }
    }

    fn landed(&mut self, _: &Durable, _: &Vec<u64>) {}

    fn answer<T: Transmit>(&mut self, _: &Durable, owed: &mut Vec<u64>, _: &mut ReplyQueue<T>, _: u16, _: Now) {
        let mut seen = self.seen.lock().unwrap();
        assert!(owed.iter().all(|offset| seen.durable.contains_key(offset)), "told before it is durable: {owed:?}");
        seen.told.append(owed);
    }

    fn answered(&mut self, answers: Vec<LaneAnswer>, _: Now) {
        for answer in answers {
            let Some(ask) = self.asks.get_mut(&answer.offset.0).filter(|ask| ask.answer.is_none()) else { continue };
            ask.answer = Some(AnswerRecord { failed: answer.failed, body: answer.body, answered_s: 1 });
            self.changed.push_back(ask.offset.0);
            self.answered.push(ask.clone());
        }
    }

    fn processed(&mut self, processed: Processed, _: Now) {
        let Processed::Passed(below) = processed else { panic!("{processed:?}") };
        let open = self.first_open();
        assert!(
            open >= below.0,
            "what was said of entry {open} was not heard, and all below {below} is said to be processed"
        );
    }

    fn begin_checkpoint(&mut self, _: Now) -> usize {
        self.below = self.number;
        self.changed.len()
    }

    fn take_touched(&mut self, count_max: usize, _: usize) -> Touched {
        // In small pieces, so that a checkpoint takes several commits.
        let taken: Vec<u64> = self.changed.drain(..self.changed.len().min(count_max).min(5)).collect();
        let asks = taken.iter().map(|offset| self.asks[offset].clone()).collect();
        Touched { taken: taken.len(), asks, ..Touched::default() }
    }

    fn take_expired(&mut self) -> Vec<SessionId> {
        Vec::new()
    }

    fn answers_below(&self) -> u64 {
        self.below
    }

    fn asks(&self) -> AskTotals {
        let open = self.asks.values().filter(|ask| ask.answer.is_none()).count();
        AskTotals { open, answered: self.asks.len() - open, ..AskTotals::default() }
    }

    fn sessions(&self) -> usize {
        0
    }
}

/// One sink's lane, as the committer's thread may find it at any moment.
#[derive(Default)]
pub(super) struct Lane {
    /// Entries below are durable, and it may process them.
    pub(super) end: u64,
    /// It has said what became of all below.
    pub(super) said: u64,
    pub(super) mark: u64,
    pub(super) mailbox: VecDeque<LaneMessage>,
    /// It says something whenever it is listened to.
    pub(super) chatters: bool,
    /// Decides how far it comes while the committer does something else; 0 lets it rest.
    pub(super) seed: u64,
    pub(super) wake: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Lane {
    /// Goes on by some steps, each of which the committer may see: an answer is said, and then the mark moves.
    fn go_on(&mut self) {
        if self.seed == 0 {
            return;
        }
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        for _ in 0..(self.seed >> 33) % 4 {
            if self.mark < self.said {
                self.mark = self.said;
            } else if self.said < self.end && self.mailbox.len() < limits::LANE_MESSAGES {
                self.mailbox.push_back(answer(self.said));
                self.said += 1;
            }
        }
    }

    pub(super) fn post(&mut self, message: LaneMessage) {
        self.mailbox.push_back(message);
        if let Some(wake) = &self.wake {
            wake();
        }
    }
}

#[derive(Clone, Default)]
pub(super) struct Sink(pub(super) Arc<Mutex<Lane>>);

impl Sink {
    pub(super) fn lane(&self) -> MutexGuard<'_, Lane> {
        self.0.lock().unwrap()
    }

    fn looked_at(&self) -> MutexGuard<'_, Lane> {
        let mut lane = self.lane();
        lane.go_on();
        lane
    }
}

impl Downstream for Sink {
    fn committed(&mut self, receipt: &Durable) {
        self.looked_at().end = receipt.end().0;
    }

    fn marks(&self) -> Vec<LaneMark> {
        drop(self.looked_at());
        Vec::new()
    }

    fn sinks(&self) -> Vec<SinkRecord> {
        let mark = LaneMark { watermark: Offset(self.looked_at().mark), sink_state: Vec::new() };
        vec![SinkRecord { holds: true, ..SinkRecord::new(SinkId(1), "answers", 7, mark, 1) }]
    }

    fn next_message(&mut self) -> Option<LaneMessage> {
        let mut lane = self.looked_at();
        if lane.chatters {
            lane.mailbox.push_back(LaneMessage::Processed);
        }
        lane.mailbox.pop_front()
    }

    fn messages(&self) -> usize {
        self.looked_at().mailbox.len()
    }

    fn processed(&self) -> Vec<Processed> {
        vec![Processed::Passed(Offset(self.looked_at().mark))]
    }

    fn wake_by(&mut self, wake: Box<dyn Fn() + Send + Sync>) {
        self.lane().wake = Some(wake);
    }

    fn trimmed(&mut self, _: Offset, _: Now) {
        drop(self.looked_at());
    }

    fn former(&self, _: &[LaneMark]) -> Vec<crate::model::FormerLanes> {
        drop(self.looked_at());
        Vec::new()
    }
}

pub(super) type Asker = Committer<Asking, MemoryJournal, Wire, Sink>;

/// A server without threads and sockets whose clients ask.
pub(super) struct AskRig {
    pub(super) disk: MemoryDisk,
    pub(super) hand: MemoryHand,
    pub(super) committer: Asker,
    pub(super) sink: Sink,
    pub(super) seen: Arc<Mutex<Seen>>,
    pub(super) clock: TestClock,
}

impl AskRig {
    pub(super) fn new() -> Self {
        Self::on(MemoryDisk::default())
    }

    /// On a disk whose every write is held against what is durable.
    pub(super) fn on(disk: MemoryDisk) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let mut recovery = Recovery::new(Asking::new(&seen));
        let opened = disk.open(&mut |replay| recovery.apply(replay));
        let mark = opened.sinks.first().map_or(0, |sink| sink.mark.watermark.0);
        let recovered = recovery.finish(&opened).unwrap();
        let first_open = recovered.dialect.first_open();
        assert!(mark <= first_open, "the ask of entry {first_open} is below the sink's mark {mark}, and has no answer");
        let answered = recovered.dialect.asks.iter().filter_map(|(offset, ask)| Some((*offset, ask.answer.clone()?)));
        seen.lock().unwrap().durable = answered.collect();
        let sink = Sink::default();
        {
            let mut lane = sink.lane();
            (lane.end, lane.said, lane.mark) = (opened.end.0, mark, mark);
        }
        let (journal, metrics) = (opened.journal, Metrics::register(&mut Registry::default()));
        let hand = journal.hand();
        let committer =
            Committer::new(config().committer(), recovered, journal, Wire::default(), sink.clone(), metrics);
        let rig = Self { disk, hand, committer, sink, seen, clock: TestClock::default() };
        rig.fate(|| WriteFate::Durable);
        rig
    }

    /// From now on this becomes of writes, each of which is looked at.
    pub(super) fn fate(&self, mut fate: impl FnMut() -> WriteFate + Send + 'static) {
        let seen = Arc::clone(&self.seen);
        self.disk.on_write(move |write| {
            let fate = fate();
            if fate == WriteFate::Durable {
                seen.lock().unwrap().hold_against(write);
            }
            fate
        });
    }

    pub(super) fn absorb(&mut self, messages: usize) {
        let mut arrivals = Arrivals::new(Slab::new(0));
        arrivals.slab.arrived = self.clock.now();
        arrivals.admit(&mut Pass(messages));
        self.committer.absorb(&arrivals, &self.clock).unwrap();
    }

    pub(super) fn commit(&mut self) {
        self.committer.commit(&self.clock).unwrap();
    }

    pub(super) fn told(&self) -> Vec<u64> {
        self.seen.lock().unwrap().told.clone()
    }

    /// Starts again from the disk alone, as after a SIGKILL.
    pub(super) fn restart(self) -> Self {
        Self::on(self.disk)
    }
}

impl Seen {
    fn hold_against(&mut self, write: Write<'_>) {
        let Write::Commit { checkpoint, records, .. } = write else { return };
        let answered = records.answers.iter().flat_map(|record| &record.answers).chain(&records.asks);
        for ask in answered {
            let Some(answer) = &ask.answer else { continue };
            let first = self.durable.entry(ask.offset.0).or_insert_with(|| answer.clone());
            assert_eq!(first, answer, "entry {} was answered in two ways", ask.offset);
        }
        let Some(checkpoint) = checkpoint else { return };
        for sink in &checkpoint.sinks {
            let mark = sink.mark.watermark;
            let open = (0..mark.0).find(|offset| !self.durable.contains_key(offset));
            assert_eq!(open, None, "a checkpoint stores mark {mark}, and this entry has no durable answer");
        }
    }
}
