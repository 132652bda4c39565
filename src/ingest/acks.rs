//! Making acks. Whatever says that something is durable takes the receipt of the commit that it rests on.

use duragram_proto::Seq;
use duragram_proto::codec::{ACK_LEN_MAX, Ack, BITMAP_LEN_MAX, Datagram, Durability, MIN_LEN, Welcome};

use crate::journal::Durable;
use crate::net::{Outbox, Peer};
use crate::session::Session;
use crate::types::SessionId;

/// Where an ack goes, and what it must fit.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplyTo {
    pub(super) peer: Peer,
    /// Length of the datagram that is answered, in bytes.
    pub(super) len: usize,
    /// When that arrived, in monotonic microseconds.
    pub(super) arrived_us: u64,
}

/// Adds a session's ack to the outbox.
///
/// `receipt` stands for everything that the session counts as journaled: the committer calls this for sessions that
/// the block being built has touched only with that block's receipt, and for others with an earlier one.
pub(super) fn ack(
    receipt: &Durable,
    session: &Session,
    to: ReplyTo,
    duplicate: bool,
    credit: u16,
    now_us: u64,
    outbox: &mut Outbox,
) {
    let _proof = receipt.end();
    let mut bitmap = [0; BITMAP_LEN_MAX];
    // PROTOCOL.md#no-amplification: the bitmap is cut so that the reply is no longer than its request.
    let room = to.len.min(ACK_LEN_MAX).saturating_sub(MIN_LEN) / 8 * 8;
    let len = session.write_bitmap(&mut bitmap[..room]);
    let ack = Ack {
        client: session.id().client,
        epoch: session.id().epoch,
        floor: session.floor(),
        credit,
        durability: Durability::Synced,
        duplicate,
        delay_us: u32::try_from(now_us.saturating_sub(to.arrived_us)).unwrap_or(u32::MAX),
        bitmap: &bitmap[..len],
    };
    outbox.push(to.peer, to.len, &Datagram::Ack(ack));
}

/// Adds the ack of a session that the server does not know: nothing is accounted for (PROTOCOL.md#ping).
pub(super) fn ack_of_nothing(id: SessionId, to: ReplyTo, credit: u16, outbox: &mut Outbox) {
    let ack = Ack {
        client: id.client,
        epoch: id.epoch,
        floor: Seq::ZERO,
        credit,
        durability: Durability::Synced,
        duplicate: true,
        delay_us: 0,
        bitmap: &[],
    };
    outbox.push(to.peer, to.len, &Datagram::Ack(ack));
}

/// Adds a WELCOME: the session's epoch is on disk.
pub(super) fn welcome(receipt: &Durable, id: SessionId, nonce: u64, to: ReplyTo, credit: u16, outbox: &mut Outbox) {
    let _proof = receipt.end();
    let welcome = Welcome { client: id.client, epoch: id.epoch, credit, nonce };
    outbox.push(to.peer, to.len, &Datagram::Welcome(welcome));
}
