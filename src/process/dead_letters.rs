//! Dead letters: from a record that its handler gave up to what is kept, and back.

use std::sync::Arc;

use rand::rngs::SmallRng;

use super::answers::Answers;
use super::lane_name::LaneName;
use super::retry::{Outage, RetryPolicy};
use crate::journal::{DeadLetter, DeadLetterId, DeadLetterRoom, DeadLetters, NoRoom, StorageError};
use crate::limits;
use crate::metrics::{Metrics, SinkMetrics};
use crate::model::{Content, Now, Record, SinkId};

/// Where one lane's dead letters go. Without room for them it waits.
pub(super) struct Burial {
    name: LaneName,
    dead: Arc<dyn DeadLetters>,
    room: DeadLetterRoom,
    /// Dead letters have no room at present.
    outage: Outage,
    metrics: Metrics,
    /// A configured sink has metrics of its own; `None` for an embedded handler.
    of_sink: Option<SinkMetrics>,
}

/// A record that is to become a dead letter.
#[derive(Debug)]
pub(super) struct GivenUp {
    /// Its number among all records of the batch, from 0.
    pub(super) nth: usize,
    pub(super) attempts: u16,
    /// What its handler said last.
    pub(super) reason: String,
    pub(super) since_unix_us: u64,
}

impl Burial {
    pub(super) fn new(name: LaneName, dead: Arc<dyn DeadLetters>, room: DeadLetterRoom, metrics: &Metrics) -> Self {
        let of_sink = name.sink().map(|sink| metrics.of_sink(sink));
        Self { name, dead, room, outage: Outage::default(), metrics: metrics.clone(), of_sink }
    }

    /// Until when to leave it alone, in microseconds of the monotonic clock; `None` when it may be tried.
    pub(super) fn wait_until(&self, now: Now) -> Option<u64> {
        self.outage.wait_until(now.mono_us)
    }

    /// Whether it waits for room.
    pub(super) fn waits(&self) -> bool {
        self.outage.is_on()
    }

    /// A dead letter, if it is still there.
    pub(super) fn get(&self, id: DeadLetterId) -> Result<Option<DeadLetter>, StorageError> {
        self.dead.get(id)
    }

    /// Makes dead letters of what is given up, as soon as there is room: one write for all, but that it takes no more memory
    /// than it may. `records` are all of the batch. Who has asked hears that it failed.
    ///
    /// # Errors
    /// A dead letter could not be stored. The server must stop.
    pub(super) fn bury(
        &mut self,
        now: Now,
        records: &[Record<'_>],
        given_up: &mut Vec<GivenUp>,
        (policy, rng): (&RetryPolicy, &mut SmallRng),
        answers: &mut Answers,
    ) -> Result<(), StorageError> {
        if given_up.is_empty() || self.outage.wait_until(now.mono_us).is_some() {
            return Ok(());
        }
        let mut letters = Vec::new();
        let mut buried = 0;
        let mut no_room = None;
        while buried < given_up.len() && no_room.is_none() {
            letters.clear();
            let mut bytes = 0;
            for left in &given_up[buried..] {
                let (record, reason) = (&records[left.nth], left.reason.clone());
                let mut letter = letter(self.name.id(), record, reason, left.attempts, left.since_unix_us);
                letter.told_failed = answers.will_tell(record);
                bytes += letter.payload.len() + letter.error.len() + limits::DEAD_LETTER_BYTES;
                letters.push(letter);
                if bytes >= limits::DEAD_LETTERS_WRITE_BYTES {
                    break;
                }
            }
            let mut kept = self.dead.put_all(&letters, self.room)?;
            if let Err(NoRoom::Letters { kept: others, letters_max }) = kept
                && others < letters_max
            {
                letters.truncate(usize::try_from(letters_max - others).unwrap_or(usize::MAX));
                kept = self.dead.put_all(&letters, self.room)?;
            }
            match kept {
                Ok(()) => {
                    buried += letters.len();
                    self.metrics.dead_letters.inc_by(letters.len() as u64);
                    if let Some(metrics) = &self.of_sink {
                        metrics.dead_letters.inc_by(letters.len() as u64);
                    }
                    let (sink, lane, first) = (self.name.sink(), self.name.number(), &letters[0]);
                    let (offset, index, attempts) = (first.id.offset.0, first.id.index, first.attempts);
                    let (records, reason) = (letters.len(), &first.error);
                    tracing::warn!(
                        sink,
                        lane,
                        offset,
                        index,
                        attempts,
                        records,
                        reason,
                        "a record became a dead letter"
                    );
                }
                Err(problem) => no_room = Some(problem),
            }
        }
        given_up.drain(..buried).for_each(|left| answers.failed(&records[left.nth]));
        if let Some(problem) = no_room {
            if self.outage.failed(now.mono_us, false, policy, rng) {
                tracing::error!(sink = self.name.sink(), lane = self.name.number(), %problem, "there is no room for dead letters; the lane waits");
            }
        } else if let Some(waited) = self.outage.over(now.mono_us) {
            tracing::info!(
                sink = self.name.sink(),
                lane = self.name.number(),
                ?waited,
                "there is room for dead letters again"
            );
        }
        Ok(())
    }
}

/// The letter for a record that the sink gave up at `since_unix_us`, of which nobody is told.
pub(super) fn letter(
    sink: SinkId,
    record: &Record<'_>,
    error: String,
    attempts: u16,
    since_unix_us: u64,
) -> DeadLetter {
    let (payload, gap_from) = match record.content {
        Content::Payload(payload) => (payload.to_vec(), None),
        Content::Gap { from, .. } => (Vec::new(), Some(from)),
    };
    DeadLetter {
        id: DeadLetterId { offset: record.offset, index: record.index, sink },
        session: record.session,
        seq: record.seq,
        channel: record.channel,
        received_unix_us: record.received_unix_us,
        payload,
        gap_from,
        error,
        attempts,
        since_unix_us,
        told_failed: false,
    }
}

/// The record as its handler saw it.
pub(super) fn record(letter: &DeadLetter) -> Record<'_> {
    Record {
        offset: letter.id.offset,
        index: letter.id.index,
        session: letter.session,
        seq: letter.seq,
        channel: letter.channel,
        received_unix_us: letter.received_unix_us,
        // Who asked has heard that it failed.
        asks: false,
        content: match letter.gap_from {
            Some(from) => Content::Gap { from, to: letter.seq },
            None => Content::Payload(&letter.payload),
        },
    }
}
