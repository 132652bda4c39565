//! A server in 40 lines, with a handler of your own: it counts the readings of each client, and answers who asks how many there are.
//!
//! Run it with `cargo run --release --example embed`, then `seq 100 | duragram send`; Ctrl-C ends it.

use std::collections::HashMap;

use duragram::config::Config;
use duragram::model::Record;
use duragram::process::{Handler, HandlerError, LaneStart, Outcomes};
use duragram::server;

#[derive(Default)]
struct Count(HashMap<u64, u64>);

impl Handler for Count {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        for (i, record) in records.iter().enumerate() {
            let count = self.0.entry(record.session.client.0).or_default();
            *count += 1;
            // Dropped where nobody waits for it. An answer that is too long would be refused; this one is short.
            if outcomes.done_with(i, count.to_string().as_bytes()).is_err() {
                outcomes.done(i);
            }
        }
    }

    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        eprintln!("records by client: {:?}", self.0);
        Ok(Vec::new())
    }

    // Nothing here waits for a flush to be durable: answers need not wait for one either while another record is tried again.
    fn settle(&mut self) -> Result<bool, HandlerError> {
        Ok(true)
    }
}

fn main() -> Result<(), server::Error> {
    // One handler for each lane. What a lane has processed before is in `start.mark()`.
    let handler = |_start: &LaneStart<'_>| Ok(Box::new(Count::default()) as Box<dyn Handler>);
    server::run_with(Config::default(), handler, |ready| eprintln!("listening on {:?}", ready.udp))
}
