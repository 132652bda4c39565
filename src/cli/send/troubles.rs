//! What went wrong with records, as far as it is reported one by one.

use super::complain;

/// Records with errors that are named one by one.
const ERRORS_SHOWN: usize = 10;

/// What went wrong, in the order in which it was found; few are kept.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    shown: Vec<String>,
    more: u64,
}

impl Troubles {
    pub(super) fn add(&mut self, trouble: String) {
        if self.shown.len() < ERRORS_SHOWN {
            self.shown.push(trouble);
        } else {
            self.more += 1;
        }
    }

    pub(super) fn append(&mut self, other: Self) {
        other.shown.into_iter().for_each(|trouble| self.add(trouble));
        self.more += other.more;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    pub(super) fn tell(&self) {
        self.shown.iter().for_each(|trouble| complain(trouble));
        if self.more > 0 {
            complain(&format!("and {} more", self.more));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_troubles_are_kept_and_the_rest_are_counted() {
        let mut troubles = Troubles::default();
        (0..ERRORS_SHOWN + 3).for_each(|n| troubles.add(n.to_string()));
        let mut all = Troubles::default();
        all.add("first".into());
        all.append(troubles);
        assert_eq!((all.shown.len(), all.more), (ERRORS_SHOWN, 4));
        assert_eq!(all.shown[1], "0");
    }
}
