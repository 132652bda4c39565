//! The client library: give it records, get a receipt for each once it is on the server's disk.
//!
//! The protocol is [`duragram_proto::client`], a state machine without socket or clock. This module gives it both: one
//! task owns the socket, callers and task meet in a mutex-guarded core. Nothing here knows the server.
//!
//! ```no_run
//! use duragram_client::Client;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder("ingest.example.org:7117").client_id(0xa1).connect().await?;
//! // Waits for room only; the receipt comes later.
//! let first = client.send(b"21.5 degrees").await?;
//! let second = client.send_on(7, b"for channel 7").await?;
//! println!("on disk: {:?}, {:?}", first.await?, second.await?);
//! client.close(None).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Which epoch
//! A receipt is worth something only if no two runs of a client id number their records alike. Without
//! [`Builder::epoch`] the client asks the server for an epoch, which costs one round trip and needs no storage; give an
//! epoch when the device counts its boots. One that was used before is noticed ([`SendError::EpochUsed`]).
//!
//! # Memory
//! A client holds at most [`Builder::window`] messages and [`Builder::buffer_bytes`] of their payloads. When they are
//! full, [`Client::send`] waits: that is the back-pressure.
//!
//! # Answers
//! [`Client::ask`] sends a record and gives, beside its receipt, a future of its answer: what became of it once the server has
//! processed it.
//!
//! # A server that is away
//! The client tries on, ever more slowly, and looks the server's name up again; unacked records stay in memory. What
//! must survive the client's own end has to be kept by the caller until its receipt. What has become worthless is given up by
//! [`Client::abandon_oldest`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use duragram_proto::codec::{Durability, RejectCode};
use duragram_proto::{Epoch, Seq};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

#[doc(hidden)] // shared with the server, no part of the interface
pub mod address;
mod answer;
mod asking;
mod batching;
pub mod blocking;
mod builder;
mod core;
mod driver;
mod errors;
mod route;
mod shared;
#[doc(hidden)] // as `address`
pub mod threads;

pub use answer::Answer;
pub use asking::{Answering, Asked};
pub use batching::Batching;
pub use builder::Builder;
pub use duragram_proto as proto;
pub use duragram_proto::client::{AskConfig, Status};
pub use errors::{ConnectError, Incomplete, SendError};

use self::core::Outcome;
use self::shared::Shared;

/// How long a client that closes waits until it can tell the server that it waits for no answer.
const FAREWELL_PATIENCE: Duration = Duration::from_millis(200);

/// A client; a clone is another handle to the same one. It ends with [`Client::close`] or when the last handle is
/// dropped, which never waits: what is unacked then may or may not reach the server.
#[derive(Clone, Debug)]
pub struct Client {
    owner: Arc<Owner>,
}

/// Ends the driver when the last handle goes.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    driver: AbortHandle,
}

/// A record's place in the journal's dedup space: proof that it is as safe as `durability` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// The epoch in which it was acked.
    pub epoch: Epoch,
    /// The datagram's number in that epoch.
    pub seq: Seq,
    /// The record's place in its datagram: above 0 only with batching.
    pub index: u16,
    /// The server promises this when it acks.
    pub durability: Durability,
}

/// The receipt to come. Dropping it does not take the record back, which is sent on until it is acked;
/// [`Client::abandon_oldest`] does.
#[derive(Debug)]
#[must_use = "the record is not safe before this has resolved"]
pub struct Pending {
    outcome: oneshot::Receiver<Outcome>,
}

/// What a client has done and how it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Records that the server acked.
    pub acked: u64,
    /// Records that the server refused for good.
    pub failed: u64,
    /// Records that the caller gave up.
    pub abandoned: u64,
    /// Records without an answer yet.
    pub unacked: u64,
    /// Answers that are waited for, those of records that are not acked among them.
    pub asking: u64,
    /// So many answers came, each counted once.
    pub answered: u64,
    /// An answer was asked for and the server has not replied in time, nor since.
    pub takes_unheard: bool,
    /// So many DATA datagrams were sent, those sent again included.
    pub transmissions: u64,
    /// Of these, how many had been sent before.
    pub retransmissions: u64,
    /// REJECT datagrams that were for this client and something in flight.
    pub rejects: u64,
    /// The code of the latest of these, if nothing was acked since.
    pub refusal: Option<RejectCode>,
    /// Datagrams that made no sense here: foreign, late, forged.
    pub ignored: u64,
    /// Sockets opened after the first: the server moved, the network changed, or nothing was heard.
    pub reroutes: u64,
    /// The smoothed round-trip time without the server's own delay.
    pub rtt: Option<Duration>,
    /// The session's epoch; `None` until the server has given one.
    pub epoch: Option<Epoch>,
}

impl Client {
    /// Begins the description of a client of `server`, a `host:port`.
    pub fn builder(server: impl Into<String>) -> Builder {
        Builder::new(server.into())
    }

