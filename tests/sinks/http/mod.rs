//! The sink `http` against a server of the test's own.

mod batches;
mod faults;
mod records;
pub(crate) mod server;
mod speed;
mod tls;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use duragram::model::{HttpMode, HttpTarget, LaneMark, SinkTarget, TlsConfig};
use duragram::process::{Handler, HandlerError, Outcomes, Record};

use super::support::lane;

const TIMEOUT: Duration = Duration::from_secs(5);
/// Far longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(30);

/// The journal's name in all tests of this sink.
const JOURNAL: &str = "0000000000000000000000000000d09a";

fn target(url: String, mode: HttpMode) -> HttpTarget {
    HttpTarget {
        url,
        mode,
        content_type: "application/octet-stream".into(),
        headers: Vec::new(),
        auth: None,
        tls: TlsConfig::default(),
        gzip: false,
        in_flight_max: 1,
    }
}

fn at(address: SocketAddr, mode: HttpMode) -> HttpTarget {
    target(format!("http://{address}/in?table=a"), mode)
}

fn try_open(target: HttpTarget, timeout: Duration) -> Result<Box<dyn Handler>, HandlerError> {
    let config = lane::config("out", SinkTarget::Http(target), timeout);
    let mark = LaneMark::default();
    duragram::sink::handler(&config, &lane::start(lane::journal(0xd09a), 1, &mark))
}

fn open(target: HttpTarget) -> Box<dyn Handler> {
    try_open(target, TIMEOUT).expect("it opens without connecting")
}

/// Presents the records once: what is answered, and how long it took.
fn present(handler: &mut dyn Handler, records: &[Record<'_>]) -> (Outcomes, Duration) {
    let mut outcomes = Outcomes::new(records.len());
    let began = Instant::now();
    handler.process(records, &mut outcomes);
    (outcomes, began.elapsed())
}

/// The reason for which the sink is not available.
///
/// # Panics
/// It is.
fn fault(outcomes: &Outcomes) -> &str {
    outcomes.unavailable_reason().unwrap_or_else(|| panic!("it is available: {outcomes:?}"))
}
