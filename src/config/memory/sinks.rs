//! What each configured sink may take beside its lane: the batch that it puts together, connections, a child's pipes, threads.

use duragram_proto::codec::DATAGRAM_LEN_MAX;

use crate::limits::{
    ENTRY_RECORDS, EXEC_LAST_WORDS_BYTES, EXEC_LINE_BYTES, EXEC_PIECE_BYTES, HTTP_ANSWERS_BYTES, HTTP_BUFFER_BYTES,
    HTTP_HEAD_BYTES, HTTP_REPLY_BYTES, MQTT_PACKET_BYTES, MQTT_WRITE_BYTES, PRESENTED_RECORD_BYTES,
    SINK_CONNECTION_BYTES, SINK_KEY_BYTES, SINK_LINES_BYTES, SINK_NATS_RECORDS, SINK_RECORD_HEAD_BYTES,
    SINK_REDIS_RECORDS, SINK_SUBJECT_BYTES, SINK_TOPIC_BYTES, SINK_WRITTEN_COPIES,
};
use crate::model::{HttpMode, HttpTarget, SinkConfig, SinkTarget};

/// Threads that a sink has beside its lane, at most: one that watches a FIFO, or reads a child's errors and waits for its end, or
/// resolves a name (and the last one that did may not have ended).
const HELPERS: usize = 2;

/// Threads of the sink, that of its lane not among them.
pub(super) fn threads(sink: &SinkConfig) -> usize {
    let SinkTarget::Http(http) = &sink.target else { return HELPERS };
    HELPERS + in_flight(http) - 1
}

/// File descriptors that the sink may have open at a time.
pub(super) fn files(sink: &SinkConfig) -> u64 {
    match &sink.target {
        SinkTarget::Null => 0,
        // The file itself, and another while it is changed for that.
        SinkTarget::Stdout | SinkTarget::File(_) => 3,
        // A connection, and a file of certificates or a secret that is read for it.
        SinkTarget::Http(http) => 2 * in_flight(http) as u64,
        // Three pipes, their other ends while the child begins, and how its end is noticed.
        SinkTarget::Exec(_) => 8,
        // A connection, the one that takes its place, what a runtime waits with, and a file that is read.
        SinkTarget::Postgres(_) | SinkTarget::Nats(_) | SinkTarget::Redis(_) | SinkTarget::Mqtt(_) => 8,
    }
}

/// What the batch takes of a sink that puts one together for another system, with the records that its lane presents beyond those
/// of other lanes; 0 for a sink of lines, whose lines are reckoned for every sink.
pub(super) fn batch_bytes(sink: &SinkConfig) -> u64 {
    let records = (sink.batch.records_max as u64).saturating_add(ENTRY_RECORDS as u64);
    let read = (sink.batch.bytes_max as u64).saturating_add(DATAGRAM_LEN_MAX as u64);
    let presented = records.saturating_mul(PRESENTED_RECORD_BYTES as u64);
    let written = |at_a_time: u64, head: usize| {
        let heads = records.min(at_a_time).saturating_mul(head as u64);
        read.saturating_add(heads).saturating_mul(SINK_WRITTEN_COPIES as u64)
    };
    let at_target = match &sink.target {
        SinkTarget::Null | SinkTarget::Stdout | SinkTarget::File(_) => return 0,
        // Its body, compressed, in a buffer that grows; the lines themselves are reckoned for every sink.
        SinkTarget::Http(HttpTarget { mode: HttpMode::Batch, .. }) => 2 * SINK_LINES_BYTES as u64,
        SinkTarget::Http(http) => in_flight(http) as u64 * 3 * DATAGRAM_LEN_MAX as u64,
        // Lines, and the record that was done last.
        SinkTarget::Exec(_) => (2 * (EXEC_PIECE_BYTES + 6 * DATAGRAM_LEN_MAX) + DATAGRAM_LEN_MAX) as u64,
        SinkTarget::Postgres(_) => written(u64::MAX, SINK_RECORD_HEAD_BYTES),
        SinkTarget::Nats(_) => written(SINK_NATS_RECORDS as u64, SINK_RECORD_HEAD_BYTES + SINK_SUBJECT_BYTES),
        SinkTarget::Redis(_) => written(SINK_REDIS_RECORDS as u64, SINK_RECORD_HEAD_BYTES + SINK_KEY_BYTES),
        SinkTarget::Mqtt(_) => {
            let message = 6 * DATAGRAM_LEN_MAX + SINK_RECORD_HEAD_BYTES + SINK_TOPIC_BYTES;
            2 * (MQTT_WRITE_BYTES + message) as u64
        }
    };
    read.saturating_add(presented).saturating_add(at_target)
}

