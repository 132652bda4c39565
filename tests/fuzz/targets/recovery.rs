//! A data directory that the bytes choose, hurt as they choose, and opened: the damages and oracles are those of
//! `tests/damage`.

use crate::damage::chosen_round;

pub(crate) fn recovery(input: &[u8]) {
    chosen_round(input);
}
