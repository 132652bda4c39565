//! Making ANSWERs. Whatever says more than GONE takes the receipt of the commit that it rests on.

use std::sync::Arc;

use duragram_proto::codec::{Answer, AnswerStatus, MIN_LEN, SEALED_MIN_LEN};

use crate::dialect::duragram::replier::{Replier, ReplyTo};
use crate::journal::Durable;
use crate::limits;
use crate::model::{AnswerRecord, AskId};
use crate::net::{ReplyQueue, Transmit};

/// An ANSWER that is due when the commit has landed that it rests on.
#[derive(Debug)]
pub(in crate::dialect::duragram) struct Due {
    pub(super) to: ReplyTo,
    pub(super) id: AskId,
    pub(super) says: Says,
    pub(super) rests_on: u64,
}

/// An ANSWER says one of these.
#[derive(Clone, Debug)]
pub(super) enum Says {
    /// It was finished, or given up.
    Answered { failed: bool, body: Arc<[u8]> },
    /// It is on disk, and not answered: to be asked for again.
    Pending { retry_after_ms: u32 },
    /// No answer will come: it was had before, has expired or was lost.
    Gone,
}

const _: () = assert!(size_of::<Due>() <= limits::DUE_ANSWER_BYTES);

impl Says {
    pub(super) fn of(answer: &AnswerRecord) -> Self {
        Self::Answered { failed: answer.failed, body: Arc::clone(&answer.body) }
    }
}

impl Due {
    /// Whether all that it rests on has landed.
    pub(in crate::dialect::duragram) fn rests_on_what_landed(&self, landed: u64) -> bool {
        self.rests_on <= landed
    }

    /// Adds the ANSWER to the replies. `receipt` stands for the commit that it rests on.
    pub(in crate::dialect::duragram) fn send<T: Transmit>(
        &self,
        receipt: &Durable,
        replier: &mut Replier,
        replies: &mut ReplyQueue<T>,
    ) {
        let _proof = receipt.end();
        let Self { to, id, says, .. } = self;
        let (status, number, body) = match says {
            Says::Answered { failed, body } => {
                let status = if *failed { AnswerStatus::Failed } else { AnswerStatus::Done };
                // PROTOCOL.md#no-amplification: the body whole or not at all.
                let least = if to.keys.is_some() { SEALED_MIN_LEN } else { MIN_LEN };
                let fits = least + body.len() <= to.len;
                (status, u32::try_from(body.len()).unwrap_or(u32::MAX), if fits { &body[..] } else { &[] })
            }
            Says::Pending { retry_after_ms } => (AnswerStatus::Pending, *retry_after_ms, &[][..]),
            Says::Gone => return gone(*id, to, replier, replies),
        };
        let (client, epoch) = (id.session.client, id.session.epoch);
        replier.answer(to, &Answer { client, epoch, seq: id.seq, status, number, body }, replies);
    }
}

/// Adds an ANSWER that no answer will come, which says nothing of what is durable.
pub(super) fn gone<T: Transmit>(id: AskId, to: &ReplyTo, replier: &mut Replier, replies: &mut ReplyQueue<T>) {
    let (client, epoch, status) = (id.session.client, id.session.epoch, AnswerStatus::Gone);
    replier.answer(to, &Answer { client, epoch, seq: id.seq, status, number: 0, body: &[] }, replies);
}
