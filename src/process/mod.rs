//! Processing: what happens to an entry once it is durable.
//!
//! Each sink goes on for itself: each that is configured has one lane, an embedded handler as many as are configured, which
//! share the sessions ([`Cursors`]). Each lane has one thread and one [`Handler`]. The committer keeps the newest blocks in
//! memory, once for all lanes ([`Fanout`]); a lane that falls behind reads them back from the journal; so slow processing never slows
//! ingestion down, and memory stays bounded. A lane's watermark ([`Progress`]) tells how much of the journal is
//! processed, durably, and so may be trimmed. What the lanes have to say to the committer goes through its [`Mailbox`].
//! [`sink`](crate::sink) has the handlers that ship with the server; they know `handler` and nothing else of this module.
//!
//! What a lane holds in memory is bounded: the blocks that it has fetched, one batch, and what its handler has not flushed
//! (`limits`). This module knows the journal as [`ReadJournal`](crate::journal::ReadJournal) and
//! [`DeadLetters`](crate::journal::DeadLetters), and nothing of sockets, sessions' rules, or how a block is stored.
//!
//! # A handler of your own
//! ```
//! use duragram::process::{Content, Handler, HandlerError, HandlerFactory, Outcomes, Record};
//!
//! /// Adds up what the meters report, in memory; the journal keeps the sum, with the watermark and in the same write.
//! struct Sum(u64);
//!
//! impl Handler for Sum {
//!     fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
//!         for (i, record) in records.iter().enumerate() {
//!             match record.content {
//!                 Content::Payload(text) => match str::from_utf8(text).map(str::parse::<u32>) {
//!                     Ok(Ok(value)) => self.0 += u64::from(value),
//!                     _ => {
//!                         outcomes.give_up(i, "not a number"); // kept as a dead letter
//!                         continue;
//!                     }
//!                 },
//!                 Content::Gap { from, to } => eprintln!("{}: {from} to {to} are lost", record.session),
//!             }
//!             outcomes.done(i);
//!         }
//!     }
//!
//!     fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
//!         Ok(self.0.to_le_bytes().to_vec())
//!     }
//! }
//!
//! let factory: HandlerFactory = Box::new(|start| {
//!     // One state as a rule; when the number of lanes has changed, one lane takes over those of all.
//!     let sums = start.inherited().filter_map(|state| state.first_chunk());
//!     Ok(Box::new(Sum(sums.map(|sum| u64::from_le_bytes(*sum)).sum())))
//! });
//! # drop(factory);
//! ```

mod answers;
mod asked;
mod attempts;
mod block_queue;
mod config;
mod control;
mod cursor;
mod cursors;
mod dead_letters;
mod doorbell;
mod fanout;
mod hand_off;
pub(crate) mod handler;
mod handler_calls;
mod handler_error;
mod lane;
mod lane_name;
mod mailbox;
mod outcomes;
mod passing;
mod progress;
mod recent;
mod remade;
mod retried;
mod retry;
#[cfg(test)]
mod tests;
mod thread;

// What `hand_off` and `doorbell` are made of; their models put others in their place.
use std::sync::{RwLock, atomic};

pub use answers::Answering;
pub use config::LaneConfig;
pub use control::{SinkAnswer, SinkControl, SinkControlError, SinkStatus};
pub use cursor::Cursor;
pub use cursors::Cursors;
pub use fanout::Fanout;
pub use handler::{AnswerTooLong, Handler, HandlerError, HandlerFactory, LaneStart, Outcome, Outcomes};
pub use lane::{LaneParts, LaneStep, LaneWorker};
pub use lane_name::LaneName;
pub use mailbox::{Mailbox, Wake};
pub use progress::{Progress, Renumbered};
pub use retried::RetryError;
pub use retry::RetryPolicy;
pub use thread::{LaneControl, LaneEnd, Lanes, NotAsked, spawn_lanes};

pub use crate::model::{Content, Record};
