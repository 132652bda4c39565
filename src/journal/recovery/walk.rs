//! A walk over the records of a database, also behind what cannot be read.

use crate::journal::database::{Cursor as _, Database};
use crate::journal::mask::unmask;
use crate::journal::meta::ASK_KEY_LEN;
use crate::model::DeadLetterId;

/// The longest key of any column family, in bytes: that of a configured sink's dead letter.
const KEY_BYTES_MAX: usize = DeadLetterId::KEY_LEN_MAX;
const _: () = assert!(KEY_BYTES_MAX >= ASK_KEY_LEN);

/// One step of a walk.
pub(in crate::journal) enum Item<'a> {
    /// Key and value, as they were put.
    Record(&'a [u8], Vec<u8>),
    /// The database cannot read on from behind this key. The walk tries to go on after it.
    Unreadable {
        /// The last key before it, or where the walk began.
        after: &'a [u8],
        /// The database gave this as the reason.
        error: String,
    },
}

/// Gives the records `from..to` of a family in the order of their keys.
pub(in crate::journal) fn walk(
    database: &impl Database,
    family: &'static str,
    from: &[u8],
    to: &[u8],
    each: &mut dyn FnMut(Item<'_>),
) {
    let mut records = database.iterate(family, from, to);
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
mod tests;
