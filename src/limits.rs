//! Every maximum of the server, with its unit, in one place.
//!
//! Two kinds: ranges that a configured value must lie in, and constants that no one configures. A queue, table or buffer
//! whose size is not derived from this file is a defect. [`memory_bound`](crate::config::memory::memory_bound) adds up what
//! they allow. Constants alone: nothing is reckoned here.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use duragram_proto::codec::{DATAGRAM_LEN_MAX, MIN_LEN};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

// ---- Ranges of configured values -------------------------------------------------------------------------------

/// `listen` names so many addresses.
pub const LISTEN: RangeInclusive<u64> = 1..=16;
/// `sink` is given so many times.
pub const SINKS: RangeInclusive<u64> = 1..=16;
/// `timeout` of a sink, milliseconds: a call to its target takes no longer.
pub const SINK_TIMEOUT_MS: RangeInclusive<u64> = 100..=600_000;
/// `batch.records_max` of a sink, records.
pub const SINK_BATCH_RECORDS: RangeInclusive<u64> = 1..=100_000;
/// `batch.bytes_max` of a sink, bytes of entries.
pub const SINK_BATCH_BYTES: RangeInclusive<u64> = KIB..=16 * MIB;
/// `batch.delay_max` of a sink, milliseconds.
pub const SINK_BATCH_DELAY_MS: RangeInclusive<u64> = 0..=60_000;
/// `backlog.bytes_max` of a sink, bytes of the journal: at least several of the largest batches, since a batch that is under way
/// is held too, and a second of a busy server.
pub const SINK_BACKLOG_BYTES: RangeInclusive<u64> = 64 * MIB..=1024 * TIB;
/// `in_flight_max` of a sink, requests under way at a time.
pub const SINK_IN_FLIGHT: RangeInclusive<u64> = 1..=HTTP_IN_FLIGHT as u64;
/// `headers` of a sink, headers of each request.
pub const SINK_HEADERS: RangeInclusive<u64> = 0..=32;
/// `entries_max` of a sink, entries that a stream keeps at least.
pub const SINK_STREAM_ENTRIES: RangeInclusive<u64> = 1..=1_000_000_000_000;
/// Entries in `channels` (numbers or ranges).
pub const CHANNELS: RangeInclusive<u64> = 0..=1024;
/// `datagram_bytes_max`, bytes of UDP payload: from an empty DATA to what IPv4 can carry.
pub const DATAGRAM_BYTES: RangeInclusive<u64> = MIN_LEN as u64..=DATAGRAM_LEN_MAX as u64;
/// `window`, seqs: what fits into `span` and `credit` on the wire.
pub const WINDOW: RangeInclusive<u64> = 1..=65_535;
/// `sessions_max` allows so many sessions at a time.
pub const SESSIONS: RangeInclusive<u64> = 1..=100_000_000;
/// `session_ttl`, milliseconds: one second to ten years.
pub const SESSION_TTL_MS: RangeInclusive<u64> = 1_000..=10 * 366 * 86_400_000;
/// `asks_max` allows so many asks at a time; 0 switches them off.
pub const ASKS: RangeInclusive<u64> = 0..=10_000_000;
/// `answer_bytes_max`, bytes: what fits into a datagram, with room for its head.
pub const ANSWER_BYTES: RangeInclusive<u64> = 0..=60 * KIB;
/// `answer_ttl`, milliseconds: one second to ten years.
pub const ANSWER_TTL_MS: RangeInclusive<u64> = SESSION_TTL_MS;
/// `lanes` gives so many threads to handlers.
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
/// `checkpoint_interval` lies within this many milliseconds.
pub const CHECKPOINT_INTERVAL_MS: RangeInclusive<u64> = 10..=3_600_000;
/// `retain_bytes` keeps so many bytes of disk for what is processed.
pub const RETAIN_BYTES: RangeInclusive<u64> = 0..=1024 * TIB;
/// `reserve_bytes`, bytes of disk: no less than what memory may still have to go to table files, since a write that runs
/// out of space is final.
pub const RESERVE_BYTES: RangeInclusive<u64> = (MEMTABLES * MEMTABLE_BYTES) as u64..=1024 * TIB;
/// `retry.attempts_max` allows a record so many attempts.
pub const RETRY_ATTEMPTS: RangeInclusive<u64> = 1..=65_535;
/// `retry.first_delay` and `retry.longest_delay` lie within this many milliseconds.
pub const RETRY_DELAY_MS: RangeInclusive<u64> = 1..=86_400_000;
/// `dead_letters_max` lets so many dead letters be kept.
pub const DEAD_LETTERS: RangeInclusive<u64> = 1..=100_000_000;
/// `drain_timeout` lies within this many milliseconds.
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
/// The newest blocks that are kept in memory for all lanes together. What has left it a lane reads back from the journal.
pub const RECENT_BLOCKS: usize = 256;
/// Bytes of these blocks (or one block, if that is longer).
pub const RECENT_BYTES: usize = 16 * 1024 * 1024;
/// A lane that has worked sleeps for so many microseconds before it asks to be woken; that much
/// later it may process a record or obey a command.
/// In that time at most [`RECENT_BYTES`] come even at 16 GB/s.
pub const LANE_NAP_US: u64 = 1_000;
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
/// How long a sink's connection lives: then names are resolved, secrets and certificates read anew, and a server that was demoted is
/// left. What a sink has learned of its server's limits is forgotten as often.
pub const SINK_CONNECTION_AGE: Duration = Duration::from_secs(300);
/// Bytes that a connection of such a sink takes beside what it sends: buffers of both directions, and those of TLS.
pub const SINK_CONNECTION_BYTES: usize = 256 * 1024;
/// Copies of what a sink writes at a time: it is put together and handed to the connection, each in a buffer that may have doubled.
pub const SINK_WRITTEN_COPIES: usize = 4;
/// Bytes that stand beside a record's payload where it is written: names, session, time.
pub const SINK_RECORD_HEAD_BYTES: usize = 512;
/// Entries that the `redis` sink writes in one transaction.
pub const SINK_REDIS_RECORDS: usize = 1024;
/// Entries after which the `redis` sink sends what it has made of a transaction. It reads no reply before it has sent all: the
/// replies to [`SINK_REDIS_RECORDS`] fit into what the system keeps for a connection.
pub const SINK_REDIS_SENT_AT_ONCE: usize = 128;
/// Messages that the `nats` sink publishes in one piece: fewer than the server keeps waiting for a stream (10,000).
pub const SINK_NATS_RECORDS: usize = 1000;
/// Messages after which the `nats` sink lets its connection write what was made.
pub const SINK_NATS_WRITTEN_AT_ONCE: usize = 64;
/// Seconds for which a stream that the `nats` sink has made remembers messages' ids: it needs them for no longer than the next
/// message takes to come, and the server keeps them all in memory.
pub const SINK_NATS_OWN_WINDOW_S: u64 = 1;
/// Messages of the `nats` sink whose answers are under way, on a stream that others write to as well.
pub const SINK_NATS_IN_FLIGHT: usize = 256;
/// Messages that the `nats` sink reads back to find out how far a stream has come: retried dead letters may stand at its end.
pub const SINK_NATS_READ_BACK: usize = 1000;
/// Seconds without use after which the `nats` sink connects anew: it answers no pings while it has nothing to do.
pub const SINK_NATS_IDLE_S: u64 = 60;
/// Requests that an HTTP sink has under way at a time, whatever is configured: each takes a thread and a connection.
pub const HTTP_IN_FLIGHT: usize = 64;
/// Milliseconds after which a call of an HTTP sink begins no further request: its lane may have something else to do.
pub const HTTP_CALL_MS: u64 = 1_000;
/// Seconds after which an HTTP sink uses an idle connection no more: servers and firewalls give them up after a minute or so.
pub const HTTP_IDLE_S: u64 = 30;
/// Bytes of each of the two buffers of a connection.
pub const HTTP_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes of the head of a response. A longer one is an error.
pub const HTTP_HEAD_BYTES: usize = 32 * 1024;
/// Bytes of a response's body that are read where nobody needs it: with a longer one the connection is closed.
pub const HTTP_REPLY_BYTES: usize = 64 * 1024;
/// Bytes of a response that answers for each record of a batch. A longer one is an error.
pub const HTTP_ANSWERS_BYTES: usize = 1024 * 1024;
/// Characters of a response that an error shows.
pub const HTTP_SAID_CHARS: usize = 200;
/// The longest that a server can ask to be left alone (`Retry-After`), in seconds.
pub const HTTP_RETRY_AFTER_S: u64 = 600;
/// A server that finds batches too large gets them smaller, but never below so many bytes of lines (or one record).
pub const HTTP_BATCH_BYTES_LEAST: usize = 1024;
/// Bytes of a file that holds a secret or a private key.
pub const SECRET_BYTES: usize = 64 * 1024;
/// Bytes of lines that are made for that child at a time (and the line that exceeds them), and that are read of it at a time.
pub const EXEC_PIECE_BYTES: usize = 64 * 1024;
/// Bytes of a line on that child's standard output: an answer that is all escapes.
pub const EXEC_LINE_BYTES: usize = 512 * 1024;
/// Bytes of the payload of the record that a child has done last, up to which the journal keeps it beside the sink's place.
pub const EXEC_KEPT_BYTES: usize = 8 * 1024;
/// Bytes of a line on its standard error that are logged.
pub const EXEC_LOG_LINE_BYTES: usize = 1024;
/// Such lines that are logged in each window of time.
pub const EXEC_LOG_LINES: u32 = 100;
/// How long the window is in which those lines are counted.
pub const EXEC_LOG_WINDOW: Duration = Duration::from_secs(10);
/// Bytes of its standard error that are read after it has ended.
pub const EXEC_LAST_WORDS_BYTES: usize = 64 * 1024;
/// How long a child that has closed a pipe may take to end by itself.
pub const EXEC_LAST_MOMENT: Duration = Duration::from_secs(1);
/// How long a child may take to end that is told that nothing more comes.
pub const EXEC_END_WAIT: Duration = Duration::from_secs(5);
/// How long it may take after SIGTERM, and again after SIGKILL.
pub const EXEC_TERM_WAIT: Duration = Duration::from_secs(2);
/// Messages that an `mqtt` sink has under way at a time, where the broker takes so many: their acknowledgements must fit into what
/// a connection holds unread.
pub const MQTT_IN_FLIGHT: u16 = 1000;
/// Bytes of a packet that a broker may send to an `mqtt` sink, which expects acknowledgements alone.
pub const MQTT_PACKET_BYTES: u32 = 16 * 1024;
/// Bytes of messages that an `mqtt` sink hands over at a time (and the message that exceeds them).
pub const MQTT_WRITE_BYTES: usize = 64 * 1024;
/// How long the connection of an `mqtt` sink may have been idle to be used again. Shorter than its keep-alive, since nobody sends
/// pings while there are no records.
pub const MQTT_IDLE: Duration = Duration::from_secs(30);
/// Starts of a data directory that its sink to PostgreSQL remembers while it cannot connect.
pub const POSTGRES_STARTS: usize = 64;
/// Bytes that a pipe may hold unread, of which a sink can take back what a reader has left: the most that others than root may
/// give a pipe. Usually a pipe holds 64 KiB.
pub const PIPE_BYTES: usize = 1024 * 1024;
/// Messages of lanes that wait for the committer. A lane whose message finds no room
pub const LANE_MESSAGES: usize = 1024;
/// tries again after so many microseconds, at the latest; and one whose loss is not durable yet looks again.
pub const LANE_POST_AGAIN_US: u64 = 5_000;
/// A lane that an operator has stopped looks about after so many microseconds, and at once when it is asked for something.
pub const LANE_REST_US: u64 = 60_000_000;
/// Bytes of an answer, where nothing else is configured.
pub const LANE_ANSWER_BYTES: usize = 1024;
/// Bytes of answers from which on a lane flushes before it presents more (and what one batch gives); and that wait for the committer in
/// its mailbox (and the message that exceeds them).
pub const LANE_ANSWERS_BYTES: usize = 1024 * 1024;
/// What an answer takes beside its body on its way from a lane to the committer.
pub const ANSWER_OVERHEAD_BYTES: usize = 128;
/// A lane tells the operator of answers that are too long once in so many microseconds.
pub const LANE_TOO_LONG_LOG_US: u64 = 60_000_000;
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
/// Sinks that a journal remembers: those that are configured, and those that were once and that no operator has removed.
pub const SINKS_REMEMBERED: usize = 64;
/// Bytes of a sink's name.
pub const SINK_NAME_BYTES: usize = 255;
/// Losses of a sink that are told apart. Of more, neighbours are put together.
pub const SINK_LOSSES: usize = 64;
/// Dead letters that are looked at, and deleted in one write at most, when those of a sink are discarded.
pub const DEAD_LETTERS_AT_ONCE: usize = 64;
/// Milliseconds that a receive waits before its thread looks after other things, such as being told to stop.
pub const RECEIVE_WAIT_MS: u16 = 50;
/// Microseconds after the last acks for which a commit without messages waits for some, at most: who was just acked often sends at
/// once, and would wait for the sync of that commit before its own.
pub const LINGER_US: u64 = 300;
/// Bytes of a block from which on it is written and synced beside the building of the next: below, waking a thread costs more.
pub const LAUNCH_BYTES: usize = 64 * 1024;
/// A commit is written beside the sync of another one where that takes at most so many times as long as the write. Where it takes longer, the
/// time that is gained is little, and more would be lost: what clients have in flight is in three commits then, and each sync carries less.
pub const OVERLAP_SYNC_FACTOR: u64 = 4;
/// Commits that are written or synced at a time: one each. With more the disk does no more, and each waits longer.
pub const COMMITS_UNDER_WAY: usize = 2;
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
/// Bytes of an ANSWER that waits for its commit to land, without its body, which the ask has too.
pub const DUE_ANSWER_BYTES: usize = 152;
/// Asks that are opened before a checkpoint is due: a start opens them again, beside those that have a record.
pub const ASKS_BETWEEN_CHECKPOINTS: usize = 65_536;
/// Asks of one client that are remembered, over all its epochs.
pub const ASKS_PER_CLIENT: usize = 64;
/// Bytes of an ask without the body of its answer: itself, its places where it is found by its client, by its offset and by the
/// next checkpoint. A test fills a table and holds it against this.
pub const ASK_BYTES: usize = 420;
/// TAKEs that are held for one session,
pub const HELD_TAKES_PER_SESSION: usize = 16;
/// and for one address from which they come plain.
pub const HELD_TAKES_PER_SOURCE: usize = 256;
/// Bytes of a TAKE that is held, its places where it is found included.
pub const HELD_TAKE_BYTES: usize = 288;
/// The longest that a TAKE is held, in milliseconds: far below the time after which a NAT forgets whom a datagram was for.
pub const TAKE_HOLD_MS: u32 = 20_000;
/// `retry_after_ms` of PENDING where the TAKE was not held.
pub const PENDING_RETRY_MS: u32 = 1_000;
/// `retry_after_ms` of REJECT 6 for want of room for an ask.
pub const ASK_RETRY_MS: u32 = 1_000;
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
/// What sinks hold is looked at this often, in microseconds, and after as many bytes of blocks as free space.
pub const BOUNDS_CHECK_US: u64 = 1_000_000;
/// Stretches of entries that are remembered of a sink which it has not processed and its mark is beyond, while other sinks are not.
pub const SINK_SKIPS: usize = 1024;
/// Near the reserve of free space a sink that may lose entries keeps as many bytes of the newest: it is about to process them.
pub const SINK_YIELDS_BYTES: u64 = 16 * MIB;
/// After it has lost some it loses no more for so long, in microseconds: what is trimmed becomes free by compaction.
pub const SINK_YIELDS_US: u64 = 10_000_000;
/// Datagrams that one system call can carry by GSO: the kernel's UDP_MAX_SEGMENTS before Linux 6.9.
pub const GSO_SEGMENTS_MAX: usize = 64;
/// Replies that one `sendmmsg` call takes.
pub const REPLY_MESSAGES: usize = 256;
/// Sessions of which the table makes room at once.
pub const SESSIONS_PER_CHUNK: usize = 1024;
/// Bytes of a session in the table without its bitmap: itself, its places in two hash tables, which are at times half empty,
/// and in the lists of free and of changed sessions. A test fills a table and holds it against this.
pub const SESSION_BYTES: usize = 152;

