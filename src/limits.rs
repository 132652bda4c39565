//! Every maximum of the server, with its unit, in one place, and the sum of the memory that they bound.
//!
//! Two kinds: ranges that a configured value must lie in, and constants that no one configures. A queue, table or buffer
//! whose size is not derived from this file is a defect. [`memory_bound`] adds up what they allow.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use duragram_proto::codec::{BITMAP_LEN_MAX, DATAGRAM_LEN_MAX, MIN_LEN, SEALED_ACK_LEN_MAX};

use crate::config::Config;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

// ---- Ranges of configured values -------------------------------------------------------------------------------

/// Addresses in `listen`.
pub const LISTEN: RangeInclusive<u64> = 1..=16;
/// Sinks.
pub const SINKS: RangeInclusive<u64> = 1..=16;
/// Entries in `channels` (numbers or ranges).
pub const CHANNELS: RangeInclusive<u64> = 0..=1024;
/// `datagram_bytes_max`, bytes of UDP payload: from an empty DATA to what IPv4 can carry.
pub const DATAGRAM_BYTES: RangeInclusive<u64> = MIN_LEN as u64..=DATAGRAM_LEN_MAX as u64;
/// `window`, seqs: what fits into `span` and `credit` on the wire.
pub const WINDOW: RangeInclusive<u64> = 1..=65_535;
/// `sessions_max`, sessions.
pub const SESSIONS: RangeInclusive<u64> = 1..=100_000_000;
/// `session_ttl`, milliseconds: one second to ten years.
pub const SESSION_TTL_MS: RangeInclusive<u64> = 1_000..=10 * 366 * 86_400_000;
/// `lanes`, threads.
pub const LANES: RangeInclusive<u64> = 1..=256;
/// `receivers`, sockets and threads for each address.
pub const RECEIVERS: RangeInclusive<u64> = 1..=64;
/// `receive_buffer_bytes`, bytes asked of the kernel for each socket.
pub const RECEIVE_BUFFER_BYTES: RangeInclusive<u64> = 64 * KIB..=GIB;
/// `commit_bytes_max`, bytes of one block, which may pass it by a datagram and the gaps that it reveals: far below what the
/// block format takes.
pub const COMMIT_BYTES: RangeInclusive<u64> = 64 * KIB..=128 * MIB;
/// `checkpoint_bytes`, bytes journaled between checkpoints: what a start applies to the sessions again.
pub const CHECKPOINT_BYTES: RangeInclusive<u64> = 64 * KIB..=16 * GIB;
/// `checkpoint_interval`, milliseconds.
pub const CHECKPOINT_INTERVAL_MS: RangeInclusive<u64> = 10..=3_600_000;
/// `retain_bytes`, bytes of disk.
pub const RETAIN_BYTES: RangeInclusive<u64> = 0..=1024 * TIB;
/// `reserve_bytes`, bytes of disk: no less than what memory may still have to go to table files, since a write that runs
/// out of space is final.
pub const RESERVE_BYTES: RangeInclusive<u64> = (MEMTABLES * MEMTABLE_BYTES) as u64..=1024 * TIB;
/// `retry.attempts_max`, attempts.
pub const RETRY_ATTEMPTS: RangeInclusive<u64> = 1..=65_535;
/// `retry.first_delay` and `retry.longest_delay`, milliseconds.
pub const RETRY_DELAY_MS: RangeInclusive<u64> = 1..=86_400_000;
/// `dead_letters_max`, letters.
pub const DEAD_LETTERS: RangeInclusive<u64> = 1..=100_000_000;
/// `drain_timeout`, milliseconds.
pub const DRAIN_TIMEOUT_MS: RangeInclusive<u64> = 0..=3_600_000;

// ---- Constants of the data path --------------------------------------------------------------------------------

