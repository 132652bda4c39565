//! Receivers and the committer.
