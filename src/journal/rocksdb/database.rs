//! The RocksDB database under the journal: its column families, and how it is opened, written and read. Its settings are in
//! `settings`.
//!
//! | column family | key | value, under a [`crate::journal::mask`] |
//! |---|---|---|
//! | `journal` | first offset of the block, u64 big-endian | [`crate::journal::block`] |
//! | `meta` | [`crate::journal::meta`] | [`crate::journal::meta`] |
//! | `dead` | offset u64, index u16, big-endian | [`crate::journal::dead_letter`] |
//! | `default` | unused | |

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::OFlag;
use rocksdb::{ColumnFamily, DB, DBRawIterator, FlushOptions, ReadOptions, WriteBatch, WriteOptions, properties};

use crate::journal::database::{Cursor, DEAD, Database, JOURNAL, META, Table, block_key};
use crate::journal::directory::{DataDir, make_dir};
use crate::journal::error::{Damage, DamageKind, DamagePlace, OpenError};
use crate::journal::mask::{mask_into, unmask};
use crate::journal::rocksdb::manifest::verify_manifest;
use crate::journal::rocksdb::preallocate::{LogExtent, LogWatch, logs, preallocate};
use crate::journal::rocksdb::settings::{
    LogReading, MEMTABLE_BLOCK_BYTES_MAX, RocksOptions, SLOWDOWN_TABLES, families, memtables, settings,
};
use crate::journal::rocksdb::watch::{DatabaseWatch, Needs};
use crate::model::Offset;

/// The database is open as long as this lives.
pub struct Store {
    db: DB,
    synced: WriteOptions,
    /// So many bytes the journal's memtable takes.
    memtable_bytes: usize,
    /// Of the log that is written.
    extent: Mutex<LogExtent>,
    /// `None` where logs are not preallocated.
    log_watch: Option<Mutex<LogWatch>>,
    /// What is looked for again and again; `None` in a database that is only read.
    watch: Option<Mutex<DatabaseWatch>>,
}

impl Store {
    /// Makes an empty database where there is none.
    pub(in crate::journal) fn create(path: &Path, options: &RocksOptions) -> Result<Self, rocksdb::Error> {
        let mut settings = settings(LogReading::ToFirstBad);
        settings.create_if_missing(true);
        settings.create_missing_column_families(true);
        settings.set_error_if_exists(true);
        // RocksDB would let others in, unless the umask forbids it. Where this fails, RocksDB says why.
        drop(make_dir(path));
        Ok(Self::new(DB::open_cf_descriptors(&settings, path, families(options))?, options))
    }

    /// Opens for reading and writing. RocksDB replays its log and begins a new one: files change.
    pub(in crate::journal) fn open(path: &Path, options: &RocksOptions) -> Result<Self, OpenError> {
        let mut settings = settings(LogReading::ToFirstBad);
        settings.set_use_direct_io_for_flush_and_compaction(takes_direct_io(path));
        let opened = DB::open_cf_descriptors(&settings, path, families(options));
        let db = opened.map_err(|error| OpenError::storage("opening the database for writing", error))?;
        let watch =
            DatabaseWatch::start(path).map_err(|error| OpenError::storage("watching the database's files", error))?;
        let log_watch = options.preallocate.then(Mutex::default);
        Ok(Self { log_watch, watch: Some(Mutex::new(watch)), ..Self::new(db, options) })
    }

    /// Opens to look: nothing on disk changes. The log is replayed into memory.
    pub(in crate::journal) fn open_read_only(path: &Path, log: LogReading) -> Result<Self, Damage> {
        verify_manifest(path)?;
        let options = RocksOptions::default();
        let opened = DB::open_cf_descriptors_read_only(&settings(log), path, families(&options), false);
        opened
            .map(|db| Self::new(db, &options))
            .map_err(|error| Damage::new(DamageKind::DatabaseUnreadable, DamagePlace::Database, error))
    }

    /// How many changes are in table files, when the log is left out of account. `without_logs` is any directory that holds no
    /// logs.
    pub(in crate::journal) fn changes_in_tables(path: &Path, without_logs: &Path) -> Result<u64, rocksdb::Error> {
        let mut settings = settings(LogReading::ToFirstBad);
        settings.set_wal_dir(without_logs);
        let families = families(&RocksOptions::default());
        let opened = DB::open_cf_descriptors_read_only(&settings, path, families, false)?;
        Ok(opened.latest_sequence_number())
    }

