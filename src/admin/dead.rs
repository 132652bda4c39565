//! `/api/dead`: what could not be processed, and what an operator does about it.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{PATIENCE, wait_for};
use super::error::ApiError;
use super::interface::Interface;
use super::sinks::Names;
use super::state::{AdminState, Retried};
use crate::journal::{DeadLetter, DeadLetterId};
use crate::limits;
use crate::model::{Offset, SinkId};
use crate::record_json;

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
    /// The name or the id of the sink whose letters are asked for; without it all are.
    name: Option<String>,
    limit: Option<usize>,
}

/// Whose letter of a record is meant, where several sinks have one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhoseQuery {
    /// The name or the id of the sink.
    sink: Option<String>,
}

type Whose = Result<Query<WhoseQuery>, QueryRejection>;

/// Dead letters in the journal's order, without their payloads. A page may hold fewer than there are: `next` alone says whether
/// that was all.
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
            let (store, names) = (state.dead_letters(), Names::of(state));
            let of = query.name.as_ref().map(|name| names.id(name)).transpose()?;
            let mut letters = store.list(from, limit + 1)?;
            let next = letters.split_off(limit.min(letters.len())).first().map(|letter| letter.id);
            letters.retain(|letter| of.is_none_or(|sink| letter.id.sink == sink));
            Ok(Json(json!({
                "count": of.map_or_else(|| store.count(), |sink| store.counts().of(sink)),
                "dead": letters.iter().map(|letter| as_json(letter, &names, false)).collect::<Vec<_>>(),
                "next": next.map(|id| json!({ "offset": id.offset.0, "index": id.index, "sink": id.sink.to_string() })),
            })))
        })
        .await
}

/// A dead letter with its payload.
pub(super) async fn show(
    State(interface): State<Arc<Interface>>,
    id: Id,
    whose: Whose,
) -> Result<Json<Value>, ApiError> {
    let wanted = Wanted::parse(id, whose)?;
    interface.blocking(move |state| Ok(Json(as_json(&wanted.find(state)?, &Names::of(state), true)))).await
}

/// Gives a dead letter to its handler once more.
pub(super) async fn retry(
    State(interface): State<Arc<Interface>>,
    id: Id,
    whose: Whose,
) -> Result<Json<Value>, ApiError> {
    let wanted = Wanted::parse(id, whose)?;
    let (id, told_failed, answer) = interface
        .blocking(move |state| {
            let letter = wanted.find(state)?;
            Ok((letter.id, letter.told_failed, state.retry_dead(&letter)))
        })
        .await?;
    match wait_for(answer).await {
        Some(Retried::Done) => {
            tracing::info!(offset = id.offset.0, index = id.index, "a dead letter was processed at last");
            Ok(Json(json!({ "retried": true, "told_failed": told_failed })))
        }
        Some(Retried::Gone) => Err(unknown(id.offset, id.index)),
        Some(Retried::Failed(reason)) => Err(ApiError::new(StatusCode::CONFLICT, format!("it failed again: {reason}"))),
        Some(Retried::Impossible(why)) => Err(ApiError::new(StatusCode::CONFLICT, why)),
        Some(Retried::Unanswered(why)) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why)),
        None => {
            let message = format!(
                "no answer within {} s: its lane waits for its sink, or for another record. It is retried when that is \
                 over, unless it is discarded before",
                PATIENCE.as_secs(),
            );
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message))
        }
    }
}

/// Forgets a dead letter for good: its record is never processed.
pub(super) async fn discard(
    State(interface): State<Arc<Interface>>,
    id: Id,
    whose: Whose,
) -> Result<Json<Value>, ApiError> {
    let wanted = Wanted::parse(id, whose)?;
    interface
        .blocking(move |state| {
            let id = wanted.find(state)?.id;
            if !state.dead_letters().delete(id)? {
                return Err(unknown(id.offset, id.index));
            }
            tracing::info!(offset = id.offset.0, index = id.index, "a dead letter was discarded by the operator");
            Ok(Json(json!({ "discarded": true })))
        })
        .await
}

/// Which letter is meant: that of a record, and of a sink if several have one of it.
struct Wanted {
    offset: Offset,
    index: u16,
    sink: Option<String>,
}

impl Wanted {
    fn parse(id: Id, whose: Whose) -> Result<Self, ApiError> {
        let Path((offset, index)) = id.map_err(|error| ApiError::bad_request(error.body_text()))?;
        let Query(WhoseQuery { sink }) = whose.map_err(|error| ApiError::bad_request(error.body_text()))?;
        Ok(Self { offset: Offset(offset), index, sink })
    }

    fn find(&self, state: &dyn AdminState) -> Result<DeadLetter, ApiError> {
        let (offset, index) = (self.offset, self.index);
        let names = Names::of(state);
        if let Some(name) = &self.sink {
            let letter = state.dead_letters().get(DeadLetterId { offset, index, sink: names.id(name)? })?;
            return letter.ok_or_else(|| {
                let message = format!("there is no dead letter {offset}/{index} of sink \"{name}\"");
                ApiError::new(StatusCode::NOT_FOUND, message)
            });
        }
        let first = DeadLetterId { offset, index, sink: SinkId::EMBEDDED };
        let mut letters = state.dead_letters().list(first, limits::ADMIN_DEAD_LETTERS)?;
        letters.retain(|letter| (letter.id.offset, letter.id.index) == (offset, index));
        match letters.len() {
            0 => Err(unknown(offset, index)),
            1 => Ok(letters.swap_remove(0)),
            _ => {
                let called =
                    |letter: &DeadLetter| names.name(letter.id.sink).unwrap_or_else(|| SinkId::EMBEDDED.to_string());
                let message = format!(
                    "several sinks have a dead letter {offset}/{index}: name one of them (--sink NAME): {}",
                    letters.iter().map(called).collect::<Vec<_>>().join(", ")
                );
                Err(ApiError::new(StatusCode::CONFLICT, message))
            }
        }
    }
}

fn as_json(letter: &DeadLetter, names: &Names, with_payload: bool) -> Value {
    record_json::dead_letter(letter, names.name(letter.id.sink).as_deref(), with_payload)
}

fn unknown(offset: Offset, index: u16) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no dead letter {offset}/{index}"))
}
