//! Encodes replies, and seals them with the keys of what they answer.
//!
//! Everything that a server seals takes its number from the one counter here, whose limit is on disk before it is reached
//! (PROTOCOL.md#sealed-server-counter).

use std::sync::Arc;

use duragram_proto::ClientId;
use duragram_proto::codec::{Answer, Datagram, SEALED_ACK_LEN_MAX, SEALED_MIN_LEN};
use duragram_proto::seal::ServerCounter;

use crate::dialect::duragram::Request;
use crate::keys::SessionKeys;
use crate::limits;
use crate::metrics::Metrics;
use crate::model::{Now, Peer};
use crate::net::{ReplyQueue, Transmit};
use crate::rate::{self, Buckets};

/// Where a reply goes, what it must fit, and how it is sealed.
#[derive(Clone, Debug)]
pub(super) struct ReplyTo {
    pub(super) peer: Peer,
    /// Length of the datagram that is answered, in bytes.
    pub(super) len: usize,
    /// When that arrived, in monotonic microseconds.
    pub(super) arrived_us: u64,
    /// The keys that the datagram was sealed with; `None` if it came plain.
    pub(super) keys: Option<Arc<SessionKeys>>,
}

impl ReplyTo {
    #[inline]
    pub(super) fn to(item: &Request, arrived_us: u64) -> Self {
        let keys = item.seal.as_ref().map(|seal| Arc::clone(&seal.keys));
        Self { peer: item.peer, len: item.len, arrived_us, keys }
    }
}

/// The types of replies, as the metrics count them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Ack,
    Reject,
    Welcome,
    Answer,
}

/// Encodes and seals replies, and bounds how many REJECTs a source hears.
#[derive(Debug)]
pub(super) struct Replier {
    counter: ServerCounter,
    /// The highest limit that was to be stored so far.
    limit_asked: u64,
    now: Now,
    /// REJECTs of what came plain, for each source.
    rejects: Buckets,
    /// REJECTs of what came sealed, for each client: what others send from its address takes nothing from them.
    sealed_rejects: Buckets,
    sent: [u64; 4],
    /// For what is longer than an ACK.
    buffer: Vec<u8>,
    unsealable: u64,
    limited: u64,
}

impl Replier {
    /// A replier of which no limit is stored yet: it seals nothing.
    pub(super) fn new() -> Self {
        Self {
            // The time comes with the first reply.
            counter: ServerCounter::resume(0, 0),
            limit_asked: 0,
            now: Now::default(),
            rejects: Buckets::new(limits::SOURCE_BUCKETS, limits::REFUSALS_PER_S, limits::REFUSALS_BURST),
            sealed_rejects: Buckets::new(limits::SOURCE_BUCKETS, limits::REFUSALS_PER_S, limits::REFUSALS_BURST),
            sent: [0; 4],
            buffer: Vec::new(),
            unsealable: 0,
            limited: 0,
        }
    }

    /// Goes on at the limit that was stored last, 0 if none ever was.
    pub(super) fn resume(&mut self, counter_limit: u64) {
        self.counter = ServerCounter::resume(counter_limit, 0);
        self.limit_asked = counter_limit;
    }

    /// What follows happens at this time.
    pub(super) fn set_time(&mut self, now: Now) {
        self.now = now;
    }

    /// The limit to be stored with the next commit, if it is time for one. Never below one that a commit under way stores: the
    /// record on disk is the last one written, and the clock may have been set back between two commits.
    pub(super) fn limit_due(&mut self) -> Option<u64> {
        let due = self.counter.limit_due(unix_ns(self.now))?;
        self.limit_asked = self.limit_asked.max(due);
        Some(self.limit_asked)
    }

    /// The limit is on disk.
    pub(super) fn limit_stored(&mut self, limit: u64) {
        self.counter.limit_stored(limit);
    }

    /// Adds a reply. One that cannot be sealed now is not sent: whoever asked asks again.
    pub(super) fn push<T: Transmit>(
        &mut self,
        to: &ReplyTo,
        kind: Kind,
        reply: &Datagram<'_>,
        replies: &mut ReplyQueue<T>,
    ) {
        self.encode(to, kind, reply, &mut [0; SEALED_ACK_LEN_MAX], replies);
    }

    /// Adds an ANSWER, as [`push`](Self::push) does.
    pub(super) fn answer<T: Transmit>(&mut self, to: &ReplyTo, answer: &Answer<'_>, replies: &mut ReplyQueue<T>) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(buffer.len().max(SEALED_MIN_LEN + answer.body.len()), 0);
        self.encode(to, Kind::Answer, &Datagram::Answer(*answer), &mut buffer, replies);
        self.buffer = buffer;
    }

    fn encode<T: Transmit>(
        &mut self,
        to: &ReplyTo,
        kind: Kind,
        reply: &Datagram<'_>,
        buffer: &mut [u8],
        replies: &mut ReplyQueue<T>,
    ) {
        let encoded = match &to.keys {
            None => reply.encode(buffer),
            Some(keys) => {
                let Some(number) = self.counter.take(unix_ns(self.now)) else {
                    self.unsealable += 1;
                    return;
                };
                reply.seal(keys, number, buffer)
            }
        };
        let len = encoded.expect("no reply is longer than an ACK with a full bitmap, or the room made for an ANSWER");
        replies.push(to.peer, to.len, &buffer[..len]);
        self.sent[kind as usize] += 1;
    }

    /// Whether one more refusal may go to who asked in this client's name.
    pub(super) fn may_refuse(&mut self, to: &ReplyTo, client: ClientId) -> bool {
        let allowed = rate::source(to.peer.addr).is_none_or(|source| match to.keys {
            Some(_) => self.sealed_rejects.allows(client, self.now.mono_us),
            None => self.rejects.allows(source, self.now.mono_us),
        });
        self.limited += u64::from(!allowed);
        allowed
    }

    /// Counts in the metrics what was made and what was withheld since the last report.
    pub(super) fn report(&mut self, metrics: &Metrics) {
        let [acks, rejects, welcomes, answers] = std::mem::take(&mut self.sent);
        metrics.replies_sent("ack", acks);
        metrics.replies_sent("reject", rejects);
        metrics.replies_sent("welcome", welcomes);
        metrics.replies_sent("answer", answers);
        metrics.replies_withheld("limited", std::mem::take(&mut self.limited));
        metrics.replies_withheld("unsealable", std::mem::take(&mut self.unsealable));
    }
}

fn unix_ns(now: Now) -> u64 {
    now.unix_us.saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_to_be_stored_after_the_clock_was_set_back_is_not_below_one_under_way() {
        let mut replier = Replier::new();
        let hour_us = 3_600_000_000;
        replier.set_time(Now { mono_us: 1, unix_us: 1_000_000 * hour_us });
        let first = replier.limit_due().expect("none is stored yet");
        replier.set_time(Now { mono_us: 2, unix_us: 999_999 * hour_us });
        assert_eq!(replier.limit_due(), Some(first), "the second record would take the place of the first");
        replier.set_time(Now { mono_us: 3, unix_us: 1_000_001 * hour_us });
        assert!(replier.limit_due() > Some(first));
    }
}