/// Messages that one `recvmmsg` call can return.
pub const RECEIVE_MESSAGES: usize = 64;
/// Bytes for each of them: with GRO the kernel joins datagrams up to this.
pub const RECEIVE_MESSAGE_BYTES: usize = 65_535;
/// Bytes from one message's place in a slab to the next: not a power of two, so that the datagrams' first bytes do not
/// all fall into the same sets of the processor's caches.
pub const RECEIVE_STRIDE_BYTES: usize = RECEIVE_MESSAGE_BYTES + 1 + 192;
/// Slabs of that many messages that a receiver owns; with none free it stops reading.
pub const SLABS_PER_RECEIVER: usize = 4;
/// Blocks that wait in a lane's channel. When it is full the lane reads the journal instead.
pub const LANE_CHANNEL_BLOCKS: usize = 256;
/// A lane that has worked sleeps for so many microseconds before it asks to be woken; that much
/// later it may process a record or obey a command.
/// In that time at most [`LANE_CHANNEL_BYTES`] come even at 16 GB/s.
pub const LANE_NAP_US: u64 = 1_000;
/// Bytes of the blocks that wait in a lane's channel (or one block, if that is longer).
pub const LANE_CHANNEL_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of blocks that a lane fetches before it presents them; one more fetch may begin below this.
pub const LANE_QUEUE_BYTES: usize = 1024 * 1024;
/// Bytes that a lane reads back from the journal at once (and the block that exceeds them).
pub const LANE_READ_BYTES: usize = 4 * 1024 * 1024;
/// Records from which on a call of a handler gets no further entry.
pub const LANE_BATCH_RECORDS: usize = 1024;
/// The same in bytes of the entries.
pub const LANE_BATCH_BYTES: usize = 1024 * 1024;
/// Records of one datagram: two bytes each at least, in a payload of 65,507 at most less header and trailer.
pub const ENTRY_RECORDS: usize = 32_753;
/// What a record takes while it is presented: itself, what is left of it, its answer.
pub const PRESENTED_RECORD_BYTES: usize = 192;
/// Records from which on a lane flushes its handler.
pub const LANE_FLUSH_RECORDS: usize = 64 * 1024;
/// Bytes of entries, those of other lanes included, from which on a lane flushes its handler.
pub const LANE_FLUSH_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of lines from which on a sink writes them (and the line that exceeds them).
pub const SINK_LINES_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that a pipe may hold unread, of which a sink can take back what a reader has left: the most that others than root may
/// give a pipe. Usually a pipe holds 64 KiB.
pub const PIPE_BYTES: usize = 1024 * 1024;
/// Messages of lanes that wait for the committer. A lane whose message finds no room
pub const LANE_MESSAGES: usize = 1024;
/// tries again after so many microseconds, at the latest.
pub const LANE_POST_AGAIN_US: u64 = 5_000;
/// Requests that wait for a lane, such as to retry a dead letter.
pub const LANE_COMMANDS: usize = 16;
/// Dead letters that a lane is asked to retry, from the request up to the checkpoint that deletes them; and how many may ask for
/// the same one.
pub const LANE_RETRIES: usize = 64;
/// Bytes of what a handler says of a record that it gives up; the rest is cut.
pub const DEAD_ERROR_BYTES: usize = 512;
/// Bytes of a dead letter in memory without payload and error.
pub const DEAD_LETTER_BYTES: usize = 256;
/// Bytes of dead letters from which on one write takes no further one. With the copies that a write makes of it far below the
/// smallest reserve.
pub const DEAD_LETTERS_WRITE_BYTES: usize = 4 * 1024 * 1024;
/// Runs with other numbers of lanes, one after the other, of which it is remembered how far their lanes had come. A run is forgotten when
/// the lanes of today have come as far.
pub const FORMER_LANES: usize = 8;
/// Milliseconds that a receive waits before its thread looks after other things, such as being told to stop.
pub const RECEIVE_WAIT_MS: u16 = 50;
/// Bytes of a block from which on its sync runs beside the building of the next: below, waking a thread costs more.
pub const LAUNCH_BYTES: usize = 64 * 1024;
/// Datagrams that one commit answers at most: what is kept of each until then is bounded by it.
pub const DATAGRAMS_PER_COMMIT: usize = 65_536;
/// Receives before a commit at most: with a flood that needs no answers the commit still comes.
pub const RECEIVES_PER_COMMIT: usize = 256;
/// Bytes of session records that one write of a checkpoint holds, in memory; more take several writes.
pub const CHECKPOINT_RECORD_BYTES: usize = 8 * 1024 * 1024;
/// Log lines a second about clients whose sessions do not fit this journal: any peer can cause them.
pub const CLIENT_LOG_LINES_PER_S: u32 = 10;
/// Log lines a second about a socket that does not receive, and as many about replies that cannot be sent.
pub const SOCKET_LOG_LINES_PER_S: u32 = 1;
/// Receives of one socket that may fail in a row before it is left alone for a while: one failure costs no time.
pub const RECEIVE_FAILURES_AT_ONCE: u32 = 4;
/// The longest such while, in microseconds: what lasts is tried again twenty times a second, and costs next to nothing.
pub const RECEIVE_PAUSE_US: u64 = 50_000;
/// How long receives may fail in a row with what usually cannot pass (EINVAL) before the server ends, in microseconds.
pub const RECEIVE_DOUBT_US: u64 = 10_000_000;
/// Bytes for the control messages of one datagram, at most: a socket that was set up by others may have more of them.
pub const RECEIVE_CONTROL_BYTES: usize = 4096;
/// Bytes of a session that waits for its ack, in the list of the block being built.
pub const PENDING_ACK_BYTES: usize = 120;
/// Bytes of a session that has made room for another of its client, in that list.
pub const RENEWED_SESSION_BYTES: usize = 16;
/// Bytes of an ack that waits for its commit to land, without its bitmap.
pub const OWED_ACK_BYTES: usize = 144;
/// Sessions looked at for expiry with each checkpoint.
pub const SESSIONS_SWEPT: usize = 16_384;
/// `retry_after_ms` of REJECT 6: the table of sessions empties slowly.
pub const BUSY_RETRY_MS: u32 = 5_000;
/// `retry_after_ms` of REJECT 7: space may be back soon.
pub const STORAGE_RETRY_MS: u32 = 1_000;
/// Free space is read this often, in microseconds, while the server works,
pub const SPACE_CHECK_US: u64 = 250_000;
/// and after so many bytes of blocks: far less than the smallest reserve.
pub const SPACE_CHECK_BYTES: u64 = 8 * MIB;
/// Replies that one `sendmmsg` call takes.
pub const REPLY_MESSAGES: usize = 256;
/// Sessions of which the table makes room at once.
pub const SESSIONS_PER_CHUNK: usize = 1024;
/// Bytes of a session in the table without its bitmap: itself, its places in two hash tables, which are at times half empty,
/// and in the lists of free and of changed sessions. A test fills a table and holds it against this.
pub const SESSION_BYTES: usize = 152;

