//! Who waits for which answer.

use duragram_proto::client::{Answered, AskSlot, MessageId, SendError as MachineError};
use duragram_proto::{Epoch, Seq};
use tokio::sync::oneshot;

use super::{Core, Intake, Outcome, Refused, Tickets};
use crate::answer::Answer;
use crate::{AskConfig, SendError};

/// What an ask ends with.
pub(crate) type AnswerOutcome = Result<Answer, SendError>;

/// An ask as its caller names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asker {
    /// A record of this run asked.
    Message(MessageId),
    /// A record of an earlier run asked, and had this epoch and seq.
    Place(Epoch, Seq),
}

/// A record that asks and was taken.
#[derive(Debug)]
pub(crate) struct PushedAsk {
    pub(crate) message: MessageId,
    pub(crate) receipt: oneshot::Receiver<Outcome>,
    pub(crate) answer: oneshot::Receiver<AnswerOutcome>,
}

/// At most as many as the machine has slots for.
pub(super) type Askers = Vec<(Asker, oneshot::Sender<AnswerOutcome>)>;

/// The machine's memory for asks: of this client, `datagram_bytes_max` for one body at a time, since each is handed out
/// before the next datagram is looked at.
pub(crate) fn memory(datagram_bytes_max: usize) -> (Vec<AskSlot>, Vec<u8>) {
    (vec![AskSlot::EMPTY; duragram_proto::client::ASKS_MAX], vec![0; datagram_bytes_max])
}

/// How answers are taken unless the caller says otherwise.
pub(crate) const DEFAULT: AskConfig = AskConfig::HELD;

impl Core {
    /// Takes a record that asks, if there is room; `None` when there is none now. It never shares a datagram.
    pub(crate) fn push_ask(&mut self, now_us: u64, channel: u16, record: &[u8]) -> Result<Option<PushedAsk>, Refused> {
        self.check_intake(record)?;
        // What was given before goes before.
        if !self.batch.tickets.is_empty() && !self.send_batch(now_us) {
            return Ok(None);
        }
        let message = match self.machine.ask(now_us, channel, record) {
            Ok(message) => message,
            Err(MachineError::Full | MachineError::EpochUsed) => return Ok(None),
            Err(error @ (MachineError::TooLarge | MachineError::BrokenBatch)) => {
                unreachable!("lengths are checked before, and an ask is no batch: {error:?}")
            }
        };
        let (ticket, receipt) = oneshot::channel();
        let (asker, answer) = oneshot::channel();
        self.tickets.push_back(Some(Tickets::One(ticket)));
        self.unacked += 1;
        self.askers.push((Asker::Message(message), asker));
        self.has_asked = true;
        Ok(Some(PushedAsk { message, receipt, answer }))
    }

    /// Waits for an answer of an earlier run.
    pub(crate) fn take(
        &mut self,
        now_us: u64,
        epoch: Epoch,
        seq: Seq,
    ) -> Result<oneshot::Receiver<AnswerOutcome>, SendError> {
        if self.intake != Intake::Open {
            return Err(SendError::Closed);
        }
        self.machine.take(now_us, epoch, seq).map_err(|_| SendError::Full)?;
        let (asker, answer) = oneshot::channel();
        let asks = Asker::Place(epoch, seq);
        // Who asked for the same before waits no more.
        self.askers.retain(|(other, _)| *other != asks);
        self.askers.push((asks, asker));
        self.has_asked = true;
        Ok(answer)
    }

    pub(crate) fn waiting(&self) -> Vec<(Epoch, Seq)> {
        self.machine.waiting().collect()
    }

    pub(crate) fn wake(&mut self, now_us: u64) {
        self.machine.wake(now_us);
    }

    /// The answer is not wanted any more.
    pub(crate) fn forget(&mut self, asker: Asker) {
        self.askers.retain(|(other, _)| *other != asker);
        match asker {
            Asker::Message(message) => self.machine.forget_ask(message),
            Asker::Place(epoch, seq) => self.machine.forget_taken(epoch, seq),
        };
        // There is room for another ask.
        self.has_news = true;
    }

    /// The answer stays at the server.
    pub(crate) fn leave(&mut self, asker: Asker) {
        self.askers.retain(|(other, _)| *other != asker);
        match asker {
            Asker::Message(message) => self.machine.leave_ask(message),
            Asker::Place(epoch, seq) => self.machine.leave_taken(epoch, seq),
        };
    }

    /// Whether answers may come, which are longer than anything else that a server sends.
    pub(crate) fn has_asked(&self) -> bool {
        self.has_asked
    }

    /// Whether the server is still to be told that it need not keep what was had.
    pub(crate) fn owes_farewell(&self) -> bool {
        self.machine.owes_farewell()
    }

    pub(crate) fn finish_asks(&mut self) {
        self.machine.finish_asks();
    }

    /// Whether something was asked that the server should have replied to by now.
    pub(crate) fn is_unheard(&self) -> bool {
        !self.is_idle() || self.machine.takes_in_silence()
    }

    pub(super) fn tell_answers(&mut self) {
        while let Some(answered) = self.machine.poll_answer() {
            let Answered { message, epoch, seq, status, length, body } = answered;
            self.has_news = true;
            self.answered += 1;
            // Who has named its place may wait beside who has sent it in this run.
            for asker in message.map(Asker::Message).into_iter().chain([Asker::Place(epoch, seq)]) {
                if let Some(at) = self.askers.iter().position(|(other, _)| *other == asker) {
                    let answer = Answer { epoch, seq, status, length, body: body.to_vec() };
                    // Nobody may be waiting any more.
                    self.askers.swap_remove(at).1.send(Ok(answer)).ok();
                }
            }
        }
    }

    /// The record of an ask will never be acked.
    pub(super) fn fail_asker(&mut self, message: MessageId, error: SendError) {
        let place = self.askers.iter().position(|(asker, _)| *asker == Asker::Message(message));
        if let Some(at) = place {
            self.askers.swap_remove(at).1.send(Err(error)).ok();
        }
    }
}
