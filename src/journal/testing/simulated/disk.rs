//! The simulated disk: tables at rest, a write-ahead log in sectors, the witness; what a power cut leaves of them, and what
//! can be done to them while nobody looks.
//!
//! The log is a run of records, one for each batch: CRC-32 of all that follows u32, length of the changes u32, number of the
//! log u32, sequence number of the first change u64, count of changes u32, how many changes were known to be synced u64, the changes. A log is written over an earlier
//! one, as RocksDB recycles its logs, so that behind its end lie old records.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{Change, Family};
use crate::journal::recovery::{Tail, Torn, Witness};

const SECTOR_BYTES: usize = 512;
const RECORD_HEADER_LEN: usize = 32;
/// What a preallocated log is filled with.
const FILL: u8 = 0xff;
/// A log that has grown to this is emptied into the tables.
const LOG_BYTES_MAX: usize = 32 << 10;

pub(in crate::journal) type Values = BTreeMap<Vec<u8>, Arc<[u8]>>;

/// All keys and masked values, and how many changes made them.
#[derive(Clone, PartialEq, Eq, Default)]
pub(in crate::journal) struct State {
    pub(in crate::journal) families: [Values; 3],
    pub(in crate::journal) sequence: u64,
}

impl State {
    pub(in crate::journal) fn apply(&mut self, change: &Change) {
        self.sequence += 1;
        match change {
            Change::Put { family, key, stored, .. } => {
                self.families[*family as usize].insert(key.clone(), stored.clone());
            }
            Change::Delete { family, key } => drop(self.families[*family as usize].remove(key)),
            Change::DeleteRange { family, from, to } => {
                let values = &mut self.families[*family as usize];
                let keys: Vec<_> = values.range(from.clone()..to.clone()).map(|(key, _)| key.clone()).collect();
                keys.iter().for_each(|key| drop(values.remove(key)));
            }
        }
    }
}

/// What is still there after a power cut.
#[derive(Clone, PartialEq, Eq, Default)]
pub(in crate::journal) struct Disk {
    /// A database was made here, and its files are on the disk.
    pub(in crate::journal) exists: bool,
    tables: State,
    /// Keys in the tables that the database finds damaged when it comes to them.
    pub(in crate::journal) unreadable: BTreeSet<(Family, Vec<u8>)>,
    log: Log,
    pub(in crate::journal) witness: Option<StoredWitness>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::journal) enum StoredWitness {
    Good(Witness),
    Damaged,
}

#[derive(Clone, PartialEq, Eq, Default)]
struct Log {
    number: u32,
    /// As a reader sees it.
    bytes: Vec<u8>,
    end: usize,
    /// From here to the end a power cut may put back what `under` holds.
    synced: usize,
    under: Vec<u8>,
}

/// What reading the log found.
pub(in crate::journal) struct Read {
    pub(in crate::journal) state: State,
    /// What lies behind the place where reading stopped.
    pub(in crate::journal) tail: Tail,
}

impl Disk {
    /// The content as the database finds it: the tables, and the log up to its first bad record.
    pub(in crate::journal) fn read(&self) -> Read {
        let mut state = self.tables.clone();
        let mut at = 0;
        while let Some((range, _, changes)) = self.log.record(at, state.sequence + 1) {
            changes.iter().for_each(|change| state.apply(change));
            at = range.end;
        }
        let tail = self.log.tail(at, state.sequence + 1);
        Read { state, tail }
    }

    /// The database is opened for writing: what was read goes to new tables, synced, and a new log begins.
    pub(in crate::journal) fn settle(&mut self, state: State) {
        self.tables = state;
        self.unreadable.clear();
        self.log.number += 1;
        self.log.end = 0;
        self.log.synced = 0;
        self.log.under.clear();
    }

    /// Appends a batch of changes to the log. Only `part` of 256 of the record's bytes get there.
    pub(in crate::journal) fn append(&mut self, sequence: u64, synced: u64, changes: &[Change], part: usize) {
        let record = encode(self.log.number, sequence + 1, synced, changes);
        self.log.append(&record[..record.len() * part / 256]);
    }

