//! The sinks of a server, side by side: the embedded handler or the configured ones, and those that were configured once and
//! keep their place.

use std::collections::BTreeMap;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::answers::Answering;
use super::cursor::lose_unconfigured;
use super::mailbox::{Mailbox, Wake};
use super::passing::Place;
use super::progress::Progress;
use crate::journal::DeadLetterId;
use crate::model::{AskId, LaneAnswer, LaneMessage, Offset, Processed, SinkId, SinkRecord};

/// How far all sinks have come. Shared by the committer, the lanes and whoever asks.
#[derive(Debug)]
pub struct Cursors {
    groups: Vec<Arc<Progress>>,
    /// What each of them says of records that asked, in their order.
    answering: Vec<Answering>,
    /// The highest offset below which all asks have been spoken of.
    said: AtomicU64,
    /// What is open below at the start was not answered before the marks moved beyond it: it was lost, or another sink answered.
    started_at: Offset,
    /// Sinks that are not configured any more. They hold what they have not processed until an operator removes them.
    gone: Mutex<Vec<SinkRecord>>,
    mailbox: Arc<Mailbox<LaneMessage>>,
    /// All sinks have these, though not all marks are beyond them.
    early: Mutex<Vec<LaneAnswer>>,
    /// A checkpoint is wanted soon, whether or not there was room to say so.
    wants_checkpoint: AtomicBool,
    /// The number of the last request that waits for a checkpoint, or has waited.
    asked: AtomicU64,
    /// Who waits for the checkpoint that stores what was asked for.
    waiting: Mutex<Vec<(u64, Sender<()>)>>,
}

impl Cursors {
    /// The sinks that are at work, all with one mailbox, and those that keep their place.
    pub(super) fn new(groups: Vec<(Arc<Progress>, Answering)>, gone: Vec<SinkRecord>) -> Self {
        let (groups, answering): (Vec<_>, Vec<_>) = groups.into_iter().unzip();
        let mailbox = groups.first().map_or_else(Progress::new_mailbox, |group| Arc::clone(group.mailbox()));
        debug_assert!(groups.iter().all(|group| Arc::ptr_eq(group.mailbox(), &mailbox)), "all sinks share a mailbox");
        let mut cursors = Self {
            groups,
            answering,
            said: AtomicU64::new(0),
            started_at: Offset(0),
            gone: Mutex::new(gone),
            mailbox,
            early: Mutex::default(),
            wants_checkpoint: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            waiting: Mutex::default(),
        };
        let places = cursors.that_say(Answering::Receipts).map(Progress::place).filter(|place| !place.released);
        cursors.started_at = places.map(|place| place.passed).min().unwrap_or_default();
        cursors
    }

    /// The sinks that are at work, in the order of the configuration.
    pub fn groups(&self) -> &[Arc<Progress>] {
        &self.groups
    }

    /// The embedded handler, if there is one.
    pub fn embedded(&self) -> Option<&Arc<Progress>> {
        self.groups.iter().find(|group| group.cursor().is_none())
    }

    /// The configured sink of this name, unless it was removed.
    pub fn named(&self, name: &str) -> Option<&Arc<Progress>> {
        let is_named = |group: &&Arc<Progress>| {
            group.cursor().is_some_and(|cursor| &**cursor.name() == name && !cursor.is_removed())
        };
        self.groups.iter().find(is_named)
    }

    /// The sink of this id, if it is at work.
    pub fn of(&self, sink: SinkId) -> Option<&Arc<Progress>> {
        self.groups.iter().find(|group| group.sink() == sink)
    }

    /// The next thing that the lanes of all sinks, or operators, have to say to the committer. Only after `None` may it sleep.
    pub fn next_message(&self) -> Option<LaneMessage> {
        let wanted = || self.wants_checkpoint.swap(false, Ordering::SeqCst).then_some(LaneMessage::Checkpoint);
        // What is said to be done together comes after what a lane has said of the same before: that it was given up.
        self.mailbox.take().or_else(|| self.take_early()).or_else(wanted)
    }

    /// How many messages wait for the committer.
    pub fn messages(&self) -> usize {
        self.mailbox.messages() + usize::from(!self.early().is_empty())
    }

    /// Says how the committer is woken when there is something to say to it.
    pub fn wake_by(&self, wake: Wake) {
        self.mailbox.wake_by(wake);
    }

