//! What RocksDB has dropped from its write-ahead log without a word.
//!
//! When it opens a database, RocksDB reads its log up to the first bad record and takes that for the end, as it must: the
//! write that a crash interrupted is torn. It cannot tell that from damage in the middle of data that was synced, so
//! everything behind such damage vanishes. But each record says how many changes were known to be synced when it was made (its
//! batch begins with them, as data for the log alone). Hence: a good record behind the place where RocksDB stopped proves damage,
//! if what is bad there had been synced by what it says. If not, both were under way when the crash came, and nothing of them was
//! acked. In a log of an earlier version no record says so, and each write was synced before the next began.
//!
//! Nor does it ask whether the log goes on where the table files end: when the list of those (the MANIFEST) has lost its last
//! entries, or the oldest log its file, RocksDB makes do with what there is. So the log must hold the change that comes
//! after the last one in table files.
//!
//! Logs that RocksDB has done with are not looked at. Where a sync fails for lack of space, RocksDB flushes what it has and
//! begins a new log by itself; the old one ends with the whole record of a write that failed, which nobody was told of.
//!
//! The log is a run of pages of 32 KiB, each a run of fragments: CRC-32C (masked) u32, length u16, type u8, log number u32,
//! then the data; all little-endian, in the form that RocksDB writes when it recycles its logs. A record that fits into
//! the page is one fragment of type 5, else it begins with one of type 6. Its data begins with the sequence number and the count of
//! changes; then comes what was synced: the tag 3, a length of 8, and the number. The end of a page may part that: such a record proves
//! nothing, and the next one does.
//! Fragments are looked for at every byte, since behind damage nothing is known to be aligned; that payloads cannot
//! imitate them is [`crate::journal::mask`]'s doing.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::journal::recovery::{Tail, Torn};
use crate::journal::rocksdb::preallocate::{FILL, logs};

pub(in crate::journal) const PAGE_LEN: usize = 32 << 10;
const HEADER_LEN: usize = 11;
/// Sequence number and count, in front of each batch.
const BATCH_HEADER_LEN: usize = 12;
const WHOLE: u8 = 5;
const FIRST: u8 = 6;
/// Behind the header of a batch: what stands in front of the number of changes that were synced, and the number's length.
const SYNCED_TAG: [u8; 2] = [3, 8];
const SYNCED_LEN: usize = SYNCED_TAG.len() + 8;
/// No log holds so many changes: what claims a sequence number so far ahead is no record.
const SEQUENCE_AHEAD_MAX: u64 = 1 << 40;

/// What the logs of the database at `path`, from number `first_log` on, hold besides what RocksDB has delivered, given how
/// many changes are in its table files and how many RocksDB has delivered with those of the logs.
pub(in crate::journal) fn tail(path: &Path, first_log: u64, in_tables: u64, delivered: u64) -> io::Result<Tail> {
    let search = Search { first: in_tables + 1, next: delivered + 1 };
    let mut page = vec![0; PAGE_LEN];
    let (mut torn, mut whole, mut joined) = (None, 0, delivered <= in_tables);
    for (number, name) in logs(path)?.into_iter().filter(|&(number, _)| number >= first_log) {
        let mut log = File::open(path.join(&name))?;
        let mut page_at = 0;
        loop {
            let len = read_full(&mut log, &mut page)?;
            // Most of a preallocated log may be that.
            let filled = page[..len].iter().all(|&byte| byte == FILL);
            let found = if filled { Vec::new() } else { search.page(&page[..len], number) };
            for (at, found) in found {
                let (file, at) = (format!("rocksdb/{name}"), page_at + at as u64);
                match found {
                    Found::Proof => return Ok(Tail::GoodAfterBad { file, at }),
                    Found::Torn => torn = torn.or(Some((file, at))),
                    Found::UnderWay => {
                        torn = torn.or(Some((file, at)));
                        whole += 1;
                    }
                    Found::First => joined = true,
                }
            }
            page_at += len as u64;
            if len < PAGE_LEN {
                break;
            }
        }
    }
    if !joined {
        return Ok(Tail::Gap { in_tables });
    }
    Ok(torn.map_or(Tail::Clean, |(file, at)| Tail::Torn(Torn { file, at, whole })))
}

