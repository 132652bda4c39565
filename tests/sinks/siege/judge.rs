//! The oracle: what clients have in acks against what is in the target, by the names of the records.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::AddAssign;

use super::target::{Found, Kind};
use crate::faults::load::{Heard, payload};

/// The epoch of every client.
const EPOCH: u32 = 1;

/// A siege counts this before it is judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    /// How often something was struck.
    pub(super) strikes: u64,
    /// Records that clients have in acks.
    pub(super) acked: u64,
    /// Records in the target, each counted once.
    pub(super) found: u64,
    /// Records that were acked and are not there.
    pub(super) missing: u64,
    /// How often a record is there that was there before.
    pub(super) doubled: u64,
    /// Dead letters of the sink.
    pub(super) dead: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.strikes += more.strikes;
        self.acked += more.acked;
        self.found += more.found;
        self.missing += more.missing;
        self.doubled += more.doubled;
        self.dead += more.dead;
    }
}

impl Counts {
    /// What came since an earlier count.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            strikes: self.strikes - before.strikes,
            acked: self.acked - before.acked,
            found: self.found - before.found,
            missing: self.missing.saturating_sub(before.missing),
            doubled: self.doubled - before.doubled,
            dead: self.dead.saturating_sub(before.dead),
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { strikes, acked, found, missing, doubled, dead } = self;
        write!(f, "{strikes} | {acked} | {found} | {missing} | {doubled} | {dead}")
    }
}

/// Holds what was found against what clients have sent, all of which is acked by now.
///
/// # Errors
/// There is what nobody sent, or a name stands for two records or a record has two names, or the order is not that of the journal, or
/// the target does not hold what its sink promises: `dead` records may be missing, and those alone.
pub(super) fn judge(
    kind: Kind,
    found: &[Found],
    heard: &[Heard],
    bytes_max: usize,
    dead: u64,
) -> Result<Counts, String> {
    let mut records: HashMap<(u64, u64), (u64, u64)> = HashMap::new();
    let mut seen = HashSet::new();
    let mut counts = Counts { dead, acked: heard.iter().map(Heard::acked).sum(), ..Counts::default() };
    let mut last = None;
    for record in found {
        let Found { offset, index, client, epoch, seq, .. } = *record;
        let sent =
            usize::try_from(client).ok().and_then(|id| heard.get(id.checked_sub(1)?)).map_or(0, |heard| heard.sent);
        if epoch != EPOCH
            || index != 0
            || !(1..=sent).contains(&seq)
            || record.payload != payload(client, seq, bytes_max)
        {
            return Err(format!("nobody sent this: {record:?}"));
        }
        match records.insert((offset, index), (client, seq)) {
            None => {}
            Some(before) if before == (client, seq) => {
                counts.doubled += 1;
                continue;
            }
            Some(before) => return Err(format!("{offset}-{index} names {before:?} and {:?}", (client, seq))),
        }
        if !seen.insert((client, seq)) {
            return Err(format!("client {client}, seq {seq} has two names, one is {offset}-{index}"));
        }
        if kind.is_ordered() && last.is_some_and(|last| last > (offset, index)) {
            return Err(format!("{offset}-{index} came after {last:?}"));
        }
        last = Some((offset, index));
    }
    counts.found = seen.len() as u64;
    let all = (1u64..).zip(heard).flat_map(|(client, heard)| (1..=heard.sent).map(move |seq| (client, seq)));
    let missing: Vec<_> = all.filter(|record| !seen.contains(record)).collect();
    counts.missing = missing.len() as u64;
    if counts.missing > dead {
        let some = &missing[..missing.len().min(5)];
        return Err(format!("{} records are missing, {dead} are dead letters; the first are {some:?}", counts.missing));
    }
    if kind.is_exact() && counts.doubled > 0 {
        return Err(format!("{} records are there again", counts.doubled));
    }
    Ok(counts)
}