    /// What processing says now of all asks below some offsets, which grow, beside what the lanes have said before; nothing where nobody
    /// answers.
    ///
    /// A lane posts its answers before its watermark moves. So who reads this, and takes the messages until there is none only
    /// after that, has heard all that is said of what lies below.
    ///
    /// What a sink has lost, what it passes over and that it was removed counts only when a checkpoint has stored it: a crash before
    /// that takes it back, and then an answer comes.
    pub fn processed(&self) -> Vec<Processed> {
        if let Some(answers) = self.that_say(Answering::Bodies).next() {
            let place = answers.place();
            // It answers each by itself, and this is looked at with each commit.
            answers.cursor().iter().for_each(|cursor| cursor.forget_asked(place.passed, |_| false));
            // One that was removed says nothing any more.
            return vec![Processed::Passed(if place.gone { answers.durable_end() } else { place.passed })];
        }
        let all: Vec<_> = self.that_say(Answering::Receipts).map(|group| (group, group.place())).collect();
        if all.is_empty() {
            return Vec::new();
        }
        let holding: Vec<_> = all.iter().filter(|(_, place)| !place.released).collect();
        let Some(lowest) = holding.iter().map(|(_, place)| place.passed).min() else {
            // Nobody holds what is not processed yet: it may be gone before anybody has it.
            let left = all.iter().filter(|(_, place)| !place.gone).map(|(_, place)| place.passed);
            return vec![Processed::Passed(left.min().unwrap_or(self.durable_end()))];
        };
        let early = answered_early(&holding, lowest);
        let (said, at) = self.processed_by_all(&holding, lowest);
        for cursor in all.iter().filter_map(|(group, _)| group.cursor()) {
            cursor.forget_asked(at, |offset| offset >= lowest && !early.contains_key(&offset));
        }
        let answer = |(offset, id)| LaneAnswer { id, offset, failed: false, body: Arc::default() };
        self.early().extend(early.into_iter().map(answer));
        said
    }

    /// What is below the marks of all that hold the journal each of them has processed, but for what one has skipped. Returns also up to
    /// where that is said.
    fn processed_by_all(&self, holding: &[&(&Progress, Place)], lowest: Offset) -> (Vec<Processed>, Offset) {
        let mut said = Vec::new();
        let mut at = Offset(self.said.load(Ordering::SeqCst));
        if at < self.started_at {
            said.push(Processed::Passed(self.started_at));
            at = self.started_at;
        }
        let mut skipped: Vec<_> = holding.iter().flat_map(|(_, place)| place.skipped.iter().copied()).collect();
        skipped.sort_unstable();
        for (first, end) in skipped {
            let (first, end) = (first.min(lowest), end.min(lowest));
            if at < first {
                said.push(Processed::ByAll(first));
                at = first;
            }
            if at < end {
                said.push(Processed::Passed(end));
                at = end;
            }
        }
        if at < lowest {
            said.push(Processed::ByAll(lowest));
            at = lowest;
        }
        self.said.fetch_max(at.0, Ordering::SeqCst);
        (said, at)
    }

    fn take_early(&self) -> Option<LaneMessage> {
        let answers = mem::take(&mut *self.early());
        (!answers.is_empty()).then_some(LaneMessage::Answers(answers))
    }

    fn early(&self) -> MutexGuard<'_, Vec<LaneAnswer>> {
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that say this of records that asked.
    fn that_say(&self, answering: Answering) -> impl Iterator<Item = &Progress> {
        self.groups.iter().zip(&self.answering).filter(move |(_, of)| **of == answering).map(|(group, _)| &**group)
    }

    /// Every entry below is durable.
    pub fn durable_end(&self) -> Offset {
        self.groups.iter().map(|group| group.durable_end()).max().unwrap_or_default()
    }

    /// Every entry below is processed by each sink that is at work, durably. Where all were removed nothing is left to do.
    pub fn lowest_watermark(&self) -> Offset {
        let at_work = self.groups.iter().filter(|group| !group.cursor().is_some_and(|cursor| cursor.is_removed()));
        at_work.map(|group| group.lowest_watermark()).min().unwrap_or_else(|| self.durable_end())
    }

    /// What a checkpoint stores of the configured sinks, and of those that were configured once.
    pub fn records(&self) -> Vec<SinkRecord> {
        let records = self.groups.iter().filter_map(|group| group.record());
        records.chain(self.gone().iter().cloned()).collect()
    }

    /// The sinks that are not configured any more and keep their place.
    pub fn not_configured(&self) -> Vec<SinkRecord> {
        self.gone().clone()
    }

    /// What lies below is trimmed with the next checkpoint: to the sinks that are not configured any more, and hold nothing, it is
    /// lost.
    pub fn trimmed_of_unconfigured(&self, below: Offset, unix_us: u64) {
        self.gone().iter_mut().for_each(|record| lose_unconfigured(record, below, unix_us));
    }

