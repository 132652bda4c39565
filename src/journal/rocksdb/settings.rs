//! How RocksDB is set, and why; and what of that can be chosen.

use std::sync::Arc;
use std::time::Duration;

use rocksdb::{BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, Options};

use crate::journal::database::{DEAD, JOURNAL, META};
use crate::journal::recovery::ReadProgress;
use crate::limits::{BLOCK_CACHE_BYTES, JOURNAL_FILES, MEMTABLE_BYTES, MEMTABLES, RESERVE_BYTES, START_READ_BYTES};

/// What of the journal on disk can be chosen.
#[derive(Clone, Debug)]
pub struct RocksOptions {
    /// Open a damaged journal: what is good is kept, what is not is recorded and given up, and the damaged database is set
    /// aside. For one start, by an operator who has decided it.
    pub accept_loss: bool,
    /// Bytes of one memtable of the journal. Large against the lag of trimming: a block that is trimmed before its memtable
    /// is flushed never reaches a table file.
    pub memtable_bytes: usize,
    /// Fill the first write-ahead log in advance, so that commits are fast from the start on.
    pub preallocate: bool,
    /// Free space that this must leave, in bytes.
    pub reserve_bytes: u64,
    /// How often the witness follows the journal's end.
    pub witness_interval: Duration,
    /// How much of what was journaled before the last checkpoint a start reads, in bytes, the newest first. What is older is
    /// verified when it is read.
    pub start_read_bytes: u64,
    /// Where opening reports how far it is.
    pub progress: Arc<ReadProgress>,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self {
            accept_loss: false,
            memtable_bytes: MEMTABLE_BYTES,
            preallocate: true,
            reserve_bytes: *RESERVE_BYTES.start(),
            witness_interval: Duration::from_secs(1),
            start_read_bytes: START_READ_BYTES,
            progress: Arc::default(),
        }
    }
}

/// How the write-ahead log is read when a database is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::journal) enum LogReading {
    /// Up to the first bad record, as the server does: after a crash the last record may be torn.
    ToFirstBad,
    /// Every record that is good, also behind bad ones.
    AllGood,
}

/// How many emptied write-ahead logs are kept to be written again. A log that is overwritten does not grow, so its sync
/// need not write the inode: measured here, 89–111 µs against 148–176 µs for a commit of one record.
const WALS_RECYCLED: usize = MEMTABLES - 1;
// Where logs are not recycled, RocksDB would read the filling of a preallocated log over and over.
const _: () = assert!(WALS_RECYCLED > 0);
/// RocksDB's own log: how many files of which size.
const INFO_LOGS: usize = 4;
const INFO_LOG_BYTES: usize = 1 << 20;
/// The list of the database's files is begun anew when it has grown to this.
const MANIFEST_BYTES: usize = 16 << 20;
/// Files of the journal: large, since a long backlog has thousands.
const TABLE_FILE_BYTES: u64 = 64 << 20;
/// New table files that are merged at a time. Many, since most of what is in them will have been trimmed by then, and a
/// session's record replaced; far more than that many, and commits are held back.
const TABLES_MERGED: i32 = 16;
/// So many new table files, and RocksDB holds commits back.
pub(super) const SLOWDOWN_TABLES: i32 = 3 * TABLES_MERGED;
/// RocksDB takes the memory of a memtable in blocks of an eighth of its size, up to so many bytes.
pub(super) const MEMTABLE_BLOCK_BYTES_MAX: usize = 1 << 20;
/// Data of a flush is handed to the disk in steps of this, so that a commit's sync does not wait behind all of it.
const FLUSH_STEP_BYTES: u64 = 1 << 20;

pub(super) fn settings(log: LogReading) -> Options {
    let mut settings = Options::default();
    settings.set_paranoid_checks(true);
    // Absolute consistency would refuse after an ordinary kill. What point-in-time drops in silence, recovery finds.
    settings.set_wal_recovery_mode(match log {
        LogReading::ToFirstBad => DBRecoveryMode::PointInTime,
        LogReading::AllGood => DBRecoveryMode::SkipAnyCorruptedRecord,
    });
    // All families are flushed together: a log that is lost takes from all or from none, and is free to be recycled at once.
    settings.set_atomic_flush(true);
    settings.set_recycle_log_file_num(WALS_RECYCLED);
    settings.set_bytes_per_sync(FLUSH_STEP_BYTES);
    settings.set_max_background_jobs(2);
    settings.set_max_open_files(JOURNAL_FILES);
    settings.set_keep_log_file_num(INFO_LOGS);
    settings.set_max_log_file_size(INFO_LOG_BYTES);
    settings.set_max_manifest_file_size(MANIFEST_BYTES);
    settings.set_stats_dump_period_sec(0);
    settings.set_stats_persist_period_sec(0);
    settings
}

/// The sizes of the families' memtables, in bytes, when the journal's has this one.
pub(super) fn memtables(bytes: usize) -> [(&'static str, usize); 4] {
    [(JOURNAL, bytes), (META, bytes / 4), (DEAD, bytes / 16), ("default", bytes / 16)]
}

/// The memtables of all families together stay within [`MEMTABLES`] of the journal's.
pub(super) fn families(options: &RocksOptions) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
    let family = |name: &str, memtable_bytes: usize, memtables: usize| {
        let mut tables = BlockBasedOptions::default();
        tables.set_block_cache(&cache);
        // Else they are memory beside the cache, growing with the backlog.
        tables.set_cache_index_and_filter_blocks(true);
        let mut settings = Options::default();
        settings.set_block_based_table_factory(&tables);
        settings.set_compression_type(DBCompressionType::None);
        settings.set_write_buffer_size(memtable_bytes);
        settings.set_max_write_buffer_number(i32::try_from(memtables).unwrap_or(i32::MAX));
        settings.set_target_file_size_base(TABLE_FILE_BYTES);
        settings.set_level_zero_file_num_compaction_trigger(TABLES_MERGED);
        settings.set_level_zero_slowdown_writes_trigger(SLOWDOWN_TABLES);
        settings.set_level_zero_stop_writes_trigger(TABLES_MERGED * 4);
        ColumnFamilyDescriptor::new(name, settings)
    };
    let at_a_time = |name| if name == JOURNAL { MEMTABLES - 1 } else { 2 };
    memtables(options.memtable_bytes).map(|(name, bytes)| family(name, bytes, at_a_time(name))).into()
}
