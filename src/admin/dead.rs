//! `/api/dead`: what could not be processed, and what an operator does about it.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::routes::Shared;
use super::{AdminState, Retried};
use crate::journal::{DeadLetter, DeadLetterId};
use crate::limits;
use crate::model::Offset;
use crate::record_json;

type Id = Result<Path<(u64, u16)>, PathRejection>;

/// Which part of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Offset and index of the first.
    #[serde(default)]
    from: u64,
    #[serde(default)]
    index: u16,
    limit: Option<usize>,
}

/// Dead letters in the journal's order, without their payloads.
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let from = DeadLetterId { offset: Offset(query.from), index: query.index };
    let limit = query.limit.unwrap_or(limits::ADMIN_DEAD_LETTERS).clamp(1, limits::ADMIN_DEAD_LETTERS);
    shared
        .blocking(move |state| {
            let store = state.dead_letters();
            let letters = store.list(from, limit)?;
            let next = letters.last().filter(|_| letters.len() == limit).and_then(|last| last.id.next());
            Ok(Json(json!({
                "count": store.count(),
                "dead": letters.iter().map(|letter| record_json::dead_letter(letter, false)).collect::<Vec<_>>(),
                "next": next.map(|id| json!({ "offset": id.offset.0, "index": id.index })),
            })))
        })
        .await
}

/// One with its payload.
pub(super) async fn show(State(shared): State<Arc<Shared>>, id: Id) -> Result<Json<Value>, ApiError> {
    let id = parse(id)?;
    shared.blocking(move |state| Ok(Json(record_json::dead_letter(&find(state, id)?, true)))).await
}

/// Gives it to its handler once more.
pub(super) async fn retry(State(shared): State<Arc<Shared>>, id: Id) -> Result<Json<Value>, ApiError> {
    let id = parse(id)?;
    shared
        .blocking(move |state| match state.retry_dead(find(state, id)?) {
            Retried::Done => {
                tracing::info!(offset = id.offset.0, index = id.index, "a dead letter was processed at last");
                Ok(Json(json!({ "retried": true })))
            }
            Retried::Gone => Err(unknown(id)),
            Retried::Failed(reason) => Err(ApiError::new(StatusCode::CONFLICT, format!("it failed again: {reason}"))),
            Retried::Unanswered(why) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why)),
        })
        .await
}

/// Forgets it.
pub(super) async fn discard(State(shared): State<Arc<Shared>>, id: Id) -> Result<Json<Value>, ApiError> {
    let id = parse(id)?;
    shared
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
    Ok(DeadLetterId { offset: Offset(offset), index })
}

fn find(state: &dyn AdminState, id: DeadLetterId) -> Result<DeadLetter, ApiError> {
    state.dead_letters().get(id)?.ok_or_else(|| unknown(id))
}

fn unknown(id: DeadLetterId) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no dead letter {}/{}", id.offset, id.index))
}
