//! A service behind the server, which answers the clients that ask: over HTTP in the test's own process, so that a test decides
//! when each answer is given.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};

use crate::sinks::http::server::{Request, Response, Server};

/// Answers each record with its text in capitals, but `no …` with a refusal (422), `none …` with no body, `long N` with N bytes, and
/// what is held back only when that is let go.
pub(crate) struct Service {
    http: Server,
    held: Arc<Held>,
}

#[derive(Default)]
struct Held {
    payloads: Mutex<HashSet<Vec<u8>>>,
    changed: Condvar,
}

impl Service {
    pub(crate) fn start() -> Self {
        Self::start_with(answer)
    }

    /// As `start`, with other answers to what is not held back.
    pub(crate) fn start_with(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let held = Arc::new(Held::default());
        let waits = Arc::clone(&held);
        let http = Server::start(move |request| {
            let payloads = waits.payloads.lock().expect("nobody panicked with it");
            drop(waits.changed.wait_while(payloads, |held| held.contains(&request.body)));
            answer(request)
        });
        Self { http, held }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.http.address()
    }

    /// The sink whose records come here.
    pub(crate) fn sink(&self) -> String {
        format!("http://{}/", self.address())
    }

    /// Records with this payload are not answered from now on.
    pub(crate) fn hold(&self, payload: &[u8]) {
        self.held.payloads.lock().expect("nobody panicked with it").insert(payload.to_vec());
    }

    /// They are, and at once those that came meanwhile.
    pub(crate) fn release(&self, payload: &[u8]) {
        self.held.payloads.lock().expect("nobody panicked with it").remove(payload);
        self.held.changed.notify_all();
    }

    /// All that came so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.http.requests()
    }

    /// How often a payload came.
    pub(crate) fn times(&self, payload: &[u8]) -> usize {
        self.requests().iter().filter(|request| request.body == payload).count()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Ok(mut payloads) = self.held.payloads.lock() {
            payloads.clear();
        }
        self.held.changed.notify_all();
    }
}

fn answer(request: &Request) -> Response {
    let text = request.text();
    match text.split_once(' ') {
        Some(("no", _)) => Response::status(422).body("what is wrong here is the operator's affair"),
        Some(("none", _)) => Response::status(204),
        Some(("long", bytes)) => Response::status(200).body(vec![b'x'; bytes.parse().expect("a number")]),
        _ => Response::status(200).body(text.to_uppercase()),
    }
}
