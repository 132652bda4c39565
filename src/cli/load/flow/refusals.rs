//! What a flow does about a REJECT, by its code.

use duragram_proto::Epoch;
use duragram_proto::codec::{Reject, RejectCode};

use super::{FRUITLESS_EPOCHS_MAX, Flow, NEVER, Refused, Slot, State, Tally};

impl Flow {
    /// Handles a REJECT of this client. Returns whether it concerns something in flight.
    pub(in super::super) fn handle_reject(
        &mut self,
        now_ns: u64,
        reject: &Reject,
        tally: &mut Tally,
    ) -> Result<bool, Refused> {
        if reject.epoch != self.epoch.value() {
            return Ok(false);
        }
        let seq = reject.refused;
        let concerns_data = (self.base..self.next).contains(&seq) && self.slot(seq).state != State::Acked;
        let concerns_ping = seq == 0 && self.pinged;
        if !concerns_data && !concerns_ping {
            return Ok(false);
        }
        self.silent = false;
        if concerns_data && self.slot(seq).state == State::InFlight {
            self.leave(self.slot(seq).transmission);
            self.mark_lost(seq);
        }
        match reject.code {
            RejectCode::BeyondWindow => {
                if concerns_data {
                    self.limit = self.limit.min(seq - 1);
                }
            }
            RejectCode::Busy | RejectCode::Storage | RejectCode::Unknown(_) => {
                if reject.code == RejectCode::Busy {
                    self.asks.iter_mut().for_each(|asks| asks.was_refused());
                }
                self.pause(now_ns, reject.retry_after_ms);
            }
            RejectCode::StaleEpoch => {
                self.fruitless_epochs += 1;
                let epoch = self.epoch.next().filter(|_| self.fruitless_epochs <= FRUITLESS_EPOCHS_MAX);
                self.enter_epoch(epoch.ok_or(Refused(reject.code))?);
                tally.gone += self.asks.as_mut().map_or(0, |asks| asks.renew());
            }
            RejectCode::Version
            | RejectCode::Unsupported
            | RejectCode::TooLarge
            | RejectCode::Channel
            | RejectCode::SealedOnly => return Err(Refused(reject.code)),
        }
        self.arm(now_ns);
        Ok(true)
    }

    /// What is unacked is sent again in another session, with seqs from 1 on and without holes.
    fn enter_epoch(&mut self, epoch: Epoch) {
        let unacked = (self.base..self.next).map(|seq| *self.slot(seq)).filter(|slot| slot.state != State::Acked);
        let unacked: Vec<Slot> = unacked.collect();
        self.epoch = epoch;
        (self.base, self.next) = (1, 1 + unacked.len() as u64);
        (self.floor, self.limit) = (0, NEVER);
        (self.in_flight, self.newest_arrived, self.told, self.timed) = (0, 0, 0, None);
        (self.expired, self.probe, self.allowance) = (None, false, None);
        (self.ping_due, self.pinged) = (false, false);
        self.lost.clear();
        for (seq, slot) in (1..).zip(unacked) {
            *self.slot_mut(seq) = Slot { due_ns: slot.due_ns, state: State::Renumbered, ..Slot::default() };
            self.lost.push_back(seq);
        }
    }
}
