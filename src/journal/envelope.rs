//! How a small record is stored: sessions, checkpoints and dead letters, each with its own version and checksum.
//!
//! | at | size | field |
//! |---|---|---|
//! | 0 | 4 | format version, little-endian |
//! | 4 | 4 | CRC-32 of the key, of the version from version 3 on, and of all bytes after it, little-endian |
//! | 8 | … | rkyv archive, root at its end |
//!
//! The key is under the checksum too, so that a record under another's key is not taken for it; and so is the version since there are
//! three of a record that are read, so that none of them is taken for another.

use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

const PREFIX_LEN: usize = 8;
/// From this version of a record on, the version is under its checksum.
const CHECKED_VERSION: u32 = 3;

/// Every kind of record has a version of its own, so that one can change alone.
pub(in crate::journal) trait Record: Archive {
    /// The version of its format.
    const VERSION: u32;
}

/// Why bytes are not such a record.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(in crate::journal) enum RecordError {
    #[error("too short for a record")]
    Short,
    #[error("record format version {found}, this program knows {known}")]
    Version { found: u32, known: u32 },
    #[error("its checksum does not match its bytes")]
    Checksum,
    #[error("malformed: {0}")]
    Malformed(String),
}

/// The bytes to store under `key`.
pub(in crate::journal) fn encode<T>(key: &[u8], record: &T) -> Vec<u8>
where
    T: Record + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Panic>>,
{
    use rancor::ResultExt as _;
    let archive = rkyv::to_bytes(record).always_ok();
    let mut bytes = Vec::with_capacity(PREFIX_LEN + archive.len());
    bytes.extend_from_slice(&T::VERSION.to_le_bytes());
    bytes.extend_from_slice(&checksum(key, T::VERSION, &archive).to_le_bytes());
    bytes.extend_from_slice(&archive);
    bytes
}

/// The format of a record, if it is long enough to have one.
pub(in crate::journal) fn version(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|version| u32::from_le_bytes(*version))
}

/// The record stored under `key`.
pub(in crate::journal) fn decode<T>(key: &[u8], bytes: &[u8]) -> Result<T, RecordError>
where
    T: Record,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + Deserialize<T, HighDeserializer<rancor::Error>>,
{
    let (Some((version, rest)), true) = (bytes.split_first_chunk(), bytes.len() >= PREFIX_LEN) else {
        return Err(RecordError::Short);
    };
    let (stated, archive) = rest.split_first_chunk().ok_or(RecordError::Short)?;
    let found = u32::from_le_bytes(*version);
    if found != T::VERSION {
        return Err(RecordError::Version { found, known: T::VERSION });
    }
    if u32::from_le_bytes(*stated) != checksum(key, found, archive) {
        return Err(RecordError::Checksum);
    }
    rkyv::from_bytes(archive).map_err(|error: rancor::Error| RecordError::Malformed(error.to_string()))
}

fn checksum(key: &[u8], version: u32, archive: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    if version >= CHECKED_VERSION {
        hasher.update(&version.to_le_bytes());
    }
    hasher.update(archive);
    hasher.finalize()
}