    pub(in crate::journal) fn sync(&mut self) {
        self.log.synced = self.log.end;
        self.log.under.clear();
    }

    /// Whether the log is due to be emptied into the tables.
    pub(in crate::journal) fn is_flush_due(&self) -> bool {
        self.log.end >= LOG_BYTES_MAX && self.log.synced == self.log.end
    }

    /// The power fails: of what was not synced any sectors survive.
    pub(in crate::journal) fn cut_power(&mut self, seed: u64) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let log = &mut self.log;
        let (synced, end) = (log.synced, log.end);
        let keep_of_8 = rng.random_range(0..=8);
        let prefix = rng.random_bool(0.3).then(|| rng.random_range(synced..=end));
        let mut at = synced;
        while at < end {
            let to = (at / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES).min(end);
            let kept = match prefix {
                Some(prefix) => to <= prefix,
                None => rng.random_range(0..8) < keep_of_8,
            };
            if !kept {
                log.bytes[at..to].copy_from_slice(&log.under[at - synced..to - synced]);
            }
            at = to;
        }
        log.synced = end;
        log.under.clear();
    }

    /// Does damage that must not go unnoticed, if there is something to damage; says what it did. `end` is where the journal
    /// ends.
    pub(in crate::journal) fn damage(&mut self, seed: u64) -> Option<String> {
        let mut rng = SmallRng::seed_from_u64(seed);
        match rng.random_range(0..8) {
            0 | 1 => self.damage_log(&mut rng),
            2 => Some(self.damage_witness(&mut rng)),
            3 | 4 => self.damage_blocks(&mut rng),
            _ => self.flip_value(&mut rng),
        }
    }

    /// Ends the log at its first bad record, as if nothing lay behind.
    pub(in crate::journal) fn skip_damage(&mut self) {
        let end = self.records().last().map_or(0, |(last, ..)| last.end);
        self.log.bytes[end..].fill(FILL);
        self.witness = Some(StoredWitness::Good(Witness::NotInService));
    }

    fn flip_value(&mut self, rng: &mut SmallRng) -> Option<String> {
        let family = Family::ALL[rng.random_range(0..3)];
        let key = self.pick(family, rng)?;
        if rng.random_bool(0.3) {
            self.unreadable.insert((family, key.clone()));
            return Some(format!("{family:?} {key:02x?} cannot be read"));
        }
        let value = self.tables.families[family as usize].get_mut(&key)?;
        let mut bytes = value.to_vec();
        let at = rng.random_range(0..bytes.len());
        bytes[at] ^= 1 << rng.random_range(0..8);
        *value = bytes.into();
        Some(format!("a bit of byte {at} of {family:?} {key:02x?} is flipped"))
    }

    fn damage_blocks(&mut self, rng: &mut SmallRng) -> Option<String> {
        let key = self.pick(Family::Journal, rng)?;
        let other = self.pick(Family::Journal, rng)?;
        let witnessed = match self.witness {
            Some(StoredWitness::Good(witness)) => witness.end().0.to_be_bytes(),
            _ => [0; 8],
        };
        let blocks = &mut self.tables.families[Family::Journal as usize];
        match rng.random_range(0..4) {
            // Nothing but the witness can tell that the last one is gone.
            0 if blocks.keys().next_back() == Some(&key) && key[..] >= witnessed[..] => None,
            0 => {
                blocks.remove(&key);
                Some(format!("block {key:02x?} is gone"))
            }
            1 => {
                let old = blocks.insert(key.clone(), blocks[&other].clone())?;
                (old != blocks[&other]).then(|| format!("block {other:02x?} stands at {key:02x?} too"))
            }
            2 => {
                let value = blocks.remove(&key)?;
                let mut to = key.clone();
                *to.last_mut()? ^= 1 << rng.random_range(0..4);
                let what = format!("block {key:02x?} stands at {to:02x?}");
                blocks.insert(to, value);
                Some(what)
            }
            _ => {
                let value = blocks.get_mut(&key)?;
                let cut = rng.random_range(0..value.len());
                *value = value[..cut].into();
                Some(format!("block {key:02x?} is cut to {cut} bytes"))
            }
        }
    }

    fn pick(&self, family: Family, rng: &mut SmallRng) -> Option<Vec<u8>> {
        let values = &self.tables.families[family as usize];
        let nth = rng.random_range(0..values.len().max(1));
        values.keys().nth(nth).cloned()
    }

    /// Damages a record. Damage to one looks like a commit that a crash has torn, unless the witness covers it, or the last one says
    /// that it was synced.
    fn damage_log(&mut self, rng: &mut SmallRng) -> Option<String> {
        let witnessed = match self.witness {
            Some(StoredWitness::Good(Witness::Durable { changes, .. })) => changes,
            _ => 0,
        };
        let records = self.records();
        let claimed = records.last().map_or(0, |&(_, _, synced)| synced);
        let proven = records.iter().filter(|&&(_, last, _)| last <= witnessed.max(claimed)).count();
        if proven == 0 {
            return None;
        }
        let (record, ..) = records[rng.random_range(0..proven)].clone();
        if rng.random_bool(0.5) {
            let at = rng.random_range(record.clone());
            self.log.bytes[at] ^= 1 << rng.random_range(0..8);
            return Some(format!("a bit of byte {at} of the log is flipped"));
        }
        let sector = rng.random_range(record) / SECTOR_BYTES * SECTOR_BYTES;
        // Zeroes, or a stale or misplaced sector; not what reaches beyond.
        let limit = records.get(proven).map_or(self.log.end, |(record, ..)| record.start);
        let to = (sector + SECTOR_BYTES).min(limit);
        let from = rng.random_range(0..self.log.bytes.len()) / SECTOR_BYTES * SECTOR_BYTES;
        let source: Vec<u8> = match rng.random_bool(0.5) {
            true => vec![0; to - sector],
            false => (0..to - sector).map(|i| self.log.bytes.get(from + i).copied().unwrap_or(0)).collect(),
        };
        let changed = self.log.bytes[sector..to] != source[..];
        self.log.bytes[sector..to].copy_from_slice(&source);
        changed.then(|| format!("sector {sector} of the log holds other bytes"))
    }

    fn damage_witness(&mut self, rng: &mut SmallRng) -> String {
        self.witness = rng.random_bool(0.5).then_some(StoredWitness::Damaged);
        format!("the witness is {:?}", self.witness)
    }

    /// Where the log's good records lie, the number of the last change in each, and how many changes it says were synced.
    fn records(&self) -> Vec<(Range<usize>, u64, u64)> {
        let (mut at, mut next) = (0, self.tables.sequence + 1);
        let mut records = Vec::new();
        while let Some((range, synced, changes)) = self.log.record(at, next) {
            next += changes.len() as u64;
            at = range.end;
            records.push((range, next - 1, synced));
        }
        records
    }
}