    /// Makes a database that cannot be opened any more into one that can, out of the files that are left, and opens it.
    pub(in crate::journal) fn repair(path: &Path, options: &RocksOptions) -> Result<Self, rocksdb::Error> {
        let mut settings = settings(LogReading::AllGood);
        DB::repair(&settings, path)?;
        // A family of which no file is left is not known any more.
        settings.create_missing_column_families(true);
        DB::open_cf_descriptors(&settings, path, families(options)).map(|db| Self::new(db, options))
    }

    fn new(db: DB, options: &RocksOptions) -> Self {
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        Self {
            db,
            synced,
            memtable_bytes: options.memtable_bytes,
            extent: Mutex::default(),
            log_watch: None,
            watch: None,
        }
    }

    /// The column family, which is there since the database was opened with it.
    pub(in crate::journal) fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("opened with all column families")
    }

    /// The directory that it is in.
    pub(in crate::journal) fn path(&self) -> &Path {
        self.db.path()
    }

    /// Preallocates the log that is written first ([`crate::journal::rocksdb::preallocate`]), if `free_bytes` allows.
    ///
    /// For a database that was just opened and that nobody writes to yet.
    pub(in crate::journal) fn preallocate_log(&self, options: &RocksOptions, free_bytes: u64) -> Result<(), OpenError> {
        // What fills a memtable, and what a large last block or a checkpoint adds: as much as RocksDB preallocates.
        let bytes = options.memtable_bytes as u64 * 11 / 10;
        if !options.preallocate {
            return Ok(());
        }
        if free_bytes < options.reserve_bytes.saturating_add(bytes) {
            tracing::warn!(
                free_bytes,
                "too little free space to preallocate the write-ahead log: commits will be slower"
            );
            return Ok(());
        }
        let path = self.db.path();
        let first = || logs(path)?.last().map_or(Ok(()), |(_, log)| preallocate(&path.join(log), bytes));
        first().map_err(|error| OpenError::storage("preallocating the write-ahead log", error))
    }

    /// The number of the first write-ahead log that still counts: what was in earlier ones is in tables, or was given up.
    pub(in crate::journal) fn first_log(&self) -> u64 {
        Needs::first_log(self).unwrap_or_default()
    }

    /// The write-ahead logs that are not empty.
    pub(in crate::journal) fn logs(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.db.path()).into_iter().flatten().flatten();
        let files = files.filter(|file| file.metadata().is_ok_and(|metadata| metadata.len() > 0));
        let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.ends_with(".log")).map(|name| format!("rocksdb/{name}")).collect()
    }

    /// Whether each log is to be one that was laid out or filled before.
    pub(super) fn lays_logs_out(&self) -> bool {
        self.log_watch.is_some()
    }

    /// A property of a family; 0 where the database does not tell.
    pub(super) fn number_of(&self, name: &str, property: &rocksdb::properties::PropName) -> u64 {
        self.db.property_int_value_cf(self.family(name), property).ok().flatten().unwrap_or_default()
    }

    /// Deletes one record, in a synced write of its own.
    pub(super) fn delete_alone(&self, name: &str, key: &[u8]) -> Result<(), rocksdb::Error> {
        self.db.delete_cf_opt(self.family(name), key, &self.synced)
    }

    /// Writes all memtables to table files, and begins another log.
    #[cfg(test)]
    pub(in crate::journal) fn flush(&self) -> Result<(), rocksdb::Error> {
        self.flush_by(&FlushOptions::default())
    }

    fn flush_by(&self, options: &FlushOptions) -> Result<(), rocksdb::Error> {
        let families = [JOURNAL, META, DEAD].map(|name| self.family(name));
        self.db.flush_cfs_opt(&families.each_ref(), options)
    }

    /// Whether beginning another log would wait: for a memtable that is being written to a table, or for tables that are being merged.
    pub(super) fn would_wait(&self) -> bool {
        [JOURNAL, META, DEAD].into_iter().any(|name| {
            let level_0 = i32::try_from(self.number_of(name, &properties::num_files_at_level(0))).unwrap_or(i32::MAX);
            self.number_of(name, properties::NUM_IMMUTABLE_MEM_TABLE) > 0 || level_0 >= SLOWDOWN_TABLES - 2
        })
    }

    /// Whether the next write may begin another log. A write that fills a memtable marks it, and the next one begins the next memtable,
    /// and with it a log. RocksDB marks none whose blocks of memory leave room for more than 0.4 of a block (`ShouldFlushNow` in its
    /// db/memtable.cc).
    fn may_begin_log(&self) -> bool {
        memtables(self.memtable_bytes).into_iter().any(|(family, bytes)| {
            let used = self.db.property_int_value_cf(self.family(family), properties::CUR_SIZE_ACTIVE_MEM_TABLE);
            let block = (bytes / 8).min(MEMTABLE_BLOCK_BYTES_MAX);
            used.ok().flatten().is_none_or(|used| used >= (bytes - block) as u64)
        })
    }

    /// Whether the last write has only replaced what the log's file held. What a power cut takes of it then reads as what was there,
    /// which RocksDB takes for the end of the log. In a file that grows it may read as zeros, and these RocksDB skips.
    fn is_within_what_is_laid_out(&self) -> bool {
        // A log is begun together with a memtable, and these are counted among other things.
        let begun = [JOURNAL, META, DEAD].map(|name| self.number_of(name, properties::CURRENT_SUPER_VERSION_NUMBER));
        self.extent.lock().unwrap_or_else(PoisonError::into_inner).has_stayed(self.db.path(), begun)
    }
}

