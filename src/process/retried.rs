//! Dead letters that were processed at last, until a checkpoint has deleted them.
//!
//! A letter goes in the write that stores what its handler's flush returned: were it deleted before, a crash could lose the
//! record; were it deleted after, one could lose track of the fact that it was processed. Whoever asks for the letter
//! meanwhile waits for the same end, so that it is not processed twice.

use crossbeam_channel::Sender;

use crate::journal::DeadLetterId;
use crate::limits;
use crate::model::Lane;

/// Why a dead letter is not processed after all.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RetryError {
    /// It was discarded, or retried with success, before its turn came.
    #[error("there is no such dead letter any more")]
    Gone,
    /// Its lane has too many requests to look after; nothing was done.
    #[error("its lane has {0} dead letters to retry already: try again later")]
    Busy(usize),
    /// Its handler failed again, for this reason; the letter is as it was.
    #[error("{0}")]
    Failed(String),
}

/// Where the end of a retry is reported.
pub(super) type RetryReply = Sender<Result<(), RetryError>>;

#[derive(Debug, Default)]
pub(super) struct RetriedLetters(Vec<Letter>);

#[derive(Debug)]
struct Letter {
    id: DeadLetterId,
    lane: Lane,
    /// A mark that covers it was handed out for the next checkpoint.
    durable: bool,
    waiting: Vec<RetryReply>,
}

impl RetriedLetters {
    /// The lane has processed it. Bounded: a lane takes no more than [`limits::LANE_RETRIES`] before it flushes, and the
    /// checkpoint that is asked for then takes them all.
    pub(super) fn add(&mut self, lane: Lane, id: DeadLetterId, reply: RetryReply) {
        self.0.push(Letter { id, lane, durable: false, waiting: vec![reply] });
    }

    /// Whether it is processed already. Then `reply` hears of the end, or at once that too many wait for it.
    pub(super) fn join(&mut self, id: DeadLetterId, reply: &RetryReply) -> bool {
        let Some(letter) = self.0.iter_mut().find(|letter| letter.id == id) else { return false };
        if letter.waiting.len() < limits::LANE_RETRIES {
            letter.waiting.push(reply.clone());
        } else {
            drop(reply.try_send(Err(RetryError::Busy(limits::LANE_RETRIES))));
        }
        true
    }

    /// How many of the lane are on their way.
    pub(super) fn of_lane(&self, lane: Lane) -> usize {
        self.0.iter().filter(|letter| letter.lane == lane).count()
    }

    /// The lane has flushed, and its mark says so; whether that concerns a letter.
    pub(super) fn flushed(&mut self, lane: Lane) -> bool {
        let mut any = false;
        for letter in self.0.iter_mut().filter(|letter| letter.lane == lane && !letter.durable) {
            letter.durable = true;
            any = true;
        }
        any
    }

    /// What the lane has not flushed is forgotten with its handler: the letters stay as they were.
    pub(super) fn forget_unflushed(&mut self, lane: Lane) {
        self.0.retain(|letter| {
            let forgotten = letter.lane == lane && !letter.durable;
            if forgotten {
                let reason = "the sink was told to go on elsewhere before it had made the record durable";
                let failed = RetryError::Failed(reason.to_owned());
                // Who asked may have gone away meanwhile.
                letter.waiting.iter().for_each(|reply| drop(reply.try_send(Err(failed.clone()))));
            }
            !forgotten
        });
    }

    /// Those that the next checkpoint may delete.
    pub(super) fn durable(&self) -> Vec<DeadLetterId> {
        self.0.iter().filter(|letter| letter.durable).map(|letter| letter.id).collect()
    }

    /// A checkpoint has deleted these.
    pub(super) fn deleted(&mut self, ids: &[DeadLetterId]) {
        self.0.retain(|letter| {
            let deleted = ids.contains(&letter.id);
            if deleted {
                // Who asked may have gone away meanwhile.
                letter.waiting.iter().for_each(|reply| drop(reply.try_send(Ok(()))));
            }
            !deleted
        });
    }
}
