//! `slow_sink DATA RECORDS_PER_SECOND`: a server whose processing is slower than ingestion until it gets SIGHUP, for
//! `scripts/soak-memory`.
//!
//! Prints `slow_sink ready udp=ADDR admin=ADDR`, serves until SIGTERM or SIGINT, and prints how many records it has
//! processed.

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use duragram::config::Config;
use duragram::model::Record;
use duragram::process::{Handler, HandlerError, LaneStart, Outcomes};
use duragram::server;

const LANES: u16 = 2;

/// What the lanes' handlers share.
struct Pace {
    /// Over all lanes, until it is fast.
    records_per_second: u32,
    fast: AtomicBool,
    processed: AtomicU64,
}

struct Slow(Arc<Pace>);

impl Handler for Slow {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        let share = f64::from(self.0.records_per_second) / f64::from(LANES);
        if !self.0.fast.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_secs_f64(records.len() as f64 / share));
        }
        self.0.processed.fetch_add(records.len() as u64, Ordering::Relaxed);
        outcomes.done_all();
    }

    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        Ok(Vec::new())
    }

    fn reopen(&mut self) -> Result<(), HandlerError> {
        self.0.fast.store(true, Ordering::Relaxed);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [data, records_per_second] = args.as_slice() else {
        return Err("usage: slow_sink DATA RECORDS_PER_SECOND".into());
    };
    let loopback: SocketAddr = "127.0.0.1:0".parse()?;
    let config = Config {
        listen: vec![loopback],
        admin: Some(loopback),
        data: data.into(),
        // Few, so that the documented sum is near what is needed.
        sessions_max: 1_024,
        lanes: LANES,
        ..Config::default()
    };
    let records_per_second = records_per_second.parse::<u32>()?.max(1);
    let pace = Arc::new(Pace { records_per_second, fast: AtomicBool::new(false), processed: AtomicU64::new(0) });
    let handlers = {
        let pace = Arc::clone(&pace);
        move |_: &LaneStart<'_>| Ok(Box::new(Slow(Arc::clone(&pace))) as Box<dyn Handler>)
    };
    let mut out = std::io::stdout();
    let mut told = Ok(());
    server::run_with(config, handlers, |ready| {
        let admin = ready.admin.map_or_else(String::new, |admin| admin.to_string());
        told = writeln!(out, "slow_sink ready udp={} admin={admin}", ready.udp[0]);
    })?;
    told?;
    writeln!(out, "processed {} records", pace.processed.load(Ordering::Relaxed))?;
    Ok(())
}