#[cfg(test)]
impl Store {
    /// Merges all tables, as fast as that goes.
    pub(in crate::journal) fn compact(&self) {
        for family in [JOURNAL, META, DEAD] {
            self.db.compact_range_cf(self.family(family), None::<&[u8]>, None::<&[u8]>);
        }
    }
}

impl Database for Store {
    type Batch = WriteBatch;
    type Error = rocksdb::Error;
    type Cursor<'a> = DBRawIterator<'a>;
    type Sidecar = DataDir;

    fn batch(&self, bytes: usize, synced: u64) -> WriteBatch {
        let mut batch = WriteBatch::with_capacity_bytes(bytes);
        // The log alone keeps it: it is no change, and in no table.
        batch.put_log_data(synced.to_le_bytes());
        batch
    }

    fn put(&self, batch: &mut WriteBatch, family: &'static str, key: &[u8], value: &[u8], scratch: &mut Vec<u8>) {
        mask_into(scratch, value, rand::random());
        batch.put_cf(self.family(family), key, scratch);
    }

    fn delete(&self, batch: &mut WriteBatch, family: &'static str, key: &[u8]) {
        batch.delete_cf(self.family(family), key);
    }

    fn delete_range(&self, batch: &mut WriteBatch, family: &'static str, from: &[u8], to: &[u8]) {
        batch.delete_range_cf(self.family(family), from, to);
    }

    fn write(&self, batch: WriteBatch) -> Result<(), rocksdb::Error> {
        self.db.write_opt(batch, &self.synced)
    }

    fn write_ahead(&self, batch: WriteBatch) -> Result<(), rocksdb::Error> {
        self.db.write_opt(batch, &WriteOptions::default())
    }

    /// RocksDB lets one thread sync its logs at a time, and once a sync has failed refuses every later one of the same log
    /// (`seen_error` in its file/writable_file_writer.cc).
    fn sync(&self) -> Result<(), rocksdb::Error> {
        self.db.flush_wal(true)
    }

    fn may_overtake(&self) -> bool {
        !self.may_begin_log() && self.is_within_what_is_laid_out()
    }

