//! What an ask ends with, as callers see it.

use duragram_proto::client::Status;
use duragram_proto::{Epoch, Seq};

/// What became of a record that asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The session in which the record was acked.
    pub epoch: Epoch,
    /// The datagram that carried the record had this number in that session.
    pub seq: Seq,
    /// Whether it was processed, given up, or no answer will come.
    pub status: Status,
    /// The length of the answer's body in bytes.
    pub length: u32,
    /// The body, often empty; also where it is longer than fits in a datagram of this client, which `length` shows.
    pub body: Vec<u8>,
}
