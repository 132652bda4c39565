//! Asks: messages whose senders want an answer, what became of them, and TAKEs that wait for it (PROTOCOL.md#ask).
//!
//! An ask is open from the commit of its entry on, then answered, then gone, and never goes back. What is told of it rests on
//! a commit that has landed: an ANSWER that says more than GONE is made from a receipt.
//!
//! | part | what it does |
//! |---|---|
//! | [`table`] | the asks, by client; how many there may be; what a checkpoint takes of them |
//! | [`held`] | TAKEs that are held: how many, and until when |
//! | `take` | TAKE, and when its ANSWER is due |
//! | `answered` | what processing says of asks, and how they end |
//! | `answer` | the making of ANSWER |
//! | `operator` | what an operator asks about asks, and has forgotten |
//!
//! What ends an ask is written with the next commit that is written anyway, as a record without an answer: so whoever has an ask
//! accepted has all of its client's that were forgotten before forgotten after a crash too, and finds the room that it found.

mod answer;
mod answered;
mod held;
mod operator;
mod table;
mod take;
#[cfg(test)]
mod tests;

pub(super) use answer::Due;
pub(super) use held::HeldTakes;
pub(super) use table::AskTable;

/// What of the configuration asks need.
#[derive(Clone, Copy, Debug)]
pub struct AskConfig {
    /// The most asks that are remembered, of all clients. 0: nobody may ask.
    pub asks_max: usize,
    /// The longest body of an answer, in bytes.
    pub answer_bytes_max: usize,
    /// An answer that nobody takes is forgotten after so many seconds of service.
    pub answer_ttl_s: u64,
}

impl Default for AskConfig {
    fn default() -> Self {
        Self { asks_max: 65_536, answer_bytes_max: 1_024, answer_ttl_s: 86_400 }
    }
}
