//! What is wrong with a configuration, gathered while it is held against its bounds.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Problem;
use super::values::show_duration;

/// Collects the problems of a configuration, so that all are reported at once.
pub(super) struct Check {
    pub(super) problems: Vec<Problem>,
}

impl Check {
    pub(super) fn add(&mut self, key: &str, message: String) {
        self.problems.push(Problem { key: key.to_owned(), place: None, message });
    }

    pub(super) fn within(&mut self, key: &str, value: u64, range: RangeInclusive<u64>, unit: &str) {
        if !range.contains(&value) {
            self.add(key, format!("{value} is out of range: {} to {} {unit}", range.start(), range.end()));
        }
    }

    pub(super) fn lasts(&mut self, key: &str, value: Duration, range_ms: RangeInclusive<u64>) {
        let (shortest, longest) = (Duration::from_millis(*range_ms.start()), Duration::from_millis(*range_ms.end()));
        if value < shortest || value > longest {
            self.add(
                key,
                format!(
                    "{} is out of range: {} to {}",
                    show_duration(value),
                    show_duration(shortest),
                    show_duration(longest)
                ),
            );
        }
    }
}
