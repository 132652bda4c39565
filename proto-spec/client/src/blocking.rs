//! The client for programs without async: the same client on a runtime thread of its own.
//!
//! ```no_run
//! use duragram_client::Client;
//! use duragram_client::blocking;
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = blocking::Client::connect(Client::builder("127.0.0.1:7117"))?;
//! let ticket = client.send(b"21.5 degrees")?;
//! println!("on disk: {:?}", ticket.wait()?);
//! client.close(None)?;
//! # Ok(())
//! # }
//! ```

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use tokio::runtime::Runtime;

use duragram_proto::{Epoch, Seq};

use super::{Answer, Answering, Builder, ConnectError, Incomplete, Pending, Receipt, SendError, Stats};

/// A client whose methods block the calling thread. Share it among threads by reference or `Arc`; a dropped one never
/// waits. Not for use within an async runtime: its methods panic there.
#[derive(Debug)]
pub struct Client {
    client: super::Client,
    /// `None` only while being dropped.
    runtime: Option<Runtime>,
}

/// The receipt to come. Dropping it does not take the record back, which is sent on until it is acked;
/// [`Client::abandon_oldest`] does.
#[derive(Debug)]
#[must_use = "the record is not safe before `wait` has returned"]
pub struct Ticket {
    pending: Pending,
}

/// A record that asked: its receipt, and its answer, which comes later.
#[derive(Debug)]
#[must_use = "the record is not safe before its receipt is there, and a dropped answer is not waited for"]
pub struct Asked {
    /// Its `wait` returns when the record is on the server's disk, or has failed.
    pub receipt: Ticket,
    /// Its `wait` returns when the server has told what became of the record.
    pub answer: AnswerTicket,
}

/// The answer to come. Dropping it says that it is not wanted any more; [`AnswerTicket::leave`] keeps it at the server.
#[derive(Debug)]
#[must_use = "a dropped answer is not waited for"]
pub struct AnswerTicket {
    answering: Answering,
}

/// Why a blocking client could not begin. Nothing was sent.
#[derive(Debug)]
pub enum StartError {
    /// The operating system gave no thread.
    Thread(io::Error),
    /// As for the async client.
    Connect(ConnectError),
}

impl Client {
    /// Begins a client with a thread of its own.
    ///
    /// # Errors
    /// [`StartError`]; nothing was started.
    pub fn connect(builder: Builder) -> Result<Self, StartError> {
        // tokio has no other answer than a panic where it gets none.
        crate::threads::are_granted(2).map_err(StartError::Thread)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("duragram-client")
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let client = runtime.block_on(builder.connect())?;
        Ok(Self { client, runtime: Some(runtime) })
    }

    /// Takes a record for channel 0. Blocks until there is room for it, not for its ack.
    ///
    /// # Errors
    /// [`SendError::TooLarge`] and [`SendError::Closed`]: the record was not taken.
    pub fn send(&self, record: &[u8]) -> Result<Ticket, SendError> {
        self.send_on(0, record)
    }

    /// As [`Client::send`], for a channel.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn send_on(&self, channel: u16, record: &[u8]) -> Result<Ticket, SendError> {
        let pending = self.wait(self.client.send_on(channel, record))?;
        Ok(Ticket { pending })
    }

    /// As [`super::Client::try_send`]: never blocks.
    ///
    /// # Errors
    /// [`SendError::TooLarge`], [`SendError::Full`] and [`SendError::Closed`]: the record was not taken.
    pub fn try_send(&self, record: &[u8]) -> Result<Ticket, SendError> {
        self.try_send_on(0, record)
    }

    /// As [`Client::try_send`], for a channel.
    ///
    /// # Errors
    /// As [`Client::try_send`].
    pub fn try_send_on(&self, channel: u16, record: &[u8]) -> Result<Ticket, SendError> {
        let pending = self.client.try_send_on(channel, record)?;
        Ok(Ticket { pending })
    }

    /// As [`super::Client::ask`]: blocks until there is room for the record, not for its ack or its answer.
    ///
    /// # Errors
    /// As [`super::Client::ask`].
    pub fn ask(&self, record: &[u8]) -> Result<Asked, SendError> {
        self.ask_on(0, record)
    }

    /// As [`Client::ask`], for a channel.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn ask_on(&self, channel: u16, record: &[u8]) -> Result<Asked, SendError> {
        let super::Asked { receipt, answer } = self.wait(self.client.ask_on(channel, record))?;
        Ok(Asked { receipt: Ticket { pending: receipt }, answer: AnswerTicket { answering: answer } })
    }

    /// As [`super::Client::take`]: the answer to a record of an earlier run.
    ///
    /// # Errors
    /// As [`super::Client::take`].
    pub fn take(&self, epoch: Epoch, seq: Seq) -> Result<AnswerTicket, SendError> {
        let answering = self.client.take(epoch, seq)?;
        Ok(AnswerTicket { answering })
    }

    /// Names the same asks as [`super::Client::waiting`], and does not block.
    pub fn waiting(&self) -> Vec<(Epoch, Seq)> {
        self.client.waiting()
    }

    /// Does what [`super::Client::wake`] does, and does not block.
    pub fn wake(&self) {
        self.client.wake();
    }

    /// As [`super::Client::abandon_oldest`]: gives up the oldest unacked message, and returns how many records that were.
    pub fn abandon_oldest(&self) -> u64 {
        self.client.abandon_oldest()
    }

    /// Blocks until every record taken so far has its receipt or its error. For ever, if the server stays away.
    pub fn flush(&self) {
        self.wait(self.client.flush());
    }

    /// As [`super::Client::close`].
    ///
    /// # Errors
    /// [`Incomplete`]: not every record that this client was given is on the server's disk, as far as it knows.
    pub fn close(&self, patience: Option<Duration>) -> Result<(), Incomplete> {
        self.wait(self.client.close(patience))
    }

    /// Moves to another server as [`super::Client::set_server`] does, and does not block.
    pub fn set_server(&self, server: impl Into<String>) {
        self.client.set_server(server);
    }

    /// Says the same as [`super::Client::trouble`], and does not block.
    pub fn trouble(&self) -> Option<String> {
        self.client.trouble()
    }

    /// Counts the same as [`super::Client::stats`], and does not block.
    pub fn stats(&self) -> Stats {
        self.client.stats()
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        match &self.runtime {
            Some(runtime) => runtime.block_on(future),
            None => unreachable!("only `drop` takes the runtime"),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Ticket {
    /// Blocks until the record is on the server's disk, or never will be.
    ///
    /// # Errors
    /// [`SendError::Rejected`], [`SendError::Abandoned`], [`SendError::EpochUsed`] and [`SendError::Closed`].
    pub fn wait(self) -> Result<Receipt, SendError> {
        self.pending.outcome.blocking_recv().unwrap_or(Err(SendError::Closed))
    }
}

impl AnswerTicket {
    /// Blocks until the answer is there, or never will be.
    ///
    /// # Errors
    /// The error with which the record ended, or [`SendError::Closed`].
    pub fn wait(self) -> Result<Answer, SendError> {
        self.answering.wait()
    }

    /// Does what [`Answering::leave`] does, and does not block.
    pub fn leave(self) {
        self.answering.leave();
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thread(error) => write!(f, "cannot start the client's thread: {error}"),
            Self::Connect(error) => error.fmt(f),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Thread(_) => None,
            Self::Connect(error) => error.source(),
        }
    }
}

impl From<ConnectError> for StartError {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}