// ---- Constants of keys -------------------------------------------------------------------------------------------

/// Bytes of a key file.
pub const KEY_FILE_BYTES: usize = 32 * 1024 * 1024;
/// Clients that a key file names, and as many that it revokes. With a fleet key a client need not be named.
pub const KEY_CLIENTS: usize = 350_000;
/// Bytes of a client in memory, with its key.
pub const KEY_CLIENT_BYTES: usize = 64;
/// Different lists of channels in a key file: each takes 8 KiB.
pub const KEY_CHANNEL_LISTS: usize = 1024;

// ---- Constants of the defence ----------------------------------------------------------------------------------

/// Token buckets for each thing that a source may do so often: 8 bytes each. Sources are hashed to them, so that few share
/// one and none can choose whose.
pub const SOURCE_BUCKETS: usize = 65_536;
/// Bytes of all of them: REJECTs of what is plain and of what is sealed, and openings at the committer; refusals of both at
/// each receiver.
const SOURCE_BUCKET_BYTES: u64 = 8 * SOURCE_BUCKETS as u64;
/// REJECTs a second to one source, or of what is sealed to one client: of one receiver for what is refused whatever its session
/// is, and as many for the rest. Beyond, it hears nothing.
pub const REFUSALS_PER_S: NonZeroU32 = NonZeroU32::new(1_000).expect("not 0");
/// The same at once, after a pause.
pub const REFUSALS_BURST: NonZeroU32 = NonZeroU32::new(2_000).expect("not 0");
/// Plain REJECTs for what needs no session to be refused, a second, of one receiver to all sources together: these may be
/// forged. Far below what it can send.
pub const PLAIN_REFUSALS_PER_S: NonZeroU32 = NonZeroU32::new(10_000).expect("not 0");
/// Plain sessions that one source may have opened a second, by DATA or HELLO. Sealed ones are vouched for by their keys.
pub const OPENINGS_PER_S: NonZeroU32 = NonZeroU32::new(1_000).expect("not 0");
/// The same at once: as many clients may start together behind one address.
pub const OPENINGS_BURST: NonZeroU32 = NonZeroU32::new(20_000).expect("not 0");
/// Clients whose unused session, opened by HELLO, is found again when they ask for another,
pub const UNUSED_SESSIONS: usize = 65_536;
/// and the bytes of one place in that list, which is at times half empty.
pub const UNUSED_SESSION_BYTES: usize = 12;
/// Seqs that a sealed session may begin above, without SKIP: those below are taken for lost. At a million a second it takes
/// nine years to get so far, so what begins above is no client that has lost something (PROTOCOL.md#sealed-epoch).
pub const SEALED_GAP_MAX: u64 = 1 << 48;
/// Epochs that a client may be given at once; then one a second (PROTOCOL.md#sealed-hello).
pub const HELLO_BURST: NonZeroU32 = NonZeroU32::new(8).expect("not 0");
/// Token buckets for that, 8 bytes each.
pub const HELLO_BUCKETS: usize = 65_536;
/// Clients of which the last HELLOs are remembered.
pub const HELLO_CLIENTS: usize = 65_536;
/// Bytes of what is remembered of one, its place in a table that is at times half empty included.
pub const HELLO_CLIENT_BYTES: usize = 400;
/// `retry_after_ms` of the REJECT 6 for a HELLO that came too soon.
pub const HELLO_RETRY_MS: u32 = 1_000;
/// Clients in sealed mode whose epochs are remembered, for each session that the table may hold: they are remembered for as
/// long as their keys exist.
pub const SEALED_CLIENTS_PER_SESSION: usize = 4;
/// Bytes of one.
pub const SEALED_CLIENT_BYTES: usize = 48;
/// Sealed sessions that one client may have at a time: whoever has a key cannot fill the table with it.
pub const SEALED_SESSIONS_PER_CLIENT: usize = 64;
/// Bytes that a sealed session takes beyond a plain one: where its newest datagram came from, and its neighbours.
pub const SEALED_SESSION_BYTES: usize = 96;
/// Derived keys that each receiver keeps beside those of as many sessions as there may be: of HELLOs, and of sessions that
/// have ended.
pub const KEY_CACHE: usize = 16_384;
/// Bytes of each: two keys, whose they are, and the places where they are found.
pub const KEY_CACHE_BYTES: usize = 160;
/// Of them, as many are looked at for one to give away when there are no more places.
pub const KEY_CACHE_SWEPT: usize = 64;
/// Datagrams with a wrong seal, of sessions whose keys are not at hand, that a receiver looks at a second. Each costs it
/// some microseconds.
pub const FORGERIES_PER_S: NonZeroU32 = NonZeroU32::new(40_000).expect("not 0");
/// A plain session that was not heard for so many seconds gives way to a sealed one when the table is full. Far above the
/// longest interval of retransmissions: what its client may still have under way would be taken twice.
pub const PLAIN_IDLE_S: u64 = 600;