impl Log {
    fn append(&mut self, record: &[u8]) {
        let end = self.end + record.len();
        if self.bytes.len() < end {
            self.bytes.resize(end.next_multiple_of(4 * SECTOR_BYTES), FILL);
        }
        self.under.extend_from_slice(&self.bytes[self.end..end]);
        self.bytes[self.end..end].copy_from_slice(record);
        self.end = end;
    }

    /// The good record at `at`, if there is one and it begins with change `sequence`; how many changes it says were synced.
    fn record(&self, at: usize, sequence: u64) -> Option<(Range<usize>, u64, Vec<Change>)> {
        let (range, first, synced) = self.envelope(at)?;
        if first != sequence {
            return None;
        }
        let body = &self.bytes[range.start + RECORD_HEADER_LEN..range.end];
        Some((range, synced, decode(body)))
    }

    /// Of the good record at `at`: its place, its first change, and how many changes it says were synced.
    fn envelope(&self, at: usize) -> Option<(Range<usize>, u64, u64)> {
        let header = self.bytes.get(at..at + RECORD_HEADER_LEN)?;
        if u32_at(header, 8) != self.number {
            return None;
        }
        let end = at + RECORD_HEADER_LEN + usize::try_from(u32_at(header, 4)).ok()?;
        let checked = self.bytes.get(at + 4..end)?;
        if u32_at(header, 0) != crc32fast::hash(checked) {
            return None;
        }
        Some((at..end, u64_at(header, 12), u64_at(header, 24)))
    }