    /// Dead letters that were processed at last, durably, of all sinks.
    pub fn retried(&self) -> Vec<DeadLetterId> {
        self.groups.iter().flat_map(|group| group.retried()).collect()
    }

    /// The number of the last request that what is read after this call covers.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// A checkpoint is durable that has deleted these dead letters, keeps the sinks like this, and covers requests up to this number.
    pub fn checkpointed(&self, retried: &[DeadLetterId], sinks: &[SinkRecord], asked: u64) {
        self.groups.iter().for_each(|group| group.checkpointed(retried));
        let mut is_new = false;
        for cursor in self.groups.iter().filter_map(|group| group.cursor()) {
            is_new |= cursor.stored(sinks.iter().find(|record| record.id == cursor.id()));
        }
        if is_new {
            // Where there is no room the committer hears of it all the same, before it sleeps.
            let _it_is_at_work = self.mailbox.post(LaneMessage::Processed);
        }
        self.waiting().retain(|(number, done)| {
            // Who asked may have gone away meanwhile.
            let is_done = *number <= asked;
            if is_done {
                let _whoever_asked_waits = done.try_send(());
            }
            !is_done
        });
    }

    /// Asks for a checkpoint that stores what has been changed before this call; the answer comes when it is durable. When the
    /// channel closes without an answer, the server has stopped.
    pub(super) fn ask(&self) -> Receiver<()> {
        let (done, answer) = bounded(1);
        self.ask_for(done);
        answer
    }

    /// The same, with an answer to somebody who waits already.
    pub(super) fn ask_for(&self, done: Sender<()>) {
        {
            let mut waiting = self.waiting();
            let number = self.asked.load(Ordering::SeqCst) + 1;
            waiting.push((number, done));
            // Under the lock, so that numbers are in the list before the committer can see them.
            self.asked.store(number, Ordering::SeqCst);
        }
        self.want_checkpoint();
    }

    /// Asks for a checkpoint soon. Never in vain, unlike a message for which there is no room.
    pub fn want_checkpoint(&self) {
        // Before the message: where that finds no room, the committer is at work, and sees this before it sleeps.
        self.wants_checkpoint.store(true, Ordering::SeqCst);
        let _it_is_at_work = self.mailbox.post(LaneMessage::Checkpoint);
    }

    /// Takes away the place of a sink that is not configured any more; whether there is one of this name.
    pub(super) fn forget(&self, name: &str) -> bool {
        let mut gone = self.gone();
        let before = gone.len();
        gone.retain(|record| record.name != name);
        gone.len() < before
    }

    fn gone(&self) -> MutexGuard<'_, Vec<SinkRecord>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<(u64, Sender<()>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What each sink that holds the journal has, be it above the mark of one: a record that this one cannot finish must not hold the
/// receipts of those around it. Of what lies below all marks these speak.
fn answered_early(holding: &[&(&Progress, Place)], lowest: Offset) -> BTreeMap<Offset, AskId> {
    let early = holding.iter().flat_map(|(_, place)| &place.early);
    let by_all =
        |&(offset, _): &(&Offset, &AskId)| *offset >= lowest && holding.iter().all(|(_, place)| place.has(*offset));
    early.filter(by_all).map(|(&offset, &id)| (offset, id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LaneMark, SinkLoss};

    #[test]
    fn what_is_trimmed_is_a_loss_to_a_detached_sink_that_is_not_configured_and_to_no_other() {
        let record = |name: &str, watermark, holds| {
            let id = SinkId(u128::from(name.as_bytes()[0]));
            let mark = LaneMark { watermark: Offset(watermark), sink_state: vec![1] };
            SinkRecord { holds, ..SinkRecord::new(id, name, 7, mark, 1) }
        };
        let gone = vec![record("detached", 10, false), record("holds", 10, true), record("ahead", 90, false)];
        let cursors = Cursors::new(Vec::new(), gone.clone());
        cursors.trimmed_of_unconfigured(Offset(30), 5);
        cursors.trimmed_of_unconfigured(Offset(40), 6);
        let loss = SinkLoss { from: Offset(10), to: Offset(40), entries: 30, unix_us: 6 };
        let mark = LaneMark { watermark: Offset(40), sink_state: vec![1] };
        let untold = Some((Offset(10), Offset(40)));
        let detached = SinkRecord { mark, losses: vec![loss], untold, ..gone[0].clone() };
        assert_eq!(cursors.records(), [detached, gone[1].clone(), gone[2].clone()]);
    }
}