// ---- Constants of the journal ----------------------------------------------------------------------------------

/// Bytes of one memtable. Large against the lanes' lag: what is trimmed before its flush never reaches an SST.
pub const MEMTABLE_BYTES: usize = 96 * 1024 * 1024;
/// Memtables at once: the one being filled and those being flushed.
pub const MEMTABLES: usize = 3;
/// Blocks whose place is remembered, 16 bytes each, so that trimming need not read one back.
pub const TRIM_PLACES: usize = 65_536;
/// What a start reads of a backlog that was journaled before the last checkpoint: the newest of it, in bytes. What is older is
/// verified when a lane reads it, so that a backlog of any size starts soon.
pub const START_READ_BYTES: u64 = GIB;
/// Ends of reads of that part, each of which the next read must join: 16 bytes each.
pub const READ_ENDS: usize = 1024;
/// RocksDB's block cache, in bytes.
pub const BLOCK_CACHE_BYTES: usize = 32 * 1024 * 1024;
/// Table files that RocksDB keeps open at once.
pub const JOURNAL_FILES: i32 = 512;

// ---- Constants of the control plane ----------------------------------------------------------------------------

/// Connections that the admin interface serves at once; further ones wait in the kernel's backlog.
pub const ADMIN_CONNECTIONS: usize = 64;
/// Streams of `/api/tail` at once; further ones get status 503.
pub const ADMIN_TAILS: usize = 16;
/// Bytes that one stream or page of entries reads from the journal at once (or one block, if that is longer).
pub const ADMIN_READ_BYTES: usize = 256 * 1024;
/// Text of entries goes out in pieces of this many bytes and at most one record more.
pub const ADMIN_CHUNK_BYTES: usize = 64 * 1024;
/// Entries in one answer of `/api/entries`.
pub const ADMIN_ENTRIES: usize = 10_000;
/// Dead letters in one answer of `/api/dead`.
pub const ADMIN_DEAD_LETTERS: usize = 100;
/// Threads that read the journal and the dead letters for requests.
pub const ADMIN_READERS: usize = 8;
/// Milliseconds in which a request's head must have come, the wait for it on an idle connection included.
pub const ADMIN_HEAD_MS: u64 = 10_000;
/// Milliseconds after which a peer that takes nothing of its answer is cut off.
pub const ADMIN_STALL_MS: u64 = 60_000;
/// Bytes of a request's head; a longer one is refused.
pub const ADMIN_HEAD_BYTES: usize = 16 * 1024;
/// Bytes of a request's body. No request needs one.
pub const ADMIN_BODY_BYTES: usize = 4 * 1024;
/// Bytes of the file with the admin token.
pub const ADMIN_TOKEN_BYTES: usize = 1024;
/// What everything else takes: code, stacks, the async runtime, the allocator's slack, in bytes.
pub const BASE_BYTES: usize = 96 * 1024 * 1024;

