//! REJECTs, at a bounded rate.

use duragram_proto::codec::{Datagram, Reject, RejectCode};

use crate::dialect::Work;
use crate::dialect::duragram::replier::{Kind, ReplyTo};
use crate::dialect::duragram::{DataRequest, Duragram};
use crate::net::Transmit;
use crate::rate;

impl Duragram {
    pub(super) fn refuse<T: Transmit>(
        &mut self,
        to: &ReplyTo,
        data: &DataRequest,
        code: RejectCode,
        retry_after_ms: u32,
        work: &mut Work<'_, T>,
    ) {
        let (client, epoch) = (data.session.client, data.session.epoch.value());
        self.reject(to, Reject { client, epoch, code, refused: data.seq.0, retry_after_ms }, work);
    }

    /// Answers with a REJECT, if the source may hear of one more.
    pub(super) fn reject<T: Transmit>(&mut self, to: &ReplyTo, reject: Reject, work: &mut Work<'_, T>) {
        if self.replier.may_refuse(to, reject.client) {
            self.reject_counted(to, reject, work);
        }
    }

    /// The same where the REJECT is counted already among those that the source may hear of, as admission does.
    pub(super) fn reject_counted<T: Transmit>(&mut self, to: &ReplyTo, reject: Reject, work: &mut Work<'_, T>) {
        self.replier.push(to, Kind::Reject, &Datagram::Reject(reject), work.replies);
    }

    /// Whether a source may have one more session opened that nothing vouches for.
    pub(super) fn may_open_from(&self, to: &ReplyTo) -> bool {
        rate::source(to.peer.addr).is_none_or(|source| self.openings.allows(source, to.arrived_us))
    }
}