/// What connections to the sink's target take, or the pipes of its child.
pub(super) fn connection_bytes(sink: &SinkConfig) -> u64 {
    let bytes = match &sink.target {
        SinkTarget::Null | SinkTarget::Stdout | SinkTarget::File(_) => 0,
        SinkTarget::Http(http) => {
            // What is said of each record is read into a buffer that grows, and taken apart.
            let reply = match http.mode {
                HttpMode::Record => 2 * HTTP_REPLY_BYTES,
                HttpMode::Batch => 8 * HTTP_ANSWERS_BYTES,
            };
            // TLS has buffers of its own, of which there are as many.
            let buffers = 2 * HTTP_BUFFER_BYTES * if http.url.starts_with("https:") { 2 } else { 1 };
            in_flight(http) * (buffers + HTTP_HEAD_BYTES + reply)
        }
        SinkTarget::Exec(_) => EXEC_PIECE_BYTES + 2 * EXEC_LINE_BYTES + EXEC_LAST_WORDS_BYTES,
        SinkTarget::Mqtt(_) => SINK_CONNECTION_BYTES + 2 * MQTT_PACKET_BYTES as usize,
        SinkTarget::Postgres(_) | SinkTarget::Nats(_) | SinkTarget::Redis(_) => SINK_CONNECTION_BYTES,
    };
    bytes as u64
}

/// Requests under way at a time: in batches one.
fn in_flight(http: &HttpTarget) -> usize {
    match http.mode {
        HttpMode::Record => http.in_flight_max.max(1),
        HttpMode::Batch => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> SinkConfig {
        url.parse().unwrap()
    }

    fn http(change: impl FnOnce(&mut HttpTarget)) -> SinkConfig {
        let mut sink = of("http://127.0.0.1/x");
        let SinkTarget::Http(http) = &mut sink.target else { panic!("it is http") };
        change(http);
        sink
    }

    #[test]
    fn each_connection_of_an_http_sink_takes_buffers_a_thread_and_descriptors_and_over_tls_twice_the_buffers() {
        let (one, four) = (http(|_| ()), http(|http| http.in_flight_max = 4));
        assert!(connection_bytes(&one) >= 128 << 10);
        assert_eq!(connection_bytes(&four), 4 * connection_bytes(&one));
        assert_eq!(batch_bytes(&four) - batch_bytes(&one), 3 * 3 * DATAGRAM_LEN_MAX as u64);
        assert_eq!(threads(&four) - threads(&one), 3);
        assert_eq!(files(&four), 4 * files(&one));
        let tls = http(|http| http.url = "https://127.0.0.1/x".into());
        assert_eq!(connection_bytes(&tls) - connection_bytes(&one), 128 << 10);
    }

    #[test]
    fn in_batches_an_http_sink_has_one_request_under_way_with_compressed_lines_and_long_answers() {
        let batches = |n| http(|http| (http.mode, http.in_flight_max) = (HttpMode::Batch, n));
        assert_eq!(connection_bytes(&batches(1)), connection_bytes(&batches(64)));
        assert_eq!(threads(&batches(64)), threads(&of("null")));
        assert!(connection_bytes(&batches(1)) > 1 << 20 && batch_bytes(&batches(1)) > 4 << 20);
    }

    #[test]
    fn a_larger_batch_takes_more_of_each_sink_that_sends_and_lines_are_reckoned_elsewhere() {
        for url in ["null", "stdout", "file:/srv/out"] {
            assert_eq!((batch_bytes(&of(url)), connection_bytes(&of(url))), (0, 0), "{url}");
        }
        for url in ["exec:cat", "redis://h?key=k", "http://h/p"] {
            let sink = of(url);
            let mut larger = sink.clone();
            larger.batch.bytes_max += 1000;
            assert!(batch_bytes(&larger) >= batch_bytes(&sink) + 1000, "{url}");
            larger.batch.records_max += 1;
            assert!(batch_bytes(&larger) > batch_bytes(&sink) + 1000, "{url}");
            assert!(connection_bytes(&sink) > 0 && files(&sink) > 0 && threads(&sink) > 0, "{url}");
        }
        let huge = SinkConfig {
            batch: crate::model::BatchConfig { bytes_max: usize::MAX, ..of("null").batch },
            ..of("redis://h?key=k")
        };
        assert_eq!(batch_bytes(&huge), u64::MAX, "absurd values saturate");
    }
}