/// File descriptors for everything else: logs, sinks, what files are replaced by, threads that wait.
pub const OTHER_FILES: u64 = 100;

/// File descriptors that the server may need at once.
pub fn files(config: &Config) -> u64 {
    // A socket has one for receiving and one for sending.
    let sockets = 2 * (config.listen.len() * config.receivers) as u64;
    u64::from(JOURNAL_FILES.unsigned_abs())
        + sockets
        + ADMIN_CONNECTIONS as u64
        + config.sink.len() as u64
        + OTHER_FILES
}

/// Threads that RocksDB starts: for flushes, compactions and timers, and while it opens table files.
pub const DATABASE_THREADS: usize = 3 + 15;
/// Threads for what is one of a kind: signals and what they let be said, the report of the start, the admin interface,
/// commits, their writer, the journal's keeper, the watchdog.
const OTHER_THREADS: usize = 8;
/// Bytes of stack that a thread of the database may need.
pub const STACK_BYTES: u64 = 512 * KIB;

/// Threads that there may be at once.
pub fn threads(config: &Config) -> usize {
    let data_path = config.listen.len() * config.receivers + usize::from(config.lanes);
    // A sink may have a thread that watches what it writes to.
    data_path + config.sink.len() + ADMIN_READERS + DATABASE_THREADS + OTHER_THREADS
}

/// Bytes of stack of a thread of Rust, as the standard library reserves them.
const RUST_STACK_BYTES: u64 = 2 * MIB;
/// Bytes that the C library reserves for each arena of its allocator, of which it makes up to eight for each core.
const ARENA_BYTES: u64 = 64 * MIB;

