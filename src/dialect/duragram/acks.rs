//! Making acks. Whatever says that something is durable takes the receipt of the commit that it rests on.

use duragram_proto::Seq;
use duragram_proto::codec::{
    ACK_LEN_MAX, Ack, Datagram, Durability, MIN_LEN, SEALED_ACK_LEN_MAX, SEALED_MIN_LEN, Welcome,
};

use crate::dialect::duragram::replier::{Kind, Replier, ReplyTo};
use crate::dialect::duragram::session::Session;
use crate::journal::Durable;
use crate::model::{DurabilityLevel, SessionId};
use crate::net::{ReplyQueue, Transmit};

/// What a session's ack says, as it was when the block that it rests on was closed: later datagrams may change the session
/// while that block is on its way to the disk.
#[derive(Clone, Debug)]
pub(super) struct AckState {
    id: SessionId,
    floor: Seq,
    /// Bytes of the bitmap in [`Bitmaps`].
    bitmap: (u32, u8),
    to: ReplyTo,
    /// Nothing of it is in the block.
    duplicate: bool,
    /// Floor and bitmap show all that was journaled of the session then.
    complete: bool,
    /// An answer of it waits to be taken.
    ready: bool,
}

/// The bitmaps of many acks.
pub(super) type Bitmaps = Vec<u8>;

impl AckState {
    /// What the ack of a session would say now.
    pub(super) fn of(session: &Session, to: ReplyTo, duplicate: bool, bitmaps: &mut Bitmaps) -> Self {
        let start = bitmaps.len();
        // PROTOCOL.md#no-amplification: the bitmap is cut so that the reply is no longer than its request.
        let (least, most) = match to.keys {
            None => (MIN_LEN, ACK_LEN_MAX),
            Some(_) => (SEALED_MIN_LEN, SEALED_ACK_LEN_MAX),
        };
        let room = to.len.min(most).saturating_sub(least) / 8 * 8;
        let mut len = 0;
        if room > 0 && session.has_gaps() {
            bitmaps.resize(start + room, 0);
            len = session.write_bitmap(&mut bitmaps[start..]);
            bitmaps.truncate(start + len);
        }
        let complete = session.is_told_by(len);
        let bitmap = (u32::try_from(start).expect("bounded by a commit"), u8::try_from(len).expect("at most 128"));
        Self { id: session.id(), floor: session.floor(), bitmap, to, duplicate, complete, ready: session.ready > 0 }
    }
}

/// Adds a session's ack to the replies. `receipt` stands for everything that `state` counts as journaled.
pub(super) fn ack<T: Transmit>(
    receipt: &Durable,
    state: &AckState,
    bitmaps: &Bitmaps,
    credit: u16,
    now_us: u64,
    replier: &mut Replier,
    replies: &mut ReplyQueue<T>,
) {
    let AckState { id, floor, bitmap: (start, len), ref to, duplicate, complete, ready } = *state;
    let start = start as usize;
    let ack = Ack {
        client: id.client,
        epoch: id.epoch,
        floor,
        credit,
        durability: on_wire(receipt.level()),
        duplicate,
        complete,
        ready,
        delay_us: u32::try_from(now_us.saturating_sub(to.arrived_us)).unwrap_or(u32::MAX),
        bitmap: &bitmaps[start..start + usize::from(len)],
    };
    replier.push(to, Kind::Ack, &Datagram::Ack(ack), replies);
}

/// Adds the ack of a session that the server does not know: nothing is accounted for (PROTOCOL.md#ping).
pub(super) fn ack_of_nothing<T: Transmit>(
    level: DurabilityLevel,
    id: SessionId,
    to: &ReplyTo,
    credit: u16,
    replier: &mut Replier,
    replies: &mut ReplyQueue<T>,
) {
    let ack = Ack {
        client: id.client,
        epoch: id.epoch,
        floor: Seq::ZERO,
        credit,
        durability: on_wire(level),
        duplicate: true,
        complete: true,
        ready: false,
        delay_us: 0,
        bitmap: &[],
    };
    replier.push(to, Kind::Ack, &Datagram::Ack(ack), replies);
}

/// Adds a WELCOME: the epoch is on disk, as opened or as given.
pub(super) fn welcome<T: Transmit>(
    receipt: &Durable,
    id: SessionId,
    nonce: u64,
    to: &ReplyTo,
    credit: u16,
    replier: &mut Replier,
    replies: &mut ReplyQueue<T>,
) {
    let _proof = receipt.end();
    let welcome = Welcome { client: id.client, epoch: id.epoch, credit, nonce };
    replier.push(to, Kind::Welcome, &Datagram::Welcome(welcome), replies);
}

/// What acks call a receipt's level.
fn on_wire(level: DurabilityLevel) -> Durability {
    match level {
        DurabilityLevel::Synced => Durability::Synced,
        DurabilityLevel::Replicated => Durability::Replicated,
    }
}