    /// As `rocksdb::write_ahead_log` does: what lies behind the place where reading stopped. A good record there proves damage, if it
    /// says that what was not read had been synced.
    fn tail(&self, from: usize, sequence: u64) -> Tail {
        let file = || "log".to_owned();
        let number = self.number.to_le_bytes();
        let numbers = self.bytes.get(from + 8..).unwrap_or(&[]);
        let good = (from..).zip(numbers.windows(4)).filter(|(_, found)| *found == number);
        let good = good.filter_map(|(at, _)| self.envelope(at).filter(|&(_, first, _)| first >= sequence));
        let (mut whole, mut first_whole) = (0, None);
        for (range, _, synced) in good {
            if synced >= sequence {
                return Tail::GoodAfterBad { file: file(), at: range.start as u64 };
            }
            whole += 1;
            first_whole = first_whole.or(Some(range.start));
        }
        let header = self.bytes.get(from..from + RECORD_HEADER_LEN);
        let begun = header.is_some_and(|header| header[8..12] == number && u64_at(header, 12) == sequence);
        match first_whole.filter(|_| !begun).or(begun.then_some(from)) {
            Some(at) => Tail::Torn(Torn { file: file(), at: at as u64, whole }),
            None => Tail::Clean,
        }
    }
}

fn encode(log: u32, sequence: u64, synced: u64, changes: &[Change]) -> Vec<u8> {
    let mut record = vec![0; 8];
    record.extend_from_slice(&log.to_le_bytes());
    record.extend_from_slice(&sequence.to_le_bytes());
    record.extend_from_slice(&len32(changes.len()));
    record.extend_from_slice(&synced.to_le_bytes());
    for change in changes {
        let (kind, family, parts): (u8, Family, [&[u8]; 2]) = match change {
            Change::Put { family, key, stored, .. } => (0, *family, [key, stored]),
            Change::Delete { family, key } => (1, *family, [key, &[]]),
            Change::DeleteRange { family, from, to } => (2, *family, [from, to]),
        };
        record.extend_from_slice(&[kind, family as u8]);
        for part in parts {
            record.extend_from_slice(&len32(part.len()));
            record.extend_from_slice(part);
        }
    }
    let body = len32(record.len() - RECORD_HEADER_LEN);
    record[4..8].copy_from_slice(&body);
    let crc = crc32fast::hash(&record[4..]).to_le_bytes();
    record[..4].copy_from_slice(&crc);
    record
}

/// The changes of a record whose checksum is right.
fn decode(mut body: &[u8]) -> Vec<Change> {
    let mut changes = Vec::new();
    while let [kind, family, rest @ ..] = body {
        let family = Family::ALL[usize::from(*family)];
        let (first, rest) = part(rest);
        let (second, rest) = part(rest);
        changes.push(match kind {
            0 => Change::Put { family, key: first.to_vec(), value: Vec::new(), stored: second.into() },
            1 => Change::Delete { family, key: first.to_vec() },
            _ => Change::DeleteRange { family, from: first.to_vec(), to: second.to_vec() },
        });
        body = rest;
    }
    changes
}

fn part(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (len, rest) = bytes.split_at(4);
    rest.split_at(usize::try_from(u32_at(len, 0)).expect("32 bits fit"))
}

fn len32(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("simulated batches are small").to_le_bytes()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
