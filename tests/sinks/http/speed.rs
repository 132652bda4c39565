//! How fast the sink is against the server of these tests, which is no fast one:
//! `cargo test --release --test all sinks::http::speed -- --ignored --nocapture`.

use std::time::Instant;

use duragram::model::HttpMode::{Batch, Record};

use super::super::support::lane::{Message, drive};
use super::server::{Response, Server};
use super::{PATIENCE, at, open};

#[test]
#[ignore = "prints figures, and holds nothing against a rule"]
fn figures_of_both_modes_with_records_of_100_bytes() {
    for (mode, in_flight, gzip, count) in [
        (Record, 1, false, 20_000),
        (Record, 4, false, 20_000),
        (Record, 16, false, 20_000),
        (Batch, 1, false, 200_000),
        (Batch, 1, true, 200_000),
    ] {
        let message = |offset| Message { offset, index: 0, channel: 7, payload: vec![b'x'; 100] };
        let messages: Vec<_> = (0..count).map(message).collect();
        let records: Vec<_> = messages.iter().map(Message::record).collect();
        let server = Server::start(|_| Response::status(200));
        let mut target = at(server.address(), mode);
        (target.in_flight_max, target.gzip) = (in_flight, gzip);
        let began = Instant::now();
        assert_eq!(drive(&mut *open(target), &records, 1_000, PATIENCE), []);
        let seconds = began.elapsed().as_secs_f64();
        eprintln!(
            "{mode:?}, {in_flight} in flight, gzip {gzip}: {:.0} records/s, {:.0} requests/s",
            records.len() as f64 / seconds,
            server.requests().len() as f64 / seconds
        );
    }
}
