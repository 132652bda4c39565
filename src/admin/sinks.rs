//! `/api/sinks`: how far each sink has come, and what an operator tells it.
//!
//! A sink is named in the query (`?name=`): names hold `/` and `:`, which proxies decode, join or refuse in a path.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::age::oldest_from;
use super::answer::{PATIENCE, wait_for};
use super::error::ApiError;
use super::interface::{Interface, KnownSink};
use super::sink_view::{SinkChange, SinkRefused, SinkState, SinkView};
use super::state::AdminState;
use crate::journal::StorageError;
use crate::model::{BacklogConfig, Offset, SinkId, SinkLoss, WhenFull};
use crate::record_json::timestamp;

/// The sink that a request is about.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichQuery {
    name: String,
}

type Which = Result<Query<WhichQuery>, QueryRejection>;

/// Answers with all sinks that the journal knows, and the dead letters that are no sink's.
pub(super) async fn list(State(interface): State<Arc<Interface>>) -> Result<Json<Value>, ApiError> {
    let known = Arc::clone(&interface.sinks);
    interface
        .blocking(move |state| {
            let counts = state.dead_letters().counts();
            let mut of_others = counts.total();
            let views = state.sinks();
            // After the sinks: none is beyond it.
            let end = state.end();
            let mut sinks = Vec::with_capacity(views.len());
            for view in &views {
                let dead_letters = counts.of(view.record.id);
                of_others = of_others.saturating_sub(dead_letters);
                sinks.push(show(state, view, &known, end, dead_letters)?);
            }
            Ok(Json(json!({ "sinks": sinks, "end": end.0, "dead_letters_of_others": of_others })))
        })
        .await
}

fn show(
    state: &dyn AdminState,
    view: &SinkView,
    known: &[KnownSink],
    end: Offset,
    dead_letters: u64,
) -> Result<Value, StorageError> {
    let record = &view.record;
    let watermark = record.mark.watermark;
    let is_configured = view.state != SinkState::NotConfigured;
    let known = known.iter().find(|known| is_configured && known.name == record.name);
    let loss = |loss: &SinkLoss| {
        let SinkLoss { from, to, entries, unix_us } = *loss;
        json!({ "from": from.0, "to": to.0, "entries": entries, "lost_at": timestamp(unix_us) })
    };
    let backlog = view.backlog.map(|BacklogConfig { bytes_max, when_full }| {
        let held = u128::from(view.held_bytes.unwrap_or(0));
        json!({
            "bytes_max": bytes_max,
            "when_full": when_full_name(when_full),
            "percent": bytes_max.map(|max| u64::try_from(100 * held / u128::from(max.max(1))).unwrap_or(u64::MAX)),
            "blocks": view.blocks,
        })
    });
    Ok(json!({
        "name": record.name,
        "id": record.id.to_string(),
        "type": known.map(|known| known.kind),
        "promise": known.map(|known| known.promise),
        "state": view.state.name(),
        "since": view.since_unix_s.map(|since| timestamp(since.saturating_mul(1_000_000))),
        "reason": view.reason,
        "watermark": watermark.0,
        "lag": end.since(watermark),
        "held_bytes": view.held_bytes,
        "oldest_seconds": oldest_seconds(state, watermark, end)?,
        "dead_letters": dead_letters,
        "lost_entries": record.losses.iter().fold(0, |sum: u64, loss| sum.saturating_add(loss.entries)),
        "losses": record.losses.iter().map(loss).collect::<Vec<_>>(),
        "backlog": backlog,
    }))
}

fn when_full_name(when_full: WhenFull) -> &'static str {
    match when_full {
        WhenFull::Block => "block",
        WhenFull::DropOldest => "drop_oldest",
        WhenFull::Detach => "detach",
    }
}

/// For how long the oldest entry waits that is kept from the watermark on; `None` when there is none.
fn oldest_seconds(state: &dyn AdminState, watermark: Offset, end: Offset) -> Result<Option<u64>, StorageError> {
    if watermark >= end {
        return Ok(None);
    }
    Ok(oldest_from(state, watermark)?.map(|(_, age_s)| age_s))
}

/// Stops a sink until it is resumed.
pub(super) async fn pause(State(interface): State<Arc<Interface>>, which: Which) -> Result<Json<Value>, ApiError> {
    change(&interface, &name(which)?, SinkChange::Pause).await?;
    Ok(Json(json!({ "paused": true })))
}

/// Lets a sink go on that was paused.
pub(super) async fn resume(State(interface): State<Arc<Interface>>, which: Which) -> Result<Json<Value>, ApiError> {
    change(&interface, &name(which)?, SinkChange::Resume).await?;
    Ok(Json(json!({ "resumed": true })))
}

/// The body of `seek` says where the sink is to go on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeekBody {
    offset: Place,
}

