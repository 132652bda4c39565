//! What a configuration may take of the machine: the sum of the memory that the limits bound, and what the system must
//! grant for it.

mod sinks;

use duragram_proto::codec::{BITMAP_LEN_MAX, DATAGRAM_LEN_MAX, SEALED_ACK_LEN_MAX};

use super::Config;
use crate::host::resources::Needs;
use crate::limits::{
    ADMIN_CHUNK_BYTES, ADMIN_CONNECTIONS, ADMIN_DEAD_LETTERS, ADMIN_HEAD_BYTES, ADMIN_READ_BYTES, ADMIN_READERS,
    ADMIN_TAILS, ANSWER_OVERHEAD_BYTES, ASK_BYTES, ASKS_BETWEEN_CHECKPOINTS, BASE_BYTES, BLOCK_CACHE_BYTES,
    CHECKPOINT_RECORD_BYTES, DATABASE_THREADS, DATAGRAMS_PER_COMMIT, DEAD_ERROR_BYTES, DEAD_LETTERS_WRITE_BYTES,
    DUE_ANSWER_BYTES, ENTRY_RECORDS, HELD_TAKE_BYTES, HELLO_BUCKETS, HELLO_CLIENT_BYTES, HELLO_CLIENTS,
    HTTP_BUFFER_BYTES, JOURNAL_FILES, KEY_CACHE, KEY_CACHE_BYTES, KEY_CHANNEL_LISTS, KEY_CLIENT_BYTES, KEY_CLIENTS,
    KEY_FILE_BYTES, LANE_ANSWERS_BYTES, LANE_BATCH_RECORDS, LANE_QUEUE_BYTES, LANE_READ_BYTES, MEMTABLE_BYTES,
    MEMTABLES, OTHER_FILES, OTHER_THREADS, OWED_ACK_BYTES, PENDING_ACK_BYTES, PIPE_BYTES, PRESENTED_RECORD_BYTES,
    RECEIVE_MESSAGES, RECEIVE_STRIDE_BYTES, RECENT_BYTES, RENEWED_SESSION_BYTES, REPLY_MESSAGES, RUST_STACK_BYTES,
    SEALED_CLIENT_BYTES, SEALED_CLIENTS_PER_SESSION, SEALED_SESSION_BYTES, SESSION_BYTES, SINK_CONNECTION_BYTES,
    SINK_LINES_BYTES, SINK_WRITTEN_COPIES, SLABS_PER_RECEIVER, SOURCE_BUCKET_BYTES, TRIM_PLACES, UNUSED_SESSION_BYTES,
    UNUSED_SESSIONS,
};

/// What the system must grant a server with this configuration.
pub(crate) fn needs(config: &Config) -> Needs {
    let receivers = config.listen.len() * config.receivers;
    // A socket has one descriptor for receiving and one for sending.
    let files = u64::from(JOURNAL_FILES.unsigned_abs())
        + 2 * receivers as u64
        + ADMIN_CONNECTIONS as u64
        + config.sink.iter().map(sinks::files).sum::<u64>()
        + OTHER_FILES;
    let lanes = usize::from(config.lanes).max(config.sink.len());
    let helpers: usize = config.sink.iter().map(sinks::threads).sum();
    let own_threads = receivers + lanes + helpers + ADMIN_READERS + OTHER_THREADS;
    let slabs = receivers * SLABS_PER_RECEIVER * RECEIVE_MESSAGES * RECEIVE_STRIDE_BYTES;
    let buffers = BASE_BYTES + slabs + MEMTABLES * MEMTABLE_BYTES + BLOCK_CACHE_BYTES + 10 * config.commit_bytes_max;
    Needs {
        files,
        threads: own_threads + DATABASE_THREADS,
        writable_bytes: buffers as u64 + own_threads as u64 * RUST_STACK_BYTES,
    }
}

