//! What an operator is shown of the asks. Only an overview looks at every client, and only when it is asked for: nothing is kept
//! up to date for it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use duragram_proto::ClientId;

use super::{Ask, AskTable, Gone};
use crate::limits;
use crate::model::{AskId, AskState, AskTotals, AskView, ClientAsks, SessionId};

/// The time from which ages are told.
#[derive(Clone, Copy, Debug)]
pub(in crate::dialect::duragram) struct SeenAt {
    /// Of the monotonic clock, in microseconds.
    pub(in crate::dialect::duragram) mono_us: u64,
    /// How long the server was in service, in seconds.
    pub(in crate::dialect::duragram) service_s: u64,
}

impl AskTable {
    /// How many there are; how many TAKEs are held for them, this table does not know.
    pub(in crate::dialect::duragram) fn totals(&self, held_takes: usize) -> AskTotals {
        let open = self.open.len();
        AskTotals {
            open,
            answered: self.len - open,
            held_takes,
            plain: self.plain,
            asks_max: self.asks_max,
            plain_max: self.plain_max,
        }
    }

    /// How many clients have asks.
    pub(in crate::dialect::duragram) fn clients_len(&self) -> usize {
        self.clients.len()
    }

    /// The open one with the lowest offset.
    pub(in crate::dialect::duragram) fn oldest(&self, at: SeenAt) -> Option<AskView> {
        let (_, id) = self.open.first_key_value()?;
        self.of(id.session.client, at).into_iter().find(|view| view.id == *id)
    }

    /// The clients with the most asks, those first; of those with equally many the one with the lowest id.
    pub(in crate::dialect::duragram) fn largest(&self) -> Vec<ClientAsks> {
        let mut largest = BinaryHeap::with_capacity(limits::ASK_CLIENTS_SHOWN + 1);
        for (&client, asks) in &self.clients {
            // The least of those that are kept is on top.
            let place = Reverse((asks.len(), Reverse(client)));
            if largest.len() < limits::ASK_CLIENTS_SHOWN {
                largest.push(place);
            } else if largest.peek().is_some_and(|least| place < *least) {
                largest.pop();
                largest.push(place);
            }
        }
        let count = |Reverse((len, Reverse(client))): Reverse<(usize, Reverse<ClientId>)>| {
            let asks = self.clients.get(&client).map_or(&[][..], Vec::as_slice);
            let open = asks.iter().filter(|ask| ask.answer.is_none()).count();
            ClientAsks { client, open, answered: len - open }
        };
        largest.into_sorted_vec().into_iter().map(count).collect()
    }

    /// Those of a client, in the order of epochs and seqs.
    pub(in crate::dialect::duragram) fn of(&self, client: ClientId, at: SeenAt) -> Vec<AskView> {
        let asks = self.clients.get(&client).map_or(&[][..], Vec::as_slice);
        asks.iter().map(|ask| ask.view(client, at)).collect()
    }

    /// Forgets all of a client, over all its epochs.
    pub(in crate::dialect::duragram) fn forget_of(&mut self, client: ClientId) -> Vec<Gone> {
        let asks = self.clients.remove(&client).unwrap_or_default();
        asks.into_iter().map(|ask| self.forgotten(ask.id(client), ask)).collect()
    }
}

impl Ask {
    fn id(&self, client: ClientId) -> AskId {
        AskId { session: SessionId { client, epoch: self.epoch }, seq: self.seq }
    }

    fn view(&self, client: ClientId, at: SeenAt) -> AskView {
        let state = match &self.answer {
            None => AskState::Open,
            Some(answer) if answer.failed => AskState::Failed,
            Some(answer) => AskState::Done(answer.body.len()),
        };
        let since_acked_s = || at.mono_us.saturating_sub(self.acked_us) / 1_000_000;
        AskView {
            id: self.id(client),
            offset: self.offset,
            state,
            asked_s: (self.acked_us > 0).then(since_acked_s),
            answered_s: self.answer.as_ref().map(|answer| at.service_s.saturating_sub(answer.answered_s)),
        }
    }
}
