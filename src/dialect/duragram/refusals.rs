//! REJECTs, at a bounded rate.

use duragram_proto::ClientId;
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
        self.reject(to, client, epoch, data.seq.0, code, retry_after_ms, work);
    }

    #[allow(clippy::too_many_arguments)] // the fields of a REJECT
    pub(super) fn reject<T: Transmit>(
        &mut self,
        to: &ReplyTo,
        client: ClientId,
        epoch: u32,
        refused: u64,
        code: RejectCode,
        retry_after_ms: u32,
        work: &mut Work<'_, T>,
    ) {
        if self.replier.may_refuse(to, client) {
            let reject = Reject { client, epoch, code, refused, retry_after_ms };
            self.replier.push(to, Kind::Reject, &Datagram::Reject(reject), work.replies);
        }
    }

    /// What admission has refused, and has counted among those that its source may hear of.
    pub(super) fn refuse_as_admitted<T: Transmit>(
        &mut self,
        to: &ReplyTo,
        client: ClientId,
        epoch: u32,
        refused: u64,
        code: RejectCode,
        work: &mut Work<'_, T>,
    ) {
        self.counts.refuse(code);
        let reject = Reject { client, epoch, code, refused, retry_after_ms: 0 };
        self.replier.push(to, Kind::Reject, &Datagram::Reject(reject), work.replies);
    }

    /// Whether a source may have one more session opened that nothing vouches for.
    pub(super) fn may_open_from(&self, to: &ReplyTo) -> bool {
        rate::source(to.peer.addr).is_none_or(|source| self.openings.allows(source, to.arrived_us))
    }
}