    fn new(shared: Arc<Shared>, driver: AbortHandle) -> Self {
        Self { owner: Arc::new(Owner { shared, driver }) }
    }

    /// Takes a record for channel 0. Waits until there is room for it (callers are served in turn), not for its ack.
    /// Dropping this future before it resolves sends nothing.
    ///
    /// # Errors
    /// [`SendError::TooLarge`] and [`SendError::Closed`]: the record was not taken.
    pub async fn send(&self, record: &[u8]) -> Result<Pending, SendError> {
        self.send_on(0, record).await
    }

    /// As [`Client::send`], for a channel.
    pub async fn send_on(&self, channel: u16, record: &[u8]) -> Result<Pending, SendError> {
        let outcome = self.shared().push(channel, record).await?;
        Ok(Pending { outcome })
    }

    /// As [`Client::send`], but never waits: [`SendError::Full`] where that would. May go ahead of callers that wait.
    ///
    /// # Errors
    /// [`SendError::TooLarge`], [`SendError::Full`] and [`SendError::Closed`]: the record was not taken.
    pub fn try_send(&self, record: &[u8]) -> Result<Pending, SendError> {
        self.try_send_on(0, record)
    }

    /// As [`Client::try_send`], for a channel.
    ///
    /// # Errors
    /// As [`Client::try_send`].
    pub fn try_send_on(&self, channel: u16, record: &[u8]) -> Result<Pending, SendError> {
        let outcome = self.shared().try_push(channel, record)?;
        Ok(Pending { outcome })
    }

    /// Gives up the oldest unacked message, for who would rather lose an old reading than wait with a new one: its record, or
    /// with batching its records, will not be sent again, and end with [`SendError::Abandoned`]. Returns how many they were;
    /// 0 when none is unacked. The server is told that they were given up (SKIP, PROTOCOL.md#duty-skip), so that it does not
    /// take them for lost; what it had journaled before stays, and is processed.
    ///
    /// Only this gives a record up: dropping its [`Pending`] does not, nor does a future of `send` that has resolved.
    ///
    /// ```no_run
    /// # use duragram_client::{Client, SendError};
    /// # fn example(client: &Client, reading: &[u8]) -> Result<(), SendError> {
    /// // The newest readings count: room for this one is made at the cost of the oldest.
    /// let pending = loop {
    ///     match client.try_send(reading) {
    ///         Err(SendError::Full) if client.abandon_oldest() > 0 => {}
    ///         taken_or_not => break taken_or_not?,
    ///     }
    /// };
    /// # drop(pending);
    /// # Ok(())
    /// # }
    /// ```
    pub fn abandon_oldest(&self) -> u64 {
        self.shared().abandon_oldest()
    }

    /// Waits until every record taken so far has its receipt or its error. For ever, if the server stays away.
    pub async fn flush(&self) {
        self.shared().flush().await;
    }

    /// Takes no more records, waits until all have their receipts, at most for `patience`, and ends the client. Another
    /// call gives the same answer. It does not wait for answers: those that did not come end in [`SendError::Closed`], and
    /// stay at the server ([`Client::waiting`] tells which).
    ///
    /// # Errors
    /// [`Incomplete`]: not every record that this client was given is on the server's disk, as far as it knows.
    pub async fn close(&self, patience: Option<Duration>) -> Result<(), Incomplete> {
        let shared = self.shared();
        shared.refuse_more();
        match patience {
            // The deadline's passing is not an error of its own: what remains is counted below.
            Some(patience) => tokio::time::timeout(patience, shared.flush()).await.unwrap_or(()),
            None => shared.flush().await,
        }
        // That it is told is a courtesy; its loss does no harm.
        tokio::time::timeout(FAREWELL_PATIENCE, shared.farewell()).await.unwrap_or(());
        let incomplete = shared.end();
        self.owner.driver.abort();
        if incomplete == (Incomplete { unacked: 0, failed: 0 }) { Ok(()) } else { Err(incomplete) }
    }

    /// From now on the server is at `server`, a `host:port`; the client tries there at once.
    pub fn set_server(&self, server: impl Into<String>) {
        self.shared().set_server(server.into());
    }

    /// Why nothing gets to the server at present, such as a name that cannot be resolved, or no network that leads there;
    /// `None` when nothing is known of. The client tries on.
    pub fn trouble(&self) -> Option<String> {
        self.shared().trouble()
    }

    /// Returns what was counted since the start, and what is open now.
    pub fn stats(&self) -> Stats {
        self.shared().stats()
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.end();
        self.driver.abort();
    }
}

impl Future for Pending {
    type Output = Result<Receipt, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome).poll(cx).map(|outcome| outcome.unwrap_or(Err(SendError::Closed)))
    }
}

/// The README's examples are compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
