//! RocksDB's database as [`Evidence`]: every record, also behind what cannot be read, and what its log holds besides.

use super::mask::unmask;
use super::recovery::{Evidence, Family, Item, KEY_LAST, Tail};
use super::rocks_db::Store;
use super::rocks_wal::tail;

/// The longest key of any column family, in bytes: a session's.
const KEY_BYTES_MAX: usize = 13;

/// A database that was opened to look.
pub(super) struct RocksEvidence<'a> {
    pub(super) store: &'a Store,
    /// Whether the log is held against what RocksDB has delivered of it. Not where it has delivered all that is good.
    pub(super) log: bool,
}

impl Evidence for RocksEvidence<'_> {
    fn changes(&self) -> u64 {
        self.store.sequence()
    }

    fn tail(&self) -> Result<Tail, String> {
        if !self.log {
            return Ok(Tail::Clean);
        }
        tail(self.store.path(), self.store.sequence()).map_err(|error| format!("reading its log: {error}"))
    }

    fn walk(&self, family: Family, from: &[u8], to: &[u8], each: &mut dyn FnMut(Item<'_>)) {
        let mut records = self.store.iterate(family.name(), from, to);
        let mut last = from.to_vec();
        records.seek(&last);
        loop {
            while let Some((key, value)) = records.item() {
                last.clear();
                last.extend_from_slice(key);
                each(Item::Record(key, unmask(value)));
                records.next();
            }
            let Err(error) = records.status() else { return };
            each(Item::Unreadable { after: &last, error: error.to_string() });
            // What lies behind is found by ever larger steps: the bad part is a block of a table file, whose keys are unknown.
            last.resize(last.len().max(KEY_BYTES_MAX), 0);
            let mut bit = 0;
            loop {
                if !add_bit(&mut last, bit) {
                    return;
                }
                records.seek(&last);
                if records.valid() {
                    break;
                }
                if records.status().is_ok() {
                    return;
                }
                bit += 1;
            }
        }
    }

    /// RocksDB touches what lies below although it is trimmed.
    fn unreadable_below(&self, family: Family, key: &[u8]) -> Option<String> {
        let mut below = self.store.iterate(family.name(), key, &KEY_LAST);
        below.seek_for_prev(key);
        below.status().err().map(|error| error.to_string())
    }

    fn files_of(&self, family: Family, key: &[u8]) -> Vec<String> {
        self.store.files_of(family.name(), key)
    }
}

/// Adds 2^bit to a big-endian number; whether it fits.
fn add_bit(number: &mut [u8], bit: usize) -> bool {
    let Some(at) = number.len().checked_sub(1 + bit / 8) else { return false };
    let (sum, mut carry) = number[at].overflowing_add(1 << (bit % 8));
    number[at] = sum;
    for byte in number[..at].iter_mut().rev() {
        if !carry {
            break;
        }
        (*byte, carry) = byte.overflowing_add(1);
    }
    !carry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_over_keys_carry_and_end_at_the_last_key() {
        let mut key = [0, 0xff, 0xff];
        assert!(add_bit(&mut key, 0));
        assert_eq!(key, [1, 0, 0]);
        assert!(add_bit(&mut key, 15));
        assert_eq!(key, [1, 0x80, 0]);
        assert!(add_bit(&mut key, 15));
        assert_eq!(key, [2, 0, 0]);
        let mut last = [0xff, 0xff];
        assert!(!add_bit(&mut last, 3), "past the last key");
        assert!(!add_bit(&mut [0; 2], 16), "wider than the key");
    }
}
