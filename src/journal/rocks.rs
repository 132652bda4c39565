//! The journal on RocksDB.
