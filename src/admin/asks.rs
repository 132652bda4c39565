//! `/api/asks`: messages whose senders want an answer, as far as an operator sees them. An answer's body is its client's, and is
//! shown to nobody else.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use duragram_proto::ClientId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::age::oldest_from;
use super::answer::{PATIENCE, wait_for};
use super::error::ApiError;
use super::interface::Interface;
use super::state::{AdminState, AsksStatus};
use crate::journal::StorageError;
use crate::model::{AskState, AskView, AsksReport, AsksRequest, ClientAsks, parse_client_id};

/// Which client's asks are wanted, in the query of the URL.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhoseQuery {
    /// A client's id; without it the answer is an overview.
    client: Option<String>,
}

/// Answers with an overview, or with each ask of one client.
pub(super) async fn show(
    State(interface): State<Arc<Interface>>,
    query: Result<Query<WhoseQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(WhoseQuery { client }) = query.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let client = client.as_deref().map(parse).transpose()?;
    let request = client.map_or(AsksRequest::Overview, AsksRequest::Of);
    let report = ask(&interface, request).await?;
    // Reads the journal for the ages of those that were asked before the start.
    let told = interface.blocking(move |state| {
        Ok(match client {
            Some(client) => of_client(state, client, &report)?,
            None => overview(state, &report)?,
        })
    });
    Ok(Json(told.await?))
}

/// Forgets all asks of a client.
pub(super) async fn forget(
    State(interface): State<Arc<Interface>>,
    client: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(client) = client.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let client = parse(&client)?;
    let AsksReport { asks, .. } = ask(&interface, AsksRequest::Forget(client)).await?;
    if asks.is_empty() {
        return Err(ApiError::new(StatusCode::NOT_FOUND, format!("client {client} has no asks")));
    }
    let open = asks.iter().filter(|ask| ask.state == AskState::Open).count();
    Ok(Json(json!({ "client": client.to_string(), "forgotten": asks.len(), "open": open })))
}

/// Asks the committer, and waits until what it says is durable.
async fn ask(interface: &Interface, request: AsksRequest) -> Result<AsksReport, ApiError> {
    let unavailable = |why: String| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why);
    let answer = interface.state.ask_about_asks(request).map_err(unavailable)?;
    let Some(answer) = wait_for(answer).await else {
        let message = format!(
            "no answer within {} s: the disk is slow. What was asked for is done with the next commit; `duragram ask-status` \
             shows it then",
            PATIENCE.as_secs()
        );
        return Err(unavailable(message));
    };
    answer.map_err(unavailable)
}

fn parse(client: &str) -> Result<ClientId, ApiError> {
    parse_client_id(client).ok_or_else(|| {
        let wants = "a client is 16 hexadecimal digits, or 0x and such digits, or a number";
        ApiError::bad_request(format!("{client:?}: {wants}"))
    })
}

fn overview(state: &dyn AdminState, report: &AsksReport) -> Result<Value, StorageError> {
    let mut told = serde_json::to_value(AsksStatus::from(report.totals)).unwrap_or_default();
    let oldest = |ask: &AskView| {
        let session = ask.id.session;
        Ok::<_, StorageError>(json!({
            "client": session.client.to_string(),
            "epoch": session.epoch.value(),
            "seq": ask.id.seq.0,
            "offset": ask.offset.0,
            "age_seconds": age(state, ask)?,
        }))
    };
    let client = |of: &ClientAsks| {
        let ClientAsks { client, open, answered } = *of;
        json!({ "client": client.to_string(), "asks": open + answered, "open": open, "answered": answered })
    };
    told["oldest_open"] = report.oldest.as_ref().map(oldest).transpose()?.unwrap_or_default();
    told["clients"] = report.clients.iter().map(client).collect();
    told["clients_with_asks"] = report.clients_len.into();
    Ok(told)
}

fn of_client(state: &dyn AdminState, client: ClientId, report: &AsksReport) -> Result<Value, StorageError> {
    let show = |ask: &AskView| {
        let (state_name, length) = match ask.state {
            AskState::Open => ("OPEN", None),
            AskState::Done(length) => ("DONE", Some(length)),
            AskState::Failed => ("FAILED", Some(0)),
        };
        Ok(json!({
            "epoch": ask.id.session.epoch.value(),
            "seq": ask.id.seq.0,
            "offset": ask.offset.0,
            "state": state_name,
            "length": length,
            "age_seconds": age(state, ask)?,
            "answered_seconds": ask.answered_s,
        }))
    };
    let asks = report.asks.iter().map(show).collect::<Result<Vec<_>, StorageError>>()?;
    Ok(json!({ "client": client.to_string(), "asks": asks }))
}

/// For how many seconds its sender has waited, or since when it could have had the answer: of one that was asked before the start its
/// entry tells, as long as that is kept.
fn age(state: &dyn AdminState, ask: &AskView) -> Result<Option<u64>, StorageError> {
    if ask.asked_s.is_some() {
        return Ok(ask.asked_s);
    }
    let oldest = oldest_from(state, ask.offset)?;
    Ok(oldest.filter(|&(offset, _)| offset == ask.offset).map(|(_, age_s)| age_s))
}
