//! Why something was not done, and how that is said.

use std::error::Error;
use std::fmt;

use duragram_proto::Epoch;
use duragram_proto::client::FailReason;

/// Why a record has no receipt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendError {
    /// It fits in no datagram (or not in the client's buffer). It was not sent.
    TooLarge {
        /// The record has so many bytes.
        bytes: usize,
        /// The longest record that fits has so many bytes.
        bytes_max: usize,
    },
    /// There is no room for it at present; only [`Client::try_send`](super::Client::try_send) says so. It was not sent.
    Full,
    /// The server will never take it. It was not journaled; other records are not concerned.
    Rejected(FailReason),
    /// The caller gave it up ([`Client::abandon_oldest`](super::Client::abandon_oldest)). If it had been sent it may have been
    /// journaled all the same.
    Abandoned,
    /// The epoch that this client was given ([`Builder::epoch`](super::Builder::epoch)) was used before: the server holds other
    /// records under its numbers, and takes these for those. Nothing of this run counts as sent.
    EpochUsed(Epoch),
    /// The client was closed or dropped before the ack came. If it had been sent it may have been journaled.
    Closed,
}

/// What [`Client::close`](super::Client::close) could not finish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Incomplete {
    /// Records without an answer when the deadline passed; they may have been journaled.
    pub unacked: u64,
    /// Records that the server refused since the client began ([`SendError::Rejected`]); they were not journaled.
    pub failed: u64,
}

/// Why a client could not begin. Nothing was sent.
#[derive(Debug)]
pub enum ConnectError {
    /// What was given can never be a server's name.
    Server {
        /// The text stands here as the caller gave it.
        server: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The system gives no randomness.
    Random(String),
    /// A limit is out of range.
    Limit {
        /// The [`Builder`](super::Builder) method of this name sets it.
        name: &'static str,
        /// The value stands here as the caller gave it.
        value: usize,
        /// The range that is allowed, in words.
        allowed: &'static str,
    },
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes, bytes_max } => {
                write!(f, "a record of {bytes} bytes does not fit in a datagram: at most {bytes_max}")
            }
            Self::Full => f.write_str("there is no room for the record before others are acked"),
            Self::Rejected(reason) => write!(f, "refused by the server: {}", reason_text(*reason)),
            Self::Abandoned => f.write_str("given up before the ack came"),
            Self::EpochUsed(epoch) => write!(
                f,
                "epoch {epoch} of this client was used before: the server holds other records under its numbers; take a new \
                 epoch, or none, to be given one"
            ),
            Self::Closed => f.write_str("the client was closed before the ack came"),
        }
    }
}

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { unacked, failed } = self;
        write!(f, "{unacked} records were not acked in time and {failed} were refused by the server")
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server { problem, .. } => f.write_str(problem),
            Self::Random(problem) => write!(f, "no random bytes: {problem}"),
            Self::Limit { name, value, allowed } => write!(f, "{name} is {value}; it must be {allowed}"),
        }
    }
}

impl Error for SendError {}
impl Error for Incomplete {}
impl Error for ConnectError {}

fn reason_text(reason: FailReason) -> &'static str {
    match reason {
        FailReason::Version => "it speaks another version of the protocol",
        FailReason::Unsupported => {
            "it does not have a feature that the record needs: answers, or several records in one datagram"
        }
        FailReason::TooLarge => "the datagram is longer than it accepts",
        FailReason::Channel => "it does not accept this channel",
        FailReason::SealedOnly => "it takes sealed traffic alone, and this client has no key",
        FailReason::EpochUsed => "it holds other records under the numbers of this epoch",
    }
}
