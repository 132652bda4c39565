//! How fast sinks write, for a comparison with the targets' own tools: batches of 1,000 records of 100 bytes. Run by hand:
//! `cargo test --release --test all -- --ignored --nocapture sinks::figures`.

use std::time::Instant;

use duragram::process::{Handler, Outcome, Outcomes, Record};

use super::support::lane::{self, Message};
use super::{nats, redis};

/// Presents so many records, each of them once, and prints what a second brings.
fn measure(name: &str, handler: &mut dyn Handler, count: u64) {
    let message = |offset| Message { offset, index: 0, channel: 7, payload: vec![b'x'; 100] };
    let messages: Vec<Message> = (0..count).map(message).collect();
    let records: Vec<Record<'_>> = messages.iter().map(Message::record).collect();
    let begin = Instant::now();
    for batch in records.chunks(1000) {
        let mut outcomes = Outcomes::new(batch.len());
        handler.process(batch, &mut outcomes);
        assert!(
            (0..batch.len()).all(|i| *outcomes.outcome(i) == Outcome::Done),
            "{name}: {:?}",
            outcomes.unavailable_reason()
        );
    }
    let seconds = begin.elapsed().as_secs_f64();
    eprintln!("{name}: {count} records in {seconds:.2} s, {:.0} a second", count as f64 / seconds);
    handler.flush().expect("it is all there");
}

#[test]
#[ignore = "prints figures, and holds nothing against a bound"]
fn redis_writes_so_many_records_a_second() {
    let server = redis::server(&[]);
    eprintln!("redis listens at {}", server.address());
    measure("redis", &mut *lane::handler(&redis::config(server.address()), 1, b"", 0), 1_000_000);
}

#[test]
#[ignore = "prints figures, and holds nothing against a bound"]
fn nats_writes_so_many_records_a_second() {
    let server = nats::server_that_syncs("2m");
    eprintln!("nats listens at {}", server.address());
    measure("nats", &mut *lane::handler(&nats::config(server.address()), 1, b"", 0), 500_000);
}