/// What is of interest in a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    /// The record with the first change that is not in table files.
    First,
    /// A good record that RocksDB has not delivered, and that proves damage before it.
    Proof,
    /// A good record that RocksDB has not delivered, of a write that was under way together with one that is not whole.
    UnderWay,
    /// The beginning of the write that should come next, and the write is not whole.
    Torn,
}

/// The changes of interest, by their sequence numbers.
struct Search {
    /// The first that is not in table files.
    first: u64,
    /// The first that RocksDB has not delivered.
    next: u64,
}

impl Search {
    fn page(&self, page: &[u8], log: u64) -> Vec<(usize, Found)> {
        // The header has the low 32 bits.
        let [b0, b1, b2, b3, ..] = log.to_le_bytes();
        let log = [b0, b1, b2, b3];
        let starts = 0..(page.len() + 1).saturating_sub(HEADER_LEN + BATCH_HEADER_LEN);
        let candidates = starts.filter(|&at| matches!(page[at + 6], WHOLE | FIRST) && page[at + 7..at + 11] == log);
        candidates.filter_map(|at| Some((at, self.fragment(&page[at..])?))).collect()
    }

    /// What the fragment that seems to start here is.
    fn fragment(&self, fragment: &[u8]) -> Option<Found> {
        let data = &fragment[HEADER_LEN..];
        let first = u64::from_le_bytes(*data.first_chunk()?);
        // A write of no change takes no number.
        let count = u64::from(u32::from_le_bytes(*data[8..].first_chunk()?));
        let holds_first = first <= self.first && self.first - first < count;
        let behind = count > 0 && first >= self.next && first - self.next < SEQUENCE_AHEAD_MAX;
        if !holds_first && !behind {
            return None;
        }
        let good = is_good(fragment);
        if !behind {
            return good.then_some(Found::First);
        }
        let is_whole = fragment[6] == WHOLE;
        match good {
            // The write that a crash interrupts may have left its first fragment whole. A whole one RocksDB would have delivered.
            true if first == self.next => Some(if is_whole { Found::Proof } else { Found::Torn }),
            true => Some(match synced(fragment) {
                SyncedBefore::Said(changes) if changes < self.next => Found::UnderWay,
                SyncedBefore::Parted => Found::UnderWay,
                SyncedBefore::Said(_) | SyncedBefore::All => Found::Proof,
            }),
            false => (first == self.next).then_some(Found::Torn),
        }
    }
}

/// What was synced before a record was written.
enum SyncedBefore {
    /// So many changes were known to be.
    Said(u64),
    /// All that was written before: an earlier version has written it.
    All,
    /// It says so in the next page.
    Parted,
}

/// Reads it of a good fragment that begins a record.
fn synced(fragment: &[u8]) -> SyncedBefore {
    let end = HEADER_LEN + usize::from(u16::from_le_bytes([fragment[4], fragment[5]]));
    let said = &fragment[HEADER_LEN + BATCH_HEADER_LEN..end];
    let number = said.strip_prefix(&SYNCED_TAG).and_then(|number| number.first_chunk());
    match number {
        Some(number) => SyncedBefore::Said(u64::from_le_bytes(*number)),
        None if fragment[6] == FIRST && said.len() < SYNCED_LEN && begins_alike(said, &SYNCED_TAG) => {
            SyncedBefore::Parted
        }
        None => SyncedBefore::All,
    }
}

fn begins_alike(a: &[u8], b: &[u8]) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b)
}

fn is_good(fragment: &[u8]) -> bool {
    let len = HEADER_LEN + usize::from(u16::from_le_bytes([fragment[4], fragment[5]]));
    len >= HEADER_LEN + BATCH_HEADER_LEN
        && len <= fragment.len()
        && fragment[..4] == masked(crc32c(&fragment[6..len])).to_le_bytes()
}

/// A CRC in the form in which RocksDB stores it.
pub(in crate::journal) fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (RFC 3720, appendix B.4). Bit by bit: it runs only for what looks like a record that was dropped.
pub(in crate::journal) fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

/// Fills the buffer, or as much of it as the file still has.
fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

#[cfg(test)]
pub(in crate::journal) mod tests;
