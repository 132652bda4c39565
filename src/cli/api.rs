//! The admin API as the command line calls it.

use std::io::{BufReader, Read};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use ureq::http::StatusCode;
use ureq::{Agent, Body, http};

use super::Failure;
use crate::admin::REQUEST_HEADER;
use crate::config::ADMIN_PORT;

/// Where the running server's admin interface is.
#[derive(Debug, clap::Args)]
pub(super) struct AdminArgs {
    /// Admin address of the running server
    #[arg(long = "admin", value_name = "IP:PORT", env = "DURAGRAM_ADMIN")]
    #[arg(default_value_t = SocketAddr::from(([127, 0, 0, 1], ADMIN_PORT)))]
    address: SocketAddr,
}

/// Why a call came to nothing.
#[derive(Debug)]
pub(super) enum ApiFailure {
    /// No server answered.
    Unreachable(String),
    /// The server refused, and said why.
    Refused { status: StatusCode, message: String },
}

impl ApiFailure {
    /// Whether the same call may succeed later: there is no server now, or it is starting, stopping or full.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Refused { status, .. } => status.is_server_error(),
        }
    }
}

impl From<ApiFailure> for Failure {
    fn from(failure: ApiFailure) -> Self {
        match failure {
            ApiFailure::Unreachable(message) | ApiFailure::Refused { message, .. } => Self::not_done(message),
        }
    }
}

/// A connection to the admin interface.
#[derive(Debug)]
pub(super) struct Api {
    address: SocketAddr,
    agent: Agent,
}

impl Api {
    pub(super) fn new(args: &AdminArgs) -> Self {
        let config = Agent::config_builder()
            // A proxy that the environment names has no business with loopback.
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .build();
        Self { address: args.address, agent: Agent::new_with_config(config) }
    }

    /// Where it calls.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The JSON at a path.
    pub(super) fn get(&self, path: &str) -> Result<Value, ApiFailure> {
        self.json(self.agent.get(self.url(path)).call())
    }

    /// Asks for a change.
    pub(super) fn post(&self, path: &str) -> Result<Value, ApiFailure> {
        self.json(self.agent.post(self.url(path)).header(REQUEST_HEADER, "1").send_empty())
    }

    /// Asks for a deletion.
    pub(super) fn delete(&self, path: &str) -> Result<Value, ApiFailure> {
        self.json(self.agent.delete(self.url(path)).header(REQUEST_HEADER, "1").call())
    }

    /// The lines at a path, as they come.
    pub(super) fn lines(&self, path: &str) -> Result<BufReader<impl Read + use<>>, ApiFailure> {
        let answer = self.answer(self.agent.get(self.url(path)).call())?;
        Ok(BufReader::with_capacity(64 * 1024, answer.into_body().into_reader()))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn json(&self, result: Result<http::Response<Body>, ureq::Error>) -> Result<Value, ApiFailure> {
        let mut answer = self.answer(result)?;
        let text = answer.body_mut().read_to_string().map_err(|error| self.unreachable(&error))?;
        serde_json::from_str(&text).map_err(|_| ApiFailure::Refused {
            status: answer.status(),
            message: format!("what answers at {} is not duragram's admin interface", self.address),
        })
    }

    fn answer(&self, result: Result<http::Response<Body>, ureq::Error>) -> Result<http::Response<Body>, ApiFailure> {
        let mut answer = result.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        let told =
            serde_json::from_str::<Value>(&text).ok().and_then(|json| Some(json.get("error")?.as_str()?.to_owned()));
        let message = told.unwrap_or_else(|| format!("the server at {} answered {status}", self.address));
        Err(ApiFailure::Refused { status, message })
    }

    fn unreachable(&self, error: &ureq::Error) -> ApiFailure {
        ApiFailure::Unreachable(format!(
            "no answer from the admin interface at {}: {error}; is the server running, is its --admin another?",
            self.address
        ))
    }
}