/// One part of the sum.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MemoryItem {
    /// The name tells an operator what takes the memory.
    pub what: &'static str,
    /// How it is reckoned from configuration and constants.
    pub formula: String,
    /// At most this many bytes.
    pub bytes: u64,
}

/// The most memory that a configuration allows the server, part by part.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MemoryBound {
    /// The parts, in the order in which they are shown.
    pub items: Vec<MemoryItem>,
    /// The sum of the parts, in bytes.
    pub total_bytes: u64,
}

/// Adds up what the limits allow. Worst cases, all at once: a full table whose every session misses its oldest
/// datagram, lanes that stand still, every tail stream stuck. Ordinary use stays far below.
///
/// The sockets' buffers are the kernel's memory, not the process's; they are listed because a container pays for them.
pub fn memory_bound(config: &Config) -> MemoryBound {
    let mut items = Vec::new();
    let mut add = |what, formula: String, factors: &[u64]| {
        let bytes = factors.iter().fold(1u64, |product, &factor| product.saturating_mul(factor));
        items.push(MemoryItem { what, formula, bytes });
    };
    let sockets = (config.listen.len() * config.receivers) as u64;
    let sinks = config.sink.len() as u64;
    // Either the lanes of a handler that a program embeds, or one for each sink.
    let lanes = u64::from(config.lanes).max(sinks);
    let block = (config.commit_bytes_max + config.datagram_bytes_max) as u64;

    add(
        "receive slabs",
        format!(
            "{sockets} sockets x {SLABS_PER_RECEIVER} slabs x {RECEIVE_MESSAGES} messages x {RECEIVE_STRIDE_BYTES} B"
        ),
        &[sockets, SLABS_PER_RECEIVER as u64, RECEIVE_MESSAGES as u64, RECEIVE_STRIDE_BYTES as u64],
    );
    add(
        "socket buffers (kernel)",
        format!("{sockets} sockets x 2 (the kernel's bookkeeping) x receive_buffer_bytes"),
        &[sockets, 2, config.receive_buffer_bytes as u64],
    );
    add(
        "commit in hand",
        "10 copies (last, two in flight, the next one and the room into which it grows, room for two more, masked, RocksDB's \
         batch twice) x (commit_bytes_max + datagram_bytes_max)"
            .into(),
        &[10, block],
    );
    add(
        "reply buffers",
        format!("{REPLY_MESSAGES} x ({SEALED_ACK_LEN_MAX} B + answer_bytes_max)"),
        &[REPLY_MESSAGES as u64, (SEALED_ACK_LEN_MAX + config.answer_bytes()) as u64],
    );
    add(
        "source limits",
        format!("(2 x {sockets} sockets + 3) x {SOURCE_BUCKET_BYTES} B, {HELLO_BUCKETS} x 8 B"),
        &[2 * sockets + 4, SOURCE_BUCKET_BYTES],
    );
    add(
        "pending acks",
        format!(
            "{DATAGRAMS_PER_COMMIT} x 2 (lists that grow) x (2 (acks, WELCOMEs) x {PENDING_ACK_BYTES} B + 2 (commits) x \
             ({PENDING_ACK_BYTES} B + {OWED_ACK_BYTES} B + {BITMAP_LEN_MAX} B) + {RENEWED_SESSION_BYTES} B)"
        ),
        &[
            DATAGRAMS_PER_COMMIT as u64,
            2,
            (2 * PENDING_ACK_BYTES + 2 * (PENDING_ACK_BYTES + OWED_ACK_BYTES + BITMAP_LEN_MAX) + RENEWED_SESSION_BYTES)
                as u64,
        ],
    );
    // A ring of words that is a power of two long, and straddles one word more than the window fills.
    let bitmap = (u64::from(config.window).div_ceil(64) + 1).next_power_of_two() * 8;
    add(
        "session table",
        format!("sessions_max x ({SESSION_BYTES} B + {bitmap} B of bitmap)"),
        &[config.sessions_max as u64, SESSION_BYTES as u64 + bitmap],
    );
    let asks = config.asks_max as u64;
    if asks > 0 {
        add(
            "asks",
            format!(
                "(asks_max + {ASKS_BETWEEN_CHECKPOINTS} (what a start opens again)) x {ASK_BYTES} B, asks_max x \
                 ({HELD_TAKE_BYTES} B (a TAKE that is held) + answer_bytes_max)"
            ),
            &[asks
                .saturating_mul((ASK_BYTES + HELD_TAKE_BYTES + config.answer_bytes()) as u64)
                .saturating_add((ASKS_BETWEEN_CHECKPOINTS * ASK_BYTES) as u64)],
        );
        // Either the lanes of a handler that a program embeds, or that of the sink which answers.
        let answering = config.sink.iter().filter(|sink| Some(sink.name.as_str()) == config.answers_by());
        let batches = answering.map(|sink| sink.batch.records_max as u64);
        let records =
            batches.chain([u64::from(config.lanes).saturating_mul(LANE_BATCH_RECORDS as u64)]).max().unwrap_or(0);
        let of_batch = records.saturating_mul((config.answer_bytes() + ANSWER_OVERHEAD_BYTES) as u64);
        // Before and after the marks are read a commit takes what waits in the mailbox, with the message that has exceeded its bound, and one
        // more; no message has more than a lane keeps, and one batch gives.
        let of_commit = of_batch.saturating_mul(2).saturating_add(3 * LANE_ANSWERS_BYTES as u64).saturating_mul(2);
        add(
            "answers in hand",
            format!(
                "{DATAGRAMS_PER_COMMIT} x 2 (lists that grow) x 3 (commits) x {DUE_ANSWER_BYTES} B, 4 copies x 2 x (3 x \
                 {LANE_ANSWERS_BYTES} B + 2 x {records} (records in a batch) x (answer_bytes_max + {ANSWER_OVERHEAD_BYTES} B))"
            ),
            &[((DATAGRAMS_PER_COMMIT * 2 * 3 * DUE_ANSWER_BYTES) as u64).saturating_add(of_commit.saturating_mul(4))],
        );
        let waiting = u64::from(config.lanes).saturating_add(1).saturating_mul(LANE_ANSWERS_BYTES as u64);
        add(
            "answers of lanes",
            format!(
                "(lanes + 1 (the mailbox)) x {LANE_ANSWERS_BYTES} B, and of each record in a batch 2 x (answer_bytes_max + \
                 {ANSWER_OVERHEAD_BYTES} B)"
            ),
            &[of_batch.saturating_mul(2).saturating_add(waiting)],
        );
    }
    add("recent blocks", format!("{RECENT_BYTES} B + one block, shared by all lanes"), &[RECENT_BYTES as u64 + block]);
    add(
        "lane read-back",
        format!("{lanes} lanes x ({LANE_QUEUE_BYTES} B + {LANE_READ_BYTES} B + two blocks)"),
        &[lanes, (LANE_QUEUE_BYTES + LANE_READ_BYTES) as u64 + 2 * block],
    );
    add(
        "lane batches",
        format!("{lanes} lanes x ({LANE_BATCH_RECORDS} + {ENTRY_RECORDS} records) x {PRESENTED_RECORD_BYTES} B"),
        &[lanes, (LANE_BATCH_RECORDS + ENTRY_RECORDS) as u64, PRESENTED_RECORD_BYTES as u64],
    );
    add(
        "dead letters in hand",
        format!(
            "{lanes} lanes x (({LANE_BATCH_RECORDS} + {ENTRY_RECORDS}) x {DEAD_ERROR_BYTES} B of errors + 4 copies x \
             {DEAD_LETTERS_WRITE_BYTES} B)"
        ),
        &[lanes, ((LANE_BATCH_RECORDS + ENTRY_RECORDS) * DEAD_ERROR_BYTES + 4 * DEAD_LETTERS_WRITE_BYTES) as u64],
    );
    add(
        "sink lines",
        format!("{sinks} sinks x 2 (a buffer that grows) x {SINK_LINES_BYTES} B"),
        &[sinks, 2, SINK_LINES_BYTES as u64],
    );
    add(
        "pipes' last bytes",
        format!("{sinks} sinks x 4 x ({PIPE_BYTES} B and a line)"),
        &[sinks, 4, (PIPE_BYTES + 6 * DATAGRAM_LEN_MAX) as u64],
    );
    let batches = config.sink.iter().map(sinks::batch_bytes).fold(0, u64::saturating_add);
    if batches > 0 {
        let formula = format!(
            "each sink that sends: batch.bytes_max + {DATAGRAM_LEN_MAX} B + (batch.records_max + {ENTRY_RECORDS}) x \
             {PRESENTED_RECORD_BYTES} B, and what is written of it at a time: up to {SINK_WRITTEN_COPIES} copies with heads"
        );
        add("sink batches", formula, &[batches]);
        let connections = config.sink.iter().map(sinks::connection_bytes).fold(0, u64::saturating_add);
        let formula = format!(
            "each sink that sends: {SINK_CONNECTION_BYTES} B, or the pipes of its child; http: in_flight_max x (2 x \
             {HTTP_BUFFER_BYTES} B, twice over TLS, and the answer)"
        );
        add("sink connections", formula, &[connections]);
    }
    add(
        "checkpoint in hand",
        format!("4 copies x ({CHECKPOINT_RECORD_BYTES} B of records and one more record)"),
        &[4, CHECKPOINT_RECORD_BYTES as u64 + bitmap],
    );
    add("journal memtables", format!("{MEMTABLES} x {MEMTABLE_BYTES} B"), &[MEMTABLES as u64, MEMTABLE_BYTES as u64]);
    add(
        "unused sessions",
        format!("{UNUSED_SESSIONS} x {UNUSED_SESSION_BYTES} B"),
        &[UNUSED_SESSIONS as u64, UNUSED_SESSION_BYTES as u64],
    );
    // A deque that has grown to a power of two.
    add("trim places", format!("{TRIM_PLACES} x 16 B"), &[TRIM_PLACES as u64, 16]);
    add("journal block cache", format!("{BLOCK_CACHE_BYTES} B"), &[BLOCK_CACHE_BYTES as u64]);
    if config.keys.is_some() {
        add(
            "keys",
            format!(
                "{KEY_FILE_BYTES} B (the file while it is read) + 2 (in force, and being read) x ({KEY_CLIENTS} x \
                 ({KEY_CLIENT_BYTES} B + 8 B revoked) + {KEY_CHANNEL_LISTS} x 8 KiB)"
            ),
            &[(KEY_FILE_BYTES + 2 * (KEY_CLIENTS * (KEY_CLIENT_BYTES + 8) + KEY_CHANNEL_LISTS * 8192)) as u64],
        );
        add(
            "sealed sessions",
            format!(
                "sessions_max x ({SEALED_SESSION_BYTES} B + {SEALED_CLIENTS_PER_SESSION} clients x {SEALED_CLIENT_BYTES} B)"
            ),
            &[
                config.sessions_max as u64,
                (SEALED_SESSION_BYTES + SEALED_CLIENTS_PER_SESSION * SEALED_CLIENT_BYTES) as u64,
            ],
        );
        add(
            "HELLOs",
            format!("{HELLO_CLIENTS} x {HELLO_CLIENT_BYTES} B"),
            &[HELLO_CLIENTS as u64, HELLO_CLIENT_BYTES as u64],
        );
        add(
            "derived keys",
            format!("{sockets} sockets x (sessions_max + {KEY_CACHE}) x {KEY_CACHE_BYTES} B"),
            &[sockets, (config.sessions_max as u64).saturating_add(KEY_CACHE as u64), KEY_CACHE_BYTES as u64],
        );
    }
    if config.admin.is_some() {
        add(
            "admin streams",
            format!(
                "{ADMIN_TAILS} streams x ({ADMIN_READ_BYTES} B + one block + 3 pieces of {ADMIN_CHUNK_BYTES} B and an \
                 escaped record)"
            ),
            &[
                ADMIN_TAILS as u64,
                ADMIN_READ_BYTES as u64 + block + 3 * (ADMIN_CHUNK_BYTES + 6 * config.datagram_bytes_max) as u64,
            ],
        );
        add(
            "admin dead letters",
            format!("{ADMIN_READERS} requests x {ADMIN_DEAD_LETTERS} letters x datagram_bytes_max"),
            &[ADMIN_READERS as u64, ADMIN_DEAD_LETTERS as u64, config.datagram_bytes_max as u64],
        );
        add(
            "admin connections",
            format!("{ADMIN_CONNECTIONS} x {ADMIN_HEAD_BYTES} B x 4"),
            &[ADMIN_CONNECTIONS as u64, ADMIN_HEAD_BYTES as u64, 4],
        );
    }
    add("program, stacks, allocator", format!("{BASE_BYTES} B"), &[BASE_BYTES as u64]);

    let total_bytes = items.iter().fold(0u64, |sum, item| sum.saturating_add(item.bytes));
    MemoryBound { items, total_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_bound_is_the_sum_of_its_items() {
        let bound = memory_bound(&Config::default());
        assert_eq!(bound.total_bytes, bound.items.iter().map(|i| i.bytes).sum::<u64>());
        assert!(bound.items.iter().all(|i| i.bytes > 0 && !i.formula.is_empty()));
    }

    #[test]
    fn each_size_that_an_operator_sets_moves_the_memory_bound() {
        let base = Config::default();
        let larger = [
            Config { receivers: base.receivers + 1, ..base.clone() },
            Config { lanes: base.lanes + 1, ..base.clone() },
            Config { sessions_max: base.sessions_max + 1, ..base.clone() },
            Config { window: base.window * 2, ..base.clone() },
            Config { asks_max: base.asks_max + 1, ..base.clone() },
            Config { answer_bytes_max: base.answer_bytes_max + 1, ..base.clone() },
            Config { commit_bytes_max: base.commit_bytes_max + 1, ..base.clone() },
            Config { receive_buffer_bytes: base.receive_buffer_bytes + 1, ..base.clone() },
            Config { sink: vec!["redis://h?key=k".parse().unwrap()], ..base.clone() },
        ];
        for config in larger {
            assert!(memory_bound(&config).total_bytes > memory_bound(&base).total_bytes, "{config:?}");
        }
    }

    #[test]
    fn every_configured_sink_counts_also_the_second_of_a_kind() {
        let with = |sinks: &[&str]| {
            let sink = sinks.iter().map(|sink| sink.parse().unwrap()).collect();
            let config = Config { sink, ..Config::default() };
            let Needs { files, threads, .. } = needs(&config);
            (memory_bound(&config).total_bytes, files, threads)
        };
        let all =
            ["null", "http://127.0.0.1/x", "http://127.0.0.1/y", "exec:cat", "redis://h?key=k", "redis://h?key=l"];
        for n in 1..all.len() {
            let ((bytes, files, threads), (more_bytes, more_files, more_threads)) = (with(&all[..n]), with(&all[..=n]));
            assert!(more_bytes > bytes && more_files > files && more_threads > threads, "{}", all[n]);
        }
    }

    #[test]
    fn absurd_values_saturate_rather_than_wrap() {
        let config = Config { sessions_max: usize::MAX, ..Config::default() };
        assert_eq!(memory_bound(&config).total_bytes, u64::MAX);
    }
}
