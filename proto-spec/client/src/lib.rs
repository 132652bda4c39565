//! The client library: give it records, get a receipt for each once it is on the server's disk.
//!
//! The protocol is [`duragram_proto::client`], a state machine without socket or clock. This module gives it both: one
//! task owns the socket, callers and task meet in a mutex-guarded core. Nothing here knows the rest of the server.
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
//! # A server that is away
//! The client tries on, ever more slowly, and looks the server's name up again; unacked records stay in memory. What
//! must survive the client's own end has to be kept by the caller until its receipt.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use duragram_proto::client::FailReason;
use duragram_proto::codec::{Durability, RejectCode};
use duragram_proto::{Epoch, Seq};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

#[doc(hidden)] // shared with the server, no part of the interface
pub mod address;
pub mod blocking;
mod builder;
mod core;
mod driver;
mod route;
mod shared;
#[doc(hidden)] // as `address`
pub mod threads;

pub use builder::{Batching, Builder};

use self::core::{Outcome, Refused};
use self::shared::Shared;

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
    /// How safe it is.
    pub durability: Durability,
}

/// The receipt to come. Dropping it does not take the record back.
#[derive(Debug)]
#[must_use = "the record is not safe before this has resolved"]
pub struct Pending {
    outcome: oneshot::Receiver<Outcome>,
}

/// Why a record has no receipt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    /// It fits in no datagram (or not in the client's buffer). It was not sent.
    #[error("a record of {bytes} bytes does not fit in a datagram: at most {bytes_max}")]
    TooLarge {
        /// The record's length.
        bytes: usize,
        /// The longest possible.
        bytes_max: usize,
    },
    /// The server will never take it. It was not journaled; other records are not concerned.
    #[error("refused by the server: {}", reason_text(*.0))]
    Rejected(FailReason),
    /// The epoch that this client was given ([`Builder::epoch`]) was used before: the server holds other records under its
    /// numbers, and takes these for those. Nothing of this run counts as sent.
    #[error(
        "epoch {0} of this client was used before: the server holds other records under its numbers; take a new epoch, or \
         none, to be given one"
    )]
    EpochUsed(Epoch),
    /// The client was closed or dropped before the ack came. If it had been sent it may have been journaled.
    #[error("the client was closed before the ack came")]
    Closed,
}

/// What [`Client::close`] could not finish.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{unacked} records were not acked in time and {failed} were refused by the server")]
pub struct Incomplete {
    /// Records without an answer when the deadline passed; they may have been journaled.
    pub unacked: u64,
    /// Records that the server refused since the client began ([`SendError::Rejected`]); they were not journaled.
    pub failed: u64,
}

/// Why a client could not begin. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// What was given can never be a server's name.
    #[error("{problem}")]
    Server {
        /// As it was given.
        server: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The system gives no randomness.
    #[error("no random bytes: {0}")]
    Random(String),
    /// A limit is out of range.
    #[error("{name} is {value}; it must be {allowed}")]
    Limit {
        /// Of which [`Builder`] method.
        name: &'static str,
        /// As it was given.
        value: usize,
        /// The range.
        allowed: &'static str,
    },
}

/// What a client has done and how it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Records acked.
    pub acked: u64,
    /// Records that the server refused for good.
    pub failed: u64,
    /// Records without an answer yet.
    pub unacked: u64,
    /// DATA datagrams sent.
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

    /// Waits until every record taken so far has its receipt or its error. For ever, if the server stays away.
    pub async fn flush(&self) {
        self.shared().flush().await;
    }

    /// Takes no more records, waits until all have their receipts, at most for `patience`, and ends the client. Another
    /// call gives the same answer.
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

    /// Counters and state.
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

impl From<Refused> for SendError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TooLarge { bytes, bytes_max } => Self::TooLarge { bytes, bytes_max },
            Refused::Closed => Self::Closed,
            Refused::EpochUsed(epoch) => Self::EpochUsed(epoch),
        }
    }
}

fn reason_text(reason: FailReason) -> &'static str {
    match reason {
        FailReason::Version => "it speaks another version of the protocol",
        FailReason::Unsupported => "it does not have a feature that the record needs",
        FailReason::TooLarge => "the datagram is longer than it accepts",
        FailReason::Channel => "it does not accept this channel",
        FailReason::SealedOnly => "it takes sealed traffic alone, and this client has no key",
        FailReason::EpochUsed => "it holds other records under the numbers of this epoch",
    }
}
