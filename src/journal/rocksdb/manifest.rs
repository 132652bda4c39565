//! The MANIFEST, RocksDB's log of its table files, looked at before RocksDB reads it.
//!
//! RocksDB takes damage in it for its end where a type is one that recycled logs have, or a header is zero: then tables
//! vanish without a word. And where such a type follows a good record, its reader goes round forever on the same bytes
//! (RocksDB 11.8, `log::Reader::ReadPhysicalRecord`: it gives the record up without passing over it).
//!
//! The file is a run of pages of 32 KiB, each a run of fragments: CRC-32C (masked) u32, length u16, type u8 from 1 to 4, data;
//! all little-endian. What is left of a page, if no header fits, is zero.

use std::fs;
use std::io;
use std::path::Path;

use crate::journal::error::{Damage, DamageKind, DamagePlace};
use crate::journal::rocksdb::write_ahead_log::{PAGE_LEN, crc32c, masked};

const HEADER_LEN: usize = 7;
const TYPE_MAX: u8 = 4;

/// Verifies the MANIFEST of the database at `path`. What cannot be read at all is left to RocksDB to complain about.
pub(in crate::journal) fn verify_manifest(path: &Path) -> Result<(), Damage> {
    let Ok((name, bytes)) = manifest(path) else { return Ok(()) };
    let Some(at) = first_bad(&bytes) else { return Ok(()) };
    let problem = format!("its list of files is damaged at byte {at}");
    let damage = Damage::new(DamageKind::DatabaseUnreadable, DamagePlace::Database, problem);
    Err(Damage { byte: Some(at as u64), ..damage.in_files(vec![format!("rocksdb/{name}")]) })
}

fn manifest(path: &Path) -> io::Result<(String, Vec<u8>)> {
    let name = fs::read_to_string(path.join("CURRENT"))?.trim_end().to_owned();
    let bytes = fs::read(path.join(&name))?;
    Ok((name, bytes))
}

/// Where the first fragment begins that is not what was written. The last one may be cut short: a crash may have interrupted
/// its writing, and then it is not in force.
fn first_bad(bytes: &[u8]) -> Option<usize> {
    for (page, start) in bytes.chunks(PAGE_LEN).zip((0..).step_by(PAGE_LEN)) {
        let mut at = 0;
        while let Some(header) = page.get(at..at + HEADER_LEN) {
            let data = usize::from(u16::from_le_bytes([header[4], header[5]]));
            let end = at + HEADER_LEN + data;
            if header == [0; HEADER_LEN] && bytes[start + at..].iter().all(|&byte| byte == 0) {
                // Space that was given to the file, and not written to yet.
                return None;
            }
            if !(1..=TYPE_MAX).contains(&header[6]) {
                return Some(start + at);
            }
            if end > page.len() {
                let cut = page.len() < PAGE_LEN && (at + 1..page.len()).all(|behind| !says_something(&page[behind..]));
                return (!cut).then_some(start + at);
            }
            if !is_good(&page[at..]) {
                return Some(start + at);
            }
            at = end;
        }
    }
    None
}

/// Whether a whole fragment starts here. RocksDB writes some without data.
fn is_good(bytes: &[u8]) -> bool {
    let Some(header) = bytes.get(..HEADER_LEN) else { return false };
    let data = usize::from(u16::from_le_bytes([header[4], header[5]]));
    let Some(checked) = bytes.get(6..HEADER_LEN + data) else { return false };
    (1..=TYPE_MAX).contains(&header[6]) && header[..4] == masked(crc32c(checked)).to_le_bytes()
}

/// Whether a whole fragment with data starts here.
fn says_something(bytes: &[u8]) -> bool {
    bytes.get(4..6).is_some_and(|len| len != [0, 0]) && is_good(bytes)
}

#[cfg(test)]
mod tests;
