//! How many dead letters each sink has: known without reading them, since one may look for it every few seconds.

use std::collections::BTreeMap;

use crate::model::{DeadLetterId, SinkId};

/// The number of letters that are kept, by sink.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LetterCounts(BTreeMap<SinkId, u64>);

impl LetterCounts {
    /// Notes that one more dead letter is kept.
    pub fn add(&mut self, id: DeadLetterId) {
        *self.0.entry(id.sink).or_default() += 1;
    }

    /// Notes that one dead letter is gone; its sink is forgotten with its last.
    pub(in crate::journal) fn remove(&mut self, id: DeadLetterId) {
        if let Some(count) = self.0.get_mut(&id.sink) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(&id.sink);
            }
        }
    }

    /// Counts those that are kept of one sink: 0 of an unknown one.
    pub fn of(&self, sink: SinkId) -> u64 {
        self.0.get(&sink).copied().unwrap_or(0)
    }

    /// Returns how many are kept of all sinks together.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Offset;

    #[test]
    fn letters_are_counted_by_sink_and_all_together() {
        let id = |offset, sink| DeadLetterId { offset: Offset(offset), index: 0, sink: SinkId(sink) };
        let mut counts = LetterCounts::default();
        [id(1, 0), id(1, 7), id(2, 7)].into_iter().for_each(|id| counts.add(id));
        assert_eq!((counts.of(SinkId(7)), counts.of(SinkId(8)), counts.total()), (2, 0, 3));
        counts.remove(id(1, 7));
        counts.remove(id(1, 0));
        counts.remove(id(1, 8));
        assert_eq!((counts.of(SinkId(7)), counts.of(SinkId(0)), counts.total()), (1, 0, 1));
    }
}