/// Bytes that the server may map for writing when it has started: the least that a limit must leave it (RLIMIT_DATA).
/// `stack`: of a thread of the database, in bytes.
pub fn writable_bytes(config: &Config, stack: u64) -> u64 {
    let slabs = config.listen.len() * config.receivers * SLABS_PER_RECEIVER * RECEIVE_MESSAGES * RECEIVE_STRIDE_BYTES;
    let rust = threads(config) - DATABASE_THREADS;
    (BASE_BYTES + slabs + MEMTABLES * MEMTABLE_BYTES + BLOCK_CACHE_BYTES + 8 * config.commit_bytes_max) as u64
        + rust as u64 * RUST_STACK_BYTES
        + (DATABASE_THREADS as u64).saturating_mul(stack)
}

/// What a command may map for writing that looks into a database.
pub fn writable_bytes_of_a_look(stack: u64) -> u64 {
    let memory = BASE_BYTES + MEMTABLES * MEMTABLE_BYTES + BLOCK_CACHE_BYTES;
    (memory as u64).saturating_add((DATABASE_THREADS as u64).saturating_mul(stack))
}

/// The same of its whole address space.
pub fn address_space_of_a_look(stack: u64, cores: usize) -> u64 {
    writable_bytes_of_a_look(stack).saturating_add(DATABASE_THREADS.min(8 * cores) as u64 * ARENA_BYTES)
}

/// What the server may take of its whole address space (RLIMIT_AS). `cores`: that the process may use.
pub fn address_space(config: &Config, stack: u64, cores: usize) -> u64 {
    let arenas = threads(config).min(8 * cores) as u64;
    writable_bytes(config, stack).saturating_add(arenas * ARENA_BYTES)
}

/// Bytes of address space without which not even the configuration is read.
pub const FIRST_BYTES: u64 = 128 * MIB;

/// One part of the sum.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MemoryItem {
    /// What takes it.
    pub what: &'static str,
    /// How it is reckoned from configuration and constants.
    pub formula: String,
    /// At most this many bytes.
    pub bytes: u64,
}

/// The most memory that a configuration allows the server, part by part.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MemoryBound {
    /// The parts.
    pub items: Vec<MemoryItem>,
    /// Their sum, in bytes.
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
    let lanes = u64::from(config.lanes);
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
        "8 copies (last, in flight, the next one and the room into which it grows, room for one more, masked, RocksDB's \
         batch twice) x (commit_bytes_max + datagram_bytes_max)"
            .into(),
        &[8, block],
    );
    add(
        "reply buffers",
        format!("{REPLY_MESSAGES} x {SEALED_ACK_LEN_MAX} B"),
        &[REPLY_MESSAGES as u64, SEALED_ACK_LEN_MAX as u64],
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
    add(
        "lane channels",
        format!("{lanes} lanes x ({LANE_CHANNEL_BYTES} B + one block)"),
        &[lanes, LANE_CHANNEL_BYTES as u64 + block],
    );
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
    let sinks = config.sink.len() as u64;
    add(
        "sink lines",
        format!("{lanes} lanes x {sinks} sinks x 2 (a buffer that grows) x {SINK_LINES_BYTES} B"),
        &[lanes, sinks, 2, SINK_LINES_BYTES as u64],
    );
    add(
        "pipes' last bytes",
        format!("{sinks} sinks x 4 x ({PIPE_BYTES} B and a line)"),
        &[sinks, 4, (PIPE_BYTES + 6 * DATAGRAM_LEN_MAX) as u64],
    );
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
            Config { commit_bytes_max: base.commit_bytes_max + 1, ..base.clone() },
            Config { receive_buffer_bytes: base.receive_buffer_bytes + 1, ..base.clone() },
        ];
        for config in larger {
            assert!(memory_bound(&config).total_bytes > memory_bound(&base).total_bytes, "{config:?}");
        }
    }

    #[test]
    fn absurd_values_saturate_rather_than_wrap() {
        let config = Config { sessions_max: usize::MAX, ..Config::default() };
        assert_eq!(memory_bound(&config).total_bytes, u64::MAX);
    }
}
