//! Values on disk are masked, so that nobody who sends data can choose which bytes the disk holds.
//!
//! RocksDB's write-ahead log is overwritten file by file (that halves the time of a small commit). Where the new content
//! ends the old begins, at any byte of any old payload, and RocksDB tells the two apart by the log's number and a CRC: both
//! can be guessed and computed by whoever wrote the payload. Without a mask, a client could send records of RocksDB's log as
//! payload, and a restart would take them for its own: delete sessions, move the checkpoint, drop what was acked.
//! A mask that is drawn after the payload has come, anew for each value, leaves nothing to choose. It need not be secret
//! afterwards, so it is stored in front of the value.
//!
//! | at | size | field |
//! |---|---|---|
//! | 0 | 8 | mask |
//! | 8 | … | the value, each 8 bytes (the last ones: as many as there are) XORed with the mask |

const MASK_LEN: usize = 8;
/// Values are masked in pieces of so many bytes, a multiple of [`MASK_LEN`].
const PIECE_LEN: usize = 8 << 10;

/// Puts the stored form of `value` into `stored`, in place of what was in it.
pub(in crate::journal) fn mask_into(stored: &mut Vec<u8>, value: &[u8], mask: u64) {
    stored.clear();
    stored.reserve(MASK_LEN + value.len());
    stored.extend_from_slice(&mask.to_le_bytes());
    extend_masked(stored, value, mask);
}

/// The value of a stored form. One that is too short gives an empty value, which no format of the journal allows.
pub(in crate::journal) fn unmask(stored: &[u8]) -> Vec<u8> {
    let Some((mask, value)) = stored.split_first_chunk::<MASK_LEN>() else { return Vec::new() };
    let mut plain = Vec::with_capacity(value.len());
    extend_masked(&mut plain, value, u64::from_le_bytes(*mask));
    plain
}

/// Copies and masks piece by piece: what was just copied is still in the processor's nearest cache.
fn extend_masked(to: &mut Vec<u8>, from: &[u8], mask: u64) {
    for piece in from.chunks(PIECE_LEN) {
        let at = to.len();
        to.extend_from_slice(piece);
        apply(&mut to[at..], mask);
    }
}

fn apply(bytes: &mut [u8], mask: u64) {
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_le_bytes(*word) ^ mask).to_le_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.to_le_bytes()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests;
