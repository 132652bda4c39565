//! The sinks of a server, side by side: the embedded handler or the configured ones, and those that were configured once and
//! keep their place.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::answers::Answering;
use super::cursor::{Cursor, lose_unconfigured};
use super::mailbox::{Mailbox, Wake};
use super::progress::Progress;
use crate::journal::DeadLetterId;
use crate::model::{LaneMessage, Offset, Processed, SinkId, SinkRecord};

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
            wants_checkpoint: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            waiting: Mutex::default(),
        };
        cursors.started_at = cursors.holding().map(Progress::lowest_watermark).min().unwrap_or_default();
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
        self.mailbox.take().or_else(wanted)
    }

    /// Says how the committer is woken when there is something to say to it.
    pub fn wake_by(&self, wake: Wake) {
        self.mailbox.wake_by(wake);
    }

    /// What processing says now of all asks below an offset, beside what the lanes have said before; `None` where nobody answers.
    ///
    /// A lane posts its answers before its watermark moves. So who reads this, and takes the messages until there is none only
    /// after that, has heard all that is said of what lies below.
    pub fn processed(&self) -> Option<Processed> {
        if let Some(answers) = self.that_say(Answering::Bodies).next() {
            // One that was removed says nothing any more.
            let passed = if is_removed(answers) { answers.durable_end() } else { answers.lowest_watermark() };
            return Some(Processed::Passed(passed));
        }
        self.that_say(Answering::Receipts).next()?;
        if let Some(lowest) = self.holding().map(Progress::lowest_watermark).min() {
            if Offset(self.said.load(Ordering::SeqCst)) < self.started_at {
                // Of that alone: what lies between it and the marks of now was processed in this run.
                self.said.fetch_max(self.started_at.0, Ordering::SeqCst);
                return Some(Processed::Passed(self.started_at));
            }
            let said = Offset(self.said.fetch_max(lowest.0, Ordering::SeqCst));
            // A mark that has moved over what is lost makes nothing processed.
            let skipped = self.holding().filter_map(Progress::cursor).any(|cursor| cursor.has_skipped(said, lowest));
            return Some(if skipped { Processed::Passed(lowest) } else { Processed::ByAll(lowest) });
        }
        // Nobody holds what is not processed yet: it may be gone before anybody has it.
        Some(Processed::Passed(self.receiving().map(Progress::lowest_watermark).min().unwrap_or(self.durable_end())))
    }

    /// Those that say this of records that asked.
    fn that_say(&self, answering: Answering) -> impl Iterator<Item = &Progress> {
        self.groups.iter().zip(&self.answering).filter(move |(_, of)| **of == answering).map(|(group, _)| &**group)
    }

    /// Of several of which none answers alone, those that are at work.
    fn receiving(&self) -> impl Iterator<Item = &Progress> {
        self.that_say(Answering::Receipts).filter(|group| !is_removed(group))
    }

    /// Of these, those that hold the journal.
    fn holding(&self) -> impl Iterator<Item = &Progress> {
        self.receiving().filter(|group| group.cursor().is_none_or(Cursor::holds))
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
        for cursor in self.groups.iter().filter_map(|group| group.cursor()) {
            sinks.iter().filter(|record| record.id == cursor.id()).for_each(|record| cursor.stored(record));
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

fn is_removed(group: &Progress) -> bool {
    group.cursor().is_some_and(Cursor::is_removed)
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
