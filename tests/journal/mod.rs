//! What is on disk after kills, damage and refusals, seen from outside.

mod crashes;
mod dead_letters;
mod recovery;
