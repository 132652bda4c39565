//! `/api/dead`: what could not be processed, and what an operator does about it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::error::ApiError;
use super::interface::Interface;
use super::state::{AdminState, Retried, RetryAnswer};
use crate::journal::{DeadLetter, DeadLetterId};
use crate::limits;
use crate::model::{Offset, SinkId};
use crate::record_json;

/// How long an operator who retries a dead letter waits for its handler,
const RETRY_PATIENCE: Duration = Duration::from_secs(30);
/// and how often it is looked for the answer meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(20);

type Id = Result<Path<(u64, u16)>, PathRejection>;

/// The part of the list that is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// The offset of the first; its index follows.
    #[serde(default)]
    from: u64,
    #[serde(default)]
    index: u16,
    /// Of that record, the sink whose letter is the first.
    sink: Option<String>,
    limit: Option<usize>,
}

/// Dead letters in the journal's order, without their payloads.
pub(super) async fn list(
    State(interface): State<Arc<Interface>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let sink = match &query.sink {
        None => SinkId::EMBEDDED,
        Some(id) => SinkId::parse(id).ok_or_else(|| ApiError::bad_request("`sink` is 32 hexadecimal digits"))?,
    };
    let from = DeadLetterId { offset: Offset(query.from), index: query.index, sink };
    let limit = query.limit.unwrap_or(limits::ADMIN_DEAD_LETTERS).clamp(1, limits::ADMIN_DEAD_LETTERS);
    interface
        .blocking(move |state| {
            let store = state.dead_letters();
            let mut letters = store.list(from, limit + 1)?;
            let next = letters.split_off(limit.min(letters.len())).first().map(|letter| letter.id);
            Ok(Json(json!({
                "count": store.count(),
                "dead": letters.iter().map(|letter| record_json::dead_letter(letter, false)).collect::<Vec<_>>(),
                "next": next.map(|id| json!({ "offset": id.offset.0, "index": id.index, "sink": id.sink.to_string() })),
            })))
        })
        .await
}

/// A dead letter with its payload.
pub(super) async fn show(State(interface): State<Arc<Interface>>, id: Id) -> Result<Json<Value>, ApiError> {
    let id = parse(id)?;
    interface.blocking(move |state| Ok(Json(record_json::dead_letter(&find(state, id)?, true)))).await
}

/// Gives a dead letter to its handler once more.
pub(super) async fn retry(State(interface): State<Arc<Interface>>, id: Id) -> Result<Json<Value>, ApiError> {
    let id = parse(id)?;
    let answer = interface.blocking(move |state| Ok(state.retry_dead(&find(state, id)?))).await?;
    match wait_for(answer).await {
        Some(Retried::Done) => {
            tracing::info!(offset = id.offset.0, index = id.index, "a dead letter was processed at last");
            Ok(Json(json!({ "retried": true })))
        }
        Some(Retried::Gone) => Err(unknown(id)),
        Some(Retried::Failed(reason)) => Err(ApiError::new(StatusCode::CONFLICT, format!("it failed again: {reason}"))),
        Some(Retried::Unanswered(why)) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why)),
        None => {
            let message = format!(
                "no answer within {} s: its lane waits for its sink, or for another record. It is retried when that is \
                 over, unless it is discarded before",
                RETRY_PATIENCE.as_secs(),
            );
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message))
        }
    }
}

/// The answer to a retry; `None` when there is none in time. No thread waits for it: a lane that is stuck must not keep those
/// from their answers who ask for something else.
async fn wait_for(mut answer: RetryAnswer) -> Option<Retried> {
    let looks = async {
        loop {
            if let Some(retried) = answer() {
                return retried;
            }
            sleep(LOOK_EVERY).await;
        }
    };
    timeout(RETRY_PATIENCE, looks).await.ok()
}

/// Forgets a dead letter.
pub(super) async fn discard(State(interface): State<Arc<Interface>>, id: Id) -> Result<Json<Value>, ApiError> {
    let id = parse(id)?;
    interface
        .blocking(move |state| {
            if !state.dead_letters().delete(id)? {
                return Err(unknown(id));
            }
            tracing::info!(offset = id.offset.0, index = id.index, "a dead letter was discarded by the operator");
            Ok(Json(json!({ "discarded": true })))
        })
        .await
}

fn parse(id: Id) -> Result<DeadLetterId, ApiError> {
    let Path((offset, index)) = id.map_err(|error| ApiError::bad_request(error.body_text()))?;
    Ok(DeadLetterId { offset: Offset(offset), index, sink: SinkId::EMBEDDED })
}

fn find(state: &dyn AdminState, id: DeadLetterId) -> Result<DeadLetter, ApiError> {
    state.dead_letters().get(id)?.ok_or_else(|| unknown(id))
}

fn unknown(id: DeadLetterId) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no dead letter {}/{}", id.offset, id.index))
}
