//! What an operator sees of asks, and tells the server about them. Of an answer no more than its length: the body is its client's.

use duragram_proto::ClientId;

use super::{AskId, Offset};

/// How many asks there are, and how many there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AskTotals {
    /// Those that are not answered.
    pub open: usize,
    /// Those whose answers wait to be had.
    pub answered: usize,
    /// TAKEs that are held until their answer is there.
    pub held_takes: usize,
    /// Those of both kinds that came plain, not sealed.
    pub plain: usize,
    /// The most that are remembered. 0: nobody may ask.
    pub asks_max: usize,
    /// The most plain ones among them.
    pub plain_max: usize,
}

impl AskTotals {
    /// Whether what is remembered comes to 90 % of what may be: soon what asks is refused.
    pub fn are_near(self) -> bool {
        is_near(self.open + self.answered, self.asks_max)
    }

    /// Whether the plain ones come to 90 % of what these may be.
    pub fn plain_are_near(self) -> bool {
        is_near(self.plain, self.plain_max)
    }
}

fn is_near(len: usize, max: usize) -> bool {
    max > 0 && len >= max - max / 10
}

/// What an operator wants of the asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AsksRequest {
    /// To see how many there are, which open one is the oldest, and whose they are.
    Overview,
    /// To see those of one client.
    Of(ClientId),
    /// To have those of one client forgotten, which is gone for good. Who waits for one hears that it is gone.
    Forget(ClientId),
}

/// What the operator is told. Nothing in it rests on what is not durable.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AsksReport {
    /// How many there are, those that were forgotten by this request not counted.
    pub totals: AskTotals,
    /// The open ask whose entry has the lowest offset; in an overview alone.
    pub oldest: Option<AskView>,
    /// The clients with the most asks, those first; in an overview alone, and as many as an operator is shown at most.
    pub clients: Vec<ClientAsks>,
    /// How many clients have asks; in an overview alone.
    pub clients_len: usize,
    /// Those of the one client, in the order of epochs and seqs: as they are, or as they were before they were forgotten.
    pub asks: Vec<AskView>,
}

/// What became of one ask so far; never its body, which is its client's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AskView {
    /// The session and the seq that name it.
    pub id: AskId,
    /// The offset of its entry.
    pub offset: Offset,
    /// Whether it is answered, and how.
    pub state: AskState,
    /// Seconds since its entry was acked; `None` where that was before the start, or is not yet.
    pub asked_s: Option<u64>,
    /// Seconds of service since it was answered; `None` while it is open.
    pub answered_s: Option<u64>,
}

/// What became of an ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AskState {
    /// On disk, and not answered yet.
    Open,
    /// It is processed, and its answer has a body of so many bytes.
    Done(usize),
    /// The message was given up: FAILED.
    Failed,
}

/// How many asks a client has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientAsks {
    /// The client whose asks they are.
    pub client: ClientId,
    /// Those that are not answered.
    pub open: usize,
    /// Those whose answers wait to be had.
    pub answered: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_are_near_their_bound_from_nine_tenths_on_and_never_where_nobody_may_ask() {
        let totals = |open, answered, asks_max| AskTotals { open, answered, asks_max, ..AskTotals::default() };
        for (open, answered, asks_max, near) in [
            (0, 0, 0, false),
            (8, 0, 10, false),
            (8, 1, 10, true),
            (0, 10, 10, true),
            (0, 0, 1, false),
            (1, 0, 1, true),
        ] {
            assert_eq!(totals(open, answered, asks_max).are_near(), near, "{open} + {answered} of {asks_max}");
        }
        let plain = |plain| AskTotals { plain, plain_max: 5, asks_max: 10, ..AskTotals::default() };
        assert!(!plain(4).plain_are_near() && plain(5).plain_are_near());
    }
}
