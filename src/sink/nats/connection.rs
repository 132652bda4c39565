//! A connection to the server with the runtime that drives it: it moves only while a call waits for it. When it breaks it is not
//! mended but made anew, so that nothing that was sent long ago is ever sent again behind our back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

use super::trouble;
use crate::limits;
use crate::model::{NatsAuth, NatsTarget, TlsConfig};
use crate::process::handler::HandlerError;
use crate::sink::{secret, tls};

/// The connection is open, and is closed when this is dropped.
pub(super) struct Connection {
    /// Taken when this is dropped, which must wait for nothing.
    runtime: Option<Runtime>,
    pub(super) client: Client,
    pub(super) context: Context,
    timeout: Duration,
    since: Instant,
    used: Instant,
    events: Arc<Events>,
}

/// What the client tells of its connection.
#[derive(Default)]
struct Events {
    lost: Notify,
    said: Mutex<Option<String>>,
}

impl Events {
    fn hear(&self, event: &Event) {
        match event {
            Event::Disconnected | Event::Closed | Event::Draining | Event::LameDuckMode => self.lost.notify_one(),
            Event::ServerError(_) | Event::ClientError(_) => {
                *self.said.lock().unwrap_or_else(PoisonError::into_inner) = Some(event.to_string());
            }
            Event::Connected | Event::SlowConsumer(_) => {}
        }
    }

    /// What the server said last, behind a reason.
    fn with(&self, reason: &str) -> String {
        match &*self.said.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(said) => format!("{reason} ({said})"),
            None => reason.to_owned(),
        }
    }
}

impl Connection {
    /// Connects: resolves names, reads secrets and certificates, and logs in.
    pub(super) fn open(target: &NatsTarget, timeout: Duration) -> Result<Self, HandlerError> {
        let addresses = target.url.split(',').map(|url| url.trim().parse::<ServerAddr>());
        let addresses: Vec<ServerAddr> = addresses.collect::<Result<_, _>>().map_err(HandlerError::new)?;
        let events = Arc::new(Events::default());
        let hearing = Arc::clone(&events);
        let options = options(target, &addresses)?
            .name("duragram")
            .connection_timeout(timeout)
            .request_timeout(Some(timeout))
            .max_reconnects(addresses.len())
            .event_callback(move |event| {
                hearing.hear(&event);
                std::future::ready(())
            });
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| HandlerError::new(format_args!("starting tokio: {error}")))?;
        let connecting = async { tokio::time::timeout(timeout, options.connect(addresses)).await };
        let client = match runtime.block_on(connecting) {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => Err(events.with(&trouble::of_connecting(&error))),
            Err(_) => Err(events.with("it did not answer in time (timeout)")),
        };
        let client = match client {
            Ok(client) => client,
            Err(reason) => {
                runtime.shutdown_background();
                return Err(HandlerError::new(reason));
            }
        };
        // It starts a task of its own.
        let entered = runtime.enter();
        let mut context = jetstream::new(client.clone());
        context.set_timeout(timeout);
        drop(entered);
        let now = Instant::now();
        Ok(Self { runtime: Some(runtime), client, context, timeout, since: now, used: now, events })
    }

    /// Whether to connect anew at the next opportunity: so that a changed name or certificate is noticed, or since the server
    /// has heard nothing for so long that it may have given us up.
    pub(super) fn is_old(&self) -> bool {
        self.since.elapsed() >= limits::SINK_CONNECTION_AGE || self.used.elapsed().as_secs() >= limits::SINK_NATS_IDLE_S
    }

    /// Waits for what is to be done, for so long as the target may take, and no longer than the connection lives.
    ///
    /// # Errors
    /// Its own, or why there was no answer.
    pub(super) fn run<T, E: From<String>>(&mut self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let Some(runtime) = &self.runtime else { return Err("the connection is closed".to_owned().into()) };
        let (timeout, events) = (self.timeout, &self.events);
        let result = runtime.block_on(async {
            tokio::select! {
                biased;
                result = work => result,
                () = events.lost.notified() => Err(events.with("the connection broke").into()),
                () = tokio::time::sleep(timeout) => Err(events.with("it did not answer in time (timeout)").into()),
            }
        });
        self.used = Instant::now();
        result
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn options(target: &NatsTarget, addresses: &[ServerAddr]) -> Result<ConnectOptions, HandlerError> {
    let options = ConnectOptions::new();
    let options = match &target.auth {
        None => options,
        Some(NatsAuth::Token(token)) => options.token(secret::read(token)?.to_string()),
        Some(NatsAuth::User { user, password }) => {
            options.user_and_password(user.clone(), secret::read(password)?.to_string())
        }
        Some(NatsAuth::Credentials(credentials)) => {
            // What the library says of a bad file may hold a piece of it.
            let read = options.credentials(&secret::read(credentials)?);
            read.map_err(|_| HandlerError::new("the credentials are not those of a .creds file (a JWT and a seed)"))?
        }
    };
    if addresses.iter().any(ServerAddr::tls_required) || target.tls != TlsConfig::default() {
        // Not left to what the server says in clear: whoever stands in its place could ask for the password without TLS.
        return Ok(options.require_tls(true).tls_client_config(tls::client_config(&target.tls)?));
    }
    // A server may ask for TLS; where this machine trusts nobody it may still do without.
    Ok(match tls::client_config(&target.tls) {
        Ok(config) => options.tls_client_config(config),
        Err(_) => options,
    })
}