// ---- Constants of sinks' configuration --------------------------------------------------------------------------

/// Bytes of a sink's name in a table of the configuration. A short form is a name, too, of up to [`SINK_NAME_BYTES`].
pub const SINK_TABLE_NAME_BYTES: usize = 64;
/// Bytes of each part of a table's name: what PostgreSQL keeps of it.
pub const SINK_TABLE_BYTES: usize = 63;
/// Bytes of the subject of a NATS sink.
pub const SINK_SUBJECT_BYTES: usize = 1024;
/// Bytes of the name of a NATS stream: the server makes a directory of it.
pub const SINK_STREAM_BYTES: usize = 255;
/// Bytes of the key of a Redis sink.
pub const SINK_KEY_BYTES: usize = 1024;
/// Bytes of the topic of an MQTT sink: far below the 65,535 that the protocol takes, with room for what is put in its places.
pub const SINK_TOPIC_BYTES: usize = 4096;
/// Bytes of the client id of an MQTT sink.
pub const SINK_CLIENT_ID_BYTES: usize = 256;

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
pub(crate) const SOURCE_BUCKET_BYTES: u64 = 8 * SOURCE_BUCKETS as u64;
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
/// One such client takes so many bytes of memory.
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
pub const START_READ_BYTES: u64 = 256 * MIB;
/// A server in which nothing was journaled for so long, in microseconds, gives memory back that is kept for speed alone.
pub const QUIET_US: u64 = 5_000_000;
/// Bytes in memtables from which on they are written to table files then. The log is cut to what it holds, about as much: what comes next
/// must find enough of it laid out.
pub const QUIET_MEMTABLES_BYTES: u64 = 24 * MIB;
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
/// Clients in one answer of `/api/asks`, those with the most asks.
pub const ASK_CLIENTS_SHOWN: usize = 100;
/// Requests about asks that wait for the committer, which takes one with each commit; further ones get status 503.
pub const ASK_REQUESTS: usize = 16;
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

/// Threads that RocksDB starts: for flushes, compactions and timers, and while it opens table files.
pub const DATABASE_THREADS: usize = 3 + 15;
/// Threads for what is one of a kind: signals and what they let be said, the report of the start, the admin interface,
/// commits, what writes and what syncs large ones, the journal's housekeeping, the watchdog, jemalloc's.
pub(crate) const OTHER_THREADS: usize = 10;
/// Bytes of stack that a thread of the database may need.
pub const STACK_BYTES: u64 = 512 * KIB;

/// Bytes of stack of a thread of Rust, as the standard library reserves them.
pub(crate) const RUST_STACK_BYTES: u64 = 2 * MIB;
/// Bytes that the C library reserves for each arena of its allocator, of which it makes up to eight for each core.
pub(crate) const ARENA_BYTES: u64 = 64 * MIB;

/// Bytes of address space without which not even the configuration is read.
pub const FIRST_BYTES: u64 = 128 * MIB;
