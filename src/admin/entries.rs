//! `/api/entries` and `/api/tail`: committed entries as JSON lines, streamed.
//!
//! A stream holds one read from the journal and two chunks of text, whatever its reader does, and no snapshot: trimming
//! goes on beneath it, and what was trimmed before it was read comes as a line `{"trimmed":{"from":0,"to":41}}`.
//!
//! An offset says where in which journal: the answer's header `duragram-journal` names it, and who goes on from an offset gives
//! the name back as `journal`. Another journal's answer is 409, and not what happens to lie there.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::connections::stopped;
use super::error::ApiError;
use super::interface::Interface;
use crate::journal::{Block, StorageError};
use crate::limits;
use crate::model::{JournalId, Offset, records_of};
use crate::record_json::Formatter;

/// Names the journal that an answer is of.
const JOURNAL_HEADER: &str = "duragram-journal";
/// How often a stream that has sent everything looks for more.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// `/api/entries` takes these parameters, and refuses others.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    #[serde(default)]
    from: u64,
    limit: Option<usize>,
    journal: Option<String>,
}

/// `/api/tail` takes these parameters, and refuses others.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TailQuery {
    from: Option<u64>,
    #[serde(default = "follow_by_default")]
    follow: bool,
    journal: Option<String>,
}

fn follow_by_default() -> bool {
    true
}

/// At most `limit` entries from an offset on.
pub(super) async fn page(
    State(interface): State<Arc<Interface>>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let limit = query.limit.unwrap_or(limits::ADMIN_ENTRIES).min(limits::ADMIN_ENTRIES);
    interface.stream(Offset(query.from), query.journal.as_deref(), Some(limit), false)
}

/// Everything from an offset on (the present end when none is given), and what comes.
pub(super) async fn tail(
    State(interface): State<Arc<Interface>>,
    query: Result<Query<TailQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let from = query.from.map_or_else(|| interface.state.end(), Offset);
    interface.stream(from, query.journal.as_deref(), None, query.follow)
}

impl Interface {
    /// Starts a stream and answers with it.
    fn stream(
        self: Arc<Self>,
        from: Offset,
        journal: Option<&str>,
        limit: Option<usize>,
        follow: bool,
    ) -> Result<Response, ApiError> {
        let id = self.state.journal().id();
        if let (Some(meant), Some(id)) = (journal, id)
            && JournalId::parse(meant) != Some(id)
        {
            let message = format!("this is journal {id}, not {meant}: offset {from} means another entry here");
            return Err(ApiError::new(StatusCode::CONFLICT, message));
        }
        let end = self.state.end();
        if from > end {
            let message = format!("offset {from} is beyond the journal's end, {end}");
            return Err(ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, message));
        }
        let place = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            let message = format!("{} streams are open already", limits::ADMIN_TAILS);
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
        })?;
        let (chunks, receiver) = mpsc::channel(1);
        let left = limit.unwrap_or(usize::MAX);
        let walk =
            Walk { interface: self, chunks, next: from, left, formatter: Formatter::default(), text: Vec::new() };
        tokio::spawn(walk.run(if follow { None } else { Some(end) }, place));
        let headers = [(CONTENT_TYPE, "application/x-ndjson"), (CACHE_CONTROL, "no-store")];
        let name = id.map(|id| [(JOURNAL_HEADER, id.to_string())]);
        Ok((headers, name, Body::from_stream(Chunks(receiver))).into_response())
    }
}

/// The reader's side of a stream.
struct Chunks(mpsc::Receiver<Result<Bytes, Cut>>);

impl Stream for Chunks {
    type Item = Result<Bytes, Cut>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// The stream ends before all was sent: the connection is cut, so that the reader can tell it from a good end.
#[derive(Debug, thiserror::Error)]
enum Cut {
    #[error("the server stops")]
    Stopping,
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A walk ends for one of these reasons.
enum End {
    /// The reader has gone, or has all that it asked for.
    Done,
    /// The walk was cut off before all was sent.
    Cut(Cut),
}

/// The writer's side of a stream.
struct Walk {
    interface: Arc<Interface>,
    chunks: mpsc::Sender<Result<Bytes, Cut>>,
    next: Offset,
    /// Entries that may still be sent.
    left: usize,
    formatter: Formatter,
    text: Vec<u8>,
}

impl Walk {
    /// Sends entries up to `until`, or forever, then gives the stream's place free.
    async fn run(mut self, until: Option<Offset>, place: OwnedSemaphorePermit) {
        let mut stopping = self.interface.stopping.clone();
        while until.is_none_or(|until| self.next < until) {
            // The end is read before the journal: what the journal then does not show below it was trimmed.
            let end = self.interface.state.end();
            let step = if self.next < end {
                self.send_up_to(until.unwrap_or(end)).await
            } else {
                tokio::select! {
                    () = tokio::time::sleep(LOOK_EVERY) => Ok(()),
                    () = self.chunks.closed() => Err(End::Done),
                    () = stopped(&mut stopping) => Err(End::Cut(Cut::Stopping)),
                }
            };
            match step {
                Ok(()) => {}
                Err(End::Done) => break,
                Err(End::Cut(cut)) => {
                    // Fails when the reader has gone, who needs it no more.
                    drop(self.chunks.send(Err(cut)).await);
                    break;
                }
            }
        }
        drop(place);
    }

    /// Sends what one read from the journal finds below `end`.
    async fn send_up_to(&mut self, end: Offset) -> Result<(), End> {
        let blocks = match self.read().await {
            Ok(blocks) => blocks,
            Err(error) => {
                tracing::warn!(%error, "an admin stream could not read the journal");
                let line = serde_json::json!({ "error": error.to_string() });
                self.text.extend_from_slice(format!("{line}\n").as_bytes());
                self.flush().await?;
                return Err(End::Cut(error.into()));
            }
        };
        let first = blocks.first().map_or(end, |block| block.first()).min(end);
        if self.next < first {
            let (from, to) = (self.next.0, first.0 - 1);
            self.text.extend_from_slice(format!("{{\"trimmed\":{{\"from\":{from},\"to\":{to}}}}}\n").as_bytes());
            self.next = first;
        }
        for block in blocks {
            for entry in block.entries_from(self.next).take_while(|entry| entry.offset < end) {
                if self.left == 0 {
                    self.flush().await?;
                    return Err(End::Done);
                }
                self.left -= 1;
                self.next = entry.offset.plus(1);
                for record in records_of(&entry) {
                    self.formatter.line(&record, &mut self.text);
                    if self.text.len() >= limits::ADMIN_CHUNK_BYTES {
                        self.flush().await?;
                    }
                }
            }
        }
        self.flush().await
    }

    async fn read(&self) -> Result<Vec<Arc<Block>>, StorageError> {
        let (interface, from) = (Arc::clone(&self.interface), self.next);
        let read = move || interface.state.journal().read(from, limits::ADMIN_READ_BYTES);
        tokio::task::spawn_blocking(read)
            .await
            .unwrap_or_else(|panic| Err(StorageError::new(format!("reading from offset {from}"), panic)))
    }

    async fn flush(&mut self) -> Result<(), End> {
        if self.text.is_empty() {
            return Ok(());
        }
        let mut stopping = self.interface.stopping.clone();
        let chunk = Bytes::from(std::mem::take(&mut self.text));
        tokio::select! {
            sent = self.chunks.send(Ok(chunk)) => sent.map_err(|_| End::Done),
            () = stopped(&mut stopping) => Err(End::Cut(Cut::Stopping)),
        }
    }
}
