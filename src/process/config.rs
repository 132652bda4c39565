//! How lanes batch, flush and retry.

use std::time::Duration;

use super::answers::Answering;
use super::retry::RetryPolicy;
use crate::journal::DeadLetterRoom;
use crate::limits;

/// How lanes batch, flush and retry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneConfig {
    /// When a record that failed is presented again, and when no more. Its delays also space the tries of a sink that is away.
    pub retry: RetryPolicy,
    /// A call of a handler gets no further entry from this many records on. An entry is never split.
    pub batch_records_max: usize,
    /// A call of a handler gets no further entry from this many bytes of entries on.
    pub batch_bytes_max: usize,
    /// So long a record may wait for others to fill a call. Zero: a call takes what is there.
    pub batch_delay: Duration,
    /// A handler is flushed from this many records on.
    pub flush_records_max: usize,
    /// A handler is flushed after this many bytes of entries, other lanes' included: the journal is trimmed behind the flush.
    pub flush_bytes_max: usize,
    /// A record waits for its flush no longer than this (and the batch that is at work).
    pub flush_interval: Duration,
    /// What dead letters may take of the disk.
    pub dead_letter_room: DeadLetterRoom,
    /// What is said of records that asked.
    pub answering: Answering,
    /// Bytes of an answer; a longer one is refused to the handler.
    pub answer_bytes_max: usize,
}

impl Default for LaneConfig {
    fn default() -> Self {
        Self {
            retry: RetryPolicy::default(),
            batch_records_max: limits::LANE_BATCH_RECORDS,
            batch_bytes_max: limits::LANE_BATCH_BYTES,
            batch_delay: Duration::ZERO,
            flush_records_max: limits::LANE_FLUSH_RECORDS,
            flush_bytes_max: limits::LANE_FLUSH_BYTES,
            flush_interval: Duration::from_millis(50),
            dead_letter_room: DeadLetterRoom::ANY,
            answering: Answering::Nothing,
            answer_bytes_max: limits::LANE_ANSWER_BYTES,
        }
    }
}
