//! A handler that is slow until it is told to be fast, and the server that it runs in.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use duragram::config::Config;
use duragram::process::{Handler, HandlerError, LaneStart, Outcomes, Record};

const LANES: u16 = 2;

/// A server whose documented sum of memory is near what it needs: few sessions.
pub(crate) fn config(data: PathBuf) -> Config {
    let loopback = "127.0.0.1:0".parse().expect("an address");
    Config {
        listen: vec![loopback],
        admin: Some(loopback),
        data,
        sessions_max: 1_024,
        lanes: LANES,
        ..Config::default()
    }
}

/// How fast the handlers are, and how far they have come.
#[derive(Debug)]
pub(crate) struct Pace {
    records_per_second: u32,
    fast: AtomicBool,
    processed: AtomicU64,
}

impl Pace {
    /// So many records a second over all lanes until it is fast.
    pub(crate) fn new(records_per_second: u32) -> Arc<Self> {
        Arc::new(Self { records_per_second, fast: AtomicBool::new(false), processed: AtomicU64::new(0) })
    }

    /// From now on as fast as the machine.
    pub(crate) fn be_fast(&self) {
        self.fast.store(true, Ordering::Relaxed);
    }

    /// Records over all lanes.
    pub(crate) fn processed(&self) -> u64 {
        self.processed.load(Ordering::Relaxed)
    }
}

/// Makes the lanes' handlers. Reopening (SIGHUP) makes them fast too.
pub(crate) fn handlers(
    pace: &Arc<Pace>,
) -> impl FnMut(&LaneStart<'_>) -> Result<Box<dyn Handler>, HandlerError> + Send + 'static {
    let pace = Arc::clone(pace);
    move |_| Ok(Box::new(Slow { pace: Arc::clone(&pace) }))
}

struct Slow {
    pace: Arc<Pace>,
}

impl Handler for Slow {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        let mut left = records.len();
        // In pieces, so that it is fast as soon as it is told to be.
        while left > 0 && !self.pace.fast.load(Ordering::Relaxed) {
            let piece = left.min(1_000);
            let share = self.pace.records_per_second / u32::from(LANES);
            std::thread::sleep(Duration::from_secs_f64(piece as f64 / f64::from(share.max(1))));
            left -= piece;
        }
        self.pace.processed.fetch_add(records.len() as u64, Ordering::Relaxed);
        outcomes.done_all();
    }

    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        Ok(Vec::new())
    }

    fn reopen(&mut self) -> Result<(), HandlerError> {
        self.pace.be_fast();
        Ok(())
    }
}
