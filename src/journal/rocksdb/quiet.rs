//! A database to which nothing is written for a while: what its memtables hold goes to table files, and the next commit finds
//! a write-ahead log that is laid out.

use rocksdb::properties::CUR_SIZE_ALL_MEM_TABLES;

use crate::journal::database::{DEAD, Database as _, JOURNAL, META};
use crate::journal::rocksdb::database::Store;
use crate::journal::rocksdb::preallocate::written_log;
use crate::limits::QUIET_MEMTABLES_BYTES;

/// Deleted so that a log is begun; there is no such record, nor can there be.
const NO_RECORD: &[u8] = &[0xff];

impl Store {
    /// A step towards it; returns whether another should follow a little later.
    pub(super) fn empty_memtables(&self) -> Result<bool, rocksdb::Error> {
        if self.would_wait() {
            return Ok(true);
        }
        if self.memtables_bytes() >= QUIET_MEMTABLES_BYTES {
            self.begin_log()?;
            // The log that was written is free by the next look.
            return Ok(true);
        }
        if self.lays_logs_out() && written_log(self.path()).is_ok_and(|log| log.is_some_and(|log| log.longer_waits)) {
            // RocksDB begins no other log while nothing is in the one that is written.
            self.delete_alone(META, NO_RECORD)?;
            self.begin_log()?;
        }
        Ok(false)
    }

    fn memtables_bytes(&self) -> u64 {
        [JOURNAL, META, DEAD].into_iter().map(|name| self.number_of(name, CUR_SIZE_ALL_MEM_TABLES)).sum()
    }
}

#[cfg(test)]
mod tests;