/// Where a sink is to go on.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Place {
    At(u64),
    Named(NamedPlace),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum NamedPlace {
    Oldest,
    Now,
}

/// Lets a sink go on elsewhere: at an entry that is kept, or the journal's end. What lies beyond either is taken for that, and the
/// answer says which it was.
pub(super) async fn seek(
    State(interface): State<Arc<Interface>>,
    which: Which,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let name = name(which)?;
    let SeekBody { offset: place } = serde_json::from_slice(&body).map_err(|_| {
        ApiError::bad_request(r#"the body says where to: {"offset": 1042}, {"offset": "oldest"} or {"offset": "now"}"#)
    })?;
    let (low, end) = interface
        .blocking(|state| {
            let end = state.end();
            let lowest = state.journal().read(Offset(0), 1)?;
            Ok((lowest.first().map_or(end, |block| block.first()).min(end), end))
        })
        .await?;
    let to = match place {
        Place::At(offset) => Offset(offset).clamp(low, end),
        Place::Named(NamedPlace::Oldest) => low,
        Place::Named(NamedPlace::Now) => end,
    };
    change(&interface, &name, SinkChange::Seek(to)).await?;
    Ok(Json(json!({ "offset": to.0, "oldest": low.0, "end": end.0 })))
}

/// Forgets a sink: its place, and what it could not process.
pub(super) async fn remove(State(interface): State<Arc<Interface>>, which: Which) -> Result<Json<Value>, ApiError> {
    let name = name(which)?;
    let id = interface.state.sinks().into_iter().find(|view| view.record.name == name).map(|view| view.record.id);
    change(&interface, &name, SinkChange::Remove).await?;
    // Who is known to be removed was there before.
    let id = id.unwrap_or(SinkId::EMBEDDED);
    if wait_for(|| interface.state.sink_has_stopped(id).then_some(())).await.is_none() {
        let message = format!(
            "sink \"{name}\" is removed, and its target has not answered the last call within {} s: its dead letters are still \
             there; discard them when it has (their sink is {id})",
            PATIENCE.as_secs()
        );
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message));
    }
    let discarded = interface
        .blocking(move |state| if id == SinkId::EMBEDDED { Ok(0) } else { Ok(state.dead_letters().delete_of(id)?) })
        .await?;
    Ok(Json(json!({ "removed": true, "dead_letters": discarded })))
}

fn name(which: Which) -> Result<String, ApiError> {
    let Query(WhichQuery { name }) = which.map_err(|error| ApiError::bad_request(error.body_text()))?;
    Ok(name)
}

/// Asks for a change, and waits until it is durable.
async fn change(interface: &Interface, name: &str, change: SinkChange) -> Result<(), ApiError> {
    let answer = interface.state.change_sink(name, change).map_err(|refused| match refused {
        SinkRefused::Unknown(message) => ApiError::new(StatusCode::NOT_FOUND, message),
        SinkRefused::NotConfigured(message) => ApiError::new(StatusCode::CONFLICT, message),
        SinkRefused::Busy(message) => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message),
    })?;
    match wait_for(answer).await {
        Some(Ok(())) => Ok(()),
        Some(Err(message)) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)),
        None => {
            let message = format!(
                "no answer within {} s: the sink waits for its target, or the disk is slow. What was asked for is done when that \
                 is over; `duragram sink list` shows it then",
                PATIENCE.as_secs()
            );
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message))
        }
    }
}

/// The names of sinks by their ids, and back.
pub(super) struct Names(Vec<(SinkId, String)>);

impl Names {
    /// Those that there are now.
    pub(super) fn of(state: &dyn AdminState) -> Self {
        Self(state.sinks().into_iter().map(|view| (view.record.id, view.record.name)).collect())
    }

    /// What the sink is called: by its id when it has no name any more; `None` for a handler of a program.
    pub(super) fn name(&self, sink: SinkId) -> Option<String> {
        let name = self.0.iter().find(|(id, _)| *id == sink).map(|(_, name)| name.clone());
        (sink != SinkId::EMBEDDED).then(|| name.unwrap_or_else(|| sink.to_string()))
    }

    /// The sink that is called so, by its name or its id.
    pub(super) fn id(&self, name: &str) -> Result<SinkId, ApiError> {
        let named = self.0.iter().find(|(_, known)| known == name).map(|(id, _)| *id);
        named.or_else(|| SinkId::parse(name)).ok_or_else(|| {
            let known: Vec<&str> = self.0.iter().map(|(_, name)| name.as_str()).collect();
            let message = match known[..] {
                [] => format!("there is no sink \"{name}\": there are none"),
                _ => format!("there is no sink \"{name}\"; there are: {}", known.join(", ")),
            };
            ApiError::new(StatusCode::NOT_FOUND, message)
        })
    }
}
