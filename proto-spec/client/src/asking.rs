//! Answers: what became of a record, told when it is processed (PROTOCOL.md#answers).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use duragram_proto::{Epoch, Seq};
use tokio::sync::oneshot;

use super::answer::Answer;
use super::core::{AnswerOutcome, Asker, PushedAsk};
use super::shared::Shared;
use super::{Client, Pending, SendError};

/// A record that asked: its receipt, and its answer, which comes later.
#[derive(Debug)]
#[must_use = "the record is not safe before its receipt has resolved, and a dropped answer is not waited for"]
pub struct Asked {
    /// The receipt to come, as [`Client::send`] gives it.
    pub receipt: Pending,
    /// It resolves when the server has told what became of the record.
    pub answer: Answering,
}

/// The answer to come. Ends in an [`Answer`], or in the error with which its record ended.
///
/// Dropping it says that the answer is not wanted any more: the server may forget it. The record itself is sent on.
/// [`Answering::leave`] keeps it at the server.
#[derive(Debug)]
#[must_use = "a dropped answer is not waited for"]
pub struct Answering {
    outcome: oneshot::Receiver<AnswerOutcome>,
    /// `None` once it has come, or was left.
    waits: Option<(Asker, Arc<Shared>)>,
}

impl Client {
    /// Takes a record for channel 0 whose answer is wanted: what became of it once it is processed. Waits until there is
    /// room for it, as [`Client::send`], and for one more ask: at most 64 are unfinished.
    ///
    /// ```no_run
    /// # async fn example(client: duragram_client::Client) -> Result<(), duragram_client::SendError> {
    /// use duragram_client::Status;
    ///
    /// let asked = client.ask(b"open valve 7").await?;
    /// println!("on disk: {:?}", asked.receipt.await?);
    /// let answer = asked.answer.await?;
    /// match answer.status {
    ///     Status::Done => println!("{}", String::from_utf8_lossy(&answer.body)),
    ///     Status::Failed => println!("given up"),
    ///     Status::Gone => println!("nobody knows any more"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Client::send`]. Receipt and answer end in [`SendError::Rejected`] with `Unsupported` where the server does
    /// not have this extension.
    pub async fn ask(&self, record: &[u8]) -> Result<Asked, SendError> {
        self.ask_on(0, record).await
    }

    /// As [`Client::ask`], for a channel.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn ask_on(&self, channel: u16, record: &[u8]) -> Result<Asked, SendError> {
        Ok(self.asked(self.shared().push_ask(channel, record).await?))
    }

    /// As [`Client::ask`], but never waits: [`SendError::Full`] where that would.
    ///
    /// # Errors
    /// As [`Client::ask`], and [`SendError::Full`]: the record was not taken.
    pub fn try_ask(&self, record: &[u8]) -> Result<Asked, SendError> {
        self.try_ask_on(0, record)
    }

    /// As [`Client::try_ask`], for a channel.
    ///
    /// # Errors
    /// As [`Client::try_ask`].
    pub fn try_ask_on(&self, channel: u16, record: &[u8]) -> Result<Asked, SendError> {
        Ok(self.asked(self.shared().try_push_ask(channel, record)?))
    }

    /// Waits for the answer to a record that an earlier run of this client id has sent, named by its receipt. Who had
    /// several of one epoch calls this for all of them, the lowest first: what lies below is forgotten by the server.
    ///
    /// ```no_run
    /// # async fn example(client: duragram_client::Client, epoch: duragram_client::proto::Epoch)
    /// # -> Result<(), duragram_client::SendError> {
    /// let answer = client.take(epoch, duragram_client::proto::Seq(5))?.await?;
    /// # drop(answer);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SendError::Full`] when 64 answers are waited for, [`SendError::Closed`].
    pub fn take(&self, epoch: Epoch, seq: Seq) -> Result<Answering, SendError> {
        let outcome = self.shared().take(epoch, seq)?;
        Ok(self.answering(Asker::Place(epoch, seq), outcome))
    }

    /// What is acked and whose answer did not come yet, as [`Client::take`] wants it: to be stored before the program
    /// ends, and before the futures that wait for it are dropped.
    pub fn waiting(&self) -> Vec<(Epoch, Seq)> {
        self.shared().state().core.waiting()
    }

    /// The device has woken up: asks once for each answer that is waited for. Only where
    /// [`AskConfig::sleeps`](duragram_proto::client::AskConfig) is set; else answers come by themselves.
    pub fn wake(&self) {
        self.shared().wake();
    }

    fn asked(&self, pushed: PushedAsk) -> Asked {
        let PushedAsk { message, receipt, answer } = pushed;
        Asked { receipt: Pending { outcome: receipt }, answer: self.answering(Asker::Message(message), answer) }
    }

    fn answering(&self, asker: Asker, outcome: oneshot::Receiver<AnswerOutcome>) -> Answering {
        Answering { outcome, waits: Some((asker, Arc::clone(self.shared()))) }
    }
}

impl Answering {
    /// Leaves the answer at the server, for a later run or another process, which takes it by the receipt's epoch and seq
    /// ([`Client::take`]). It is not waited for in this run, unless this run takes it. To be done last: the server keeps all asks of a
    /// session from the lowest one on that is not had, and no more than 64 of a client, so those that follow are refused at some point.
    pub fn leave(mut self) {
        if let Some((asker, shared)) = self.waits.take() {
            shared.state().core.leave(asker);
        }
    }

    /// Blocks until the answer is there; only outside of an async runtime.
    pub(super) fn wait(mut self) -> Result<Answer, SendError> {
        // Not by value: an answer that has come is had.
        let (_, never) = oneshot::channel();
        let outcome = std::mem::replace(&mut self.outcome, never).blocking_recv().unwrap_or(Err(SendError::Closed));
        self.waits = None;
        outcome
    }
}

impl Future for Answering {
    type Output = Result<Answer, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = Pin::new(&mut self.outcome).poll(cx).map(|outcome| outcome.unwrap_or(Err(SendError::Closed)));
        if outcome.is_ready() {
            self.waits = None;
        }
        outcome
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some((asker, shared)) = self.waits.take() {
            shared.forget(asker);
        }
    }
}

#[cfg(test)]
mod tests;
