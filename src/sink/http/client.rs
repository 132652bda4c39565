//! Sends requests, and keeps what they need as long as it is good: connections and the secret. Both are made anew after five
//! minutes, and after anything went wrong that is no record's fault.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE, DATE, LOCATION, RETRY_AFTER};
use ureq::http::request::Builder;
use ureq::http::{HeaderMap, HeaderName, HeaderValue};
use ureq::{Agent, Error};
use zeroize::Zeroizing;

use super::super::secret;
use super::connect::{Connecting, Later};
use super::reply::{Hidden, Reply};
use super::verdict::{Fault, Verdict, judge};
use crate::limits;
use crate::model::HttpAuth;
use crate::process::handler::HandlerError;

/// A client of one server.
pub(super) struct Client {
    /// The server, as errors name it: without the path, which may hold a secret.
    origin: String,
    auth: Option<HttpAuth>,
    timeout: Duration,
    connections: usize,
    connecting: Connecting,
    session: Mutex<Option<Arc<Session>>>,
}

/// Connections that are good for a while, and what the server was told of who we are.
struct Session {
    agent: Agent,
    authorization: Option<HeaderValue>,
    hidden: Hidden,
    since: Instant,
}

impl Client {
    /// A client that keeps up to so many `connections`. It connects when it has something to send.
    pub(super) fn new(
        origin: String,
        auth: Option<HttpAuth>,
        connecting: Connecting,
        timeout: Duration,
        connections: usize,
    ) -> Self {
        Self { origin, auth, timeout, connections, connecting, session: Mutex::default() }
    }

    /// The server, as errors name it.
    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// Sends a request, and reads no more than `reply_max` bytes of the answer's body. Returns within the timeout.
    pub(super) fn send(&self, request: Builder, body: &[u8], reply_max: usize) -> Verdict {
        let session = match self.session() {
            Ok(session) => session,
            Err(error) => return Verdict::Fault(Fault::new(format!("{}: nothing was sent: {error}", self.origin))),
        };
        let verdict = match self.exchange(&session, request, body, reply_max) {
            Ok(reply) => judge(&self.origin, reply, &session.hidden),
            Err(error) => Verdict::Fault(Fault::new(self.explain(&error))),
        };
        if matches!(verdict, Verdict::Fault(_)) {
            self.end(&session);
        }
        verdict
    }

    /// A text that came from the server, as an error may show it.
    pub(super) fn printable(&self, text: &str) -> String {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session
            .as_ref()
            .map_or_else(|| Hidden::default().printable(text.as_bytes()), |s| s.hidden.printable(text.as_bytes()))
    }

    /// What connections there are is closed when nobody uses it any more: the next request connects anew.
    pub(super) fn renew(&self) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn exchange(&self, session: &Session, request: Builder, body: &[u8], reply_max: usize) -> Result<Reply, Error> {
        let mut request = request.body(body)?;
        if let Some(authorization) = &session.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let (parts, body) = session.agent.run(request)?.into_parts();
        let text = |name: HeaderName| header(&parts.headers, &name);
        let (body, complete) = read(body.into_reader(), reply_max);
        Ok(Reply {
            status: parts.status.as_u16(),
            content_type: text(CONTENT_TYPE),
            retry_after: text(RETRY_AFTER),
            date: text(DATE),
            location: text(LOCATION),
            body,
            complete,
        })
    }

    fn session(&self) -> Result<Arc<Session>, HandlerError> {
        let mut current = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some(session) if session.since.elapsed() < limits::SINK_CONNECTION_AGE => Ok(Arc::clone(session)),
            _ => Ok(Arc::clone(current.insert(Arc::new(self.open()?)))),
        }
    }

    fn open(&self) -> Result<Session, HandlerError> {
        let config = Agent::config_builder()
            // What the environment names as a proxy is meant for programs of people.
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(self.timeout))
            .user_agent(concat!("duragram/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("")
            .max_response_header_size(limits::HTTP_HEAD_BYTES)
            .input_buffer_size(limits::HTTP_BUFFER_BYTES)
            .output_buffer_size(limits::HTTP_BUFFER_BYTES)
            .max_idle_connections(self.connections)
            .max_idle_connections_per_host(self.connections)
            .max_idle_age(Duration::from_secs(limits::HTTP_IDLE_S))
            .build();
        let (scheme, text, secret) = match &self.auth {
            None => (None, Zeroizing::default(), Zeroizing::default()),
            Some(HttpAuth::Bearer(token)) => {
                let token = secret::read(token)?;
                (Some("Bearer"), token.clone(), token)
            }
            Some(HttpAuth::Basic { user, password }) => {
                let password = secret::read(password)?;
                let pair = Zeroizing::new(format!("{user}:{}", password.as_str()));
                (Some("Basic"), Zeroizing::new(STANDARD.encode(pair.as_bytes())), password)
            }
        };
        let authorization = scheme.map(|scheme| {
            let line = Zeroizing::new(format!("{scheme} {}", text.as_str()));
            let value = HeaderValue::from_str(&line);
            let mut value = value
                .map_err(|_| HandlerError::new("`auth`: the secret holds what no header can carry (a line's end?)"))?;
            value.set_sensitive(true);
            Ok(value)
        });
        let agent = Agent::with_parts(config, self.connecting.clone(), Later);
        let authorization = authorization.transpose()?;
        Ok(Session { agent, authorization, hidden: Hidden::new([text, secret]), since: Instant::now() })
    }

    /// Uses a session no more, unless another has taken its place already.
    fn end(&self, session: &Arc<Session>) {
        let mut current = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            *current = None;
        }
    }

    fn explain(&self, error: &Error) -> String {
        let origin = &self.origin;
        match error {
            Error::Timeout(_) => format!(
                "{origin} did not answer within {:?} (`timeout`): whether it has taken what was sent is in doubt, so the same comes \
                 again",
                self.timeout
            ),
            Error::Io(error) if is_tls(error) => format!("{origin}: TLS: {error}; {TLS_ADVICE}"),
            Error::Rustls(error) => format!("{origin}: TLS: {error}; {TLS_ADVICE}"),
            Error::Other(error) => format!("{origin}: {error}"),
            Error::Io(error) => format!("{origin}: {error}"),
            error => format!("{origin}: {error}"),
        }
    }
}

const TLS_ADVICE: &str = "check `tls.ca_file`, `tls.cert_file` and `tls.key_file`, and the name in `url`";

fn is_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

/// A header's value, if it is text.
fn header(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Up to so many bytes, and whether that was all. What cannot be read is not there: the status has said what counts.
fn read(mut body: impl Read, bytes_max: usize) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let read = body.by_ref().take(bytes_max as u64).read_to_end(&mut bytes);
    // Only who has seen the end gives the connection back.
    let complete = read.is_ok() && matches!(body.read(&mut [0]), Ok(0));
    (bytes, complete)
}