    fn get(&self, family: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, rocksdb::Error> {
        let stored = self.db.get_pinned_cf(self.family(family), key)?;
        Ok(stored.map(|stored| unmask(&stored)))
    }

    /// Both bounds, since beyond them lie tombstones.
    fn iterate(&self, family: &'static str, from: &[u8], to: &[u8]) -> DBRawIterator<'_> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        // Blocks are read once: they would only push indexes out of the cache.
        options.fill_cache(false);
        self.db.raw_iterator_cf_opt(self.family(family), options)
    }

    fn sequence(&self) -> u64 {
        self.db.latest_sequence_number()
    }

    /// Table files whose range of keys includes it, and the write-ahead logs.
    fn files_of(&self, family: &'static str, key: &[u8]) -> Vec<String> {
        let holds = |file: &rocksdb::LiveFile| {
            let within = file.start_key.as_deref() <= Some(key) && Some(key) <= file.end_key.as_deref();
            within && file.column_family_name == family
        };
        let tables = self.db.live_files().unwrap_or_default();
        let tables = tables.iter().filter(|file| holds(file)).map(|file| format!("rocksdb{}", file.name));
        tables.chain(self.logs()).collect()
    }

    fn delete_files_below(&self, low: Offset) -> Result<(), rocksdb::Error> {
        let Some(last) = low.0.checked_sub(1) else { return Ok(()) };
        // The upper end is inclusive.
        self.db.delete_file_in_range_cf(self.family(JOURNAL), block_key(Offset(0)), block_key(Offset(last)))
    }

    fn is_log_due(&self) -> bool {
        let Some(watch) = &self.log_watch else { return false };
        let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
        // It is about speed; who cannot list the directory will fail where it matters.
        watch.is_switch_due(self.db.path()).unwrap_or(false) && !self.would_wait()
    }

    fn begin_log(&self) -> Result<(), rocksdb::Error> {
        let mut at_once = FlushOptions::default();
        at_once.set_wait(false);
        self.flush_by(&at_once)
    }

    fn rest(&self) -> Result<bool, rocksdb::Error> {
        self.empty_memtables()
    }

    fn unix_us(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    fn tables(&self, family: &'static str) -> Vec<Table> {
        let files =
            self.db.live_files().unwrap_or_default().into_iter().filter(|file| file.column_family_name == family);
        let table = |file: rocksdb::LiveFile| Some(Table { last: file.end_key?, bytes: file.size as u64 });
        let mut tables: Vec<_> = files.filter_map(table).collect();
        tables.sort_by(|a, b| a.last.cmp(&b.last));
        tables
    }

    fn is_damage(error: &rocksdb::Error) -> bool {
        error.kind() == rocksdb::ErrorKind::Corruption
    }

    fn lost(&self, tables: bool) -> Option<String> {
        self.watch.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).lost(self, tables)
    }
}

impl Needs for Store {
    fn first_log(&self) -> Option<u64> {
        self.db.property_int_value(properties::MIN_LOG_NUMBER_TO_KEEP).ok().flatten()
    }

    fn tables(&self) -> Option<Vec<(String, u64)>> {
        let files = self.db.live_files().ok()?;
        Some(files.into_iter().map(|file| (file.name, file.size as u64)).collect())
    }
}

impl Cursor for DBRawIterator<'_> {
    type Error = rocksdb::Error;

    fn seek(&mut self, key: &[u8]) {
        self.seek(key);
    }

    fn seek_for_prev(&mut self, key: &[u8]) {
        self.seek_for_prev(key);
    }

    fn seek_to_first(&mut self) {
        self.seek_to_first();
    }

    fn next(&mut self) {
        self.next();
    }

    fn valid(&self) -> bool {
        self.valid()
    }

    fn item(&self) -> Option<(&[u8], &[u8])> {
        self.item()
    }

    fn status(&self) -> Result<(), rocksdb::Error> {
        self.status()
    }
}

/// Whether a directory holds the database of a journal, whole enough to say so. Only looks.
pub(in crate::journal) fn is_of_a_journal(path: &Path) -> bool {
    let families = DB::list_cf(&settings(LogReading::ToFirstBad), path).unwrap_or_default();
    [JOURNAL, META, DEAD].iter().all(|family| families.iter().any(|there| there == family))
}

/// Whether the database's file system lets table files pass by the page cache. They are written once, and read only by lanes
/// that lag: in the cache they displace what is used. On a virtual machine whose host gives memory only when it is touched, copying
/// a growing backlog into the cache took half of all processor time.
fn takes_direct_io(path: &Path) -> bool {
    let direct = OFlag::O_DIRECT.bits();
    let opened = OpenOptions::new().read(true).custom_flags(direct).open(path.join("CURRENT"));
    opened
        .inspect_err(|error| tracing::info!(%error, "no direct I/O here: a backlog goes through the page cache"))
        .is_ok()
}
