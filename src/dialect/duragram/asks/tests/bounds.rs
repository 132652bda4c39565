//! Who finds no room, and what all of it may take of memory.

use std::net::SocketAddr;

use super::*;
use crate::limits;
use crate::model::{AskId, Peer};

fn in_epoch(client: u64, epoch: u32, seq: u64) -> AskId {
    AskId { session: session(client, epoch), ..id(client, seq) }
}

#[test]
fn without_room_what_asks_is_refused_and_opens_no_session() {
    let mut rig = Rig::with_room_for(1);
    rig.tell(&ask(1, 1));
    assert_eq!(rig.tell(&ask(2, 1)), [BUSY]);
    assert_eq!((rig.dialect.sessions(), rig.metrics.asks_refused.get()), (1, 1));
    assert_eq!(rig.tell(&data(2, 1)), [acked(1)], "what does not ask finds room");
    rig.tell(&take(1, 2, 0));
    assert_eq!(rig.tell(&ask(2, 2)), [acked(2)]);
}

#[test]
fn a_refused_ask_moves_the_floor_and_is_taken_when_there_is_room() {
    let mut rig = Rig::with_room_for(1);
    rig.tell(&ask(1, 1));
    let skipping = encode(&Datagram::Data(Data {
        skip: true,
        options: duragram_proto::codec::OPTION_ASK,
        ..Data::whole(id(1, 5).session.client, id(1, 5).session.epoch, id(1, 5).seq, 0, b"")
    }));
    assert_eq!(rig.tell(&skipping), [BUSY]);
    assert_eq!(rig.tell(&ping(1)), [acked(4)]);
    let mut rig = rig.crash();
    assert_eq!(rig.tell(&ping(1)), [acked(4)], "after a crash too");
    assert_eq!(rig.tell(&ask(1, 1)), [acked(4)], "what is journaled is acked all the same");
    rig.tell(&take(1, 5, 0));
    assert_eq!(rig.tell(&skipping), [acked(5)]);
}

#[test]
fn beyond_the_window_is_said_before_that_there_is_no_room() {
    let mut rig = Rig::with_room_for(1);
    rig.tell(&ask(1, 1));
    assert_eq!(rig.tell(&ask_at(id(1, 1_100), 1_080)), [Said::Reject(RejectCode::BeyondWindow)]);
    assert_eq!(rig.tell(&ask(1, 5_000)), [Said::Reject(RejectCode::StaleEpoch)]);
}

#[test]
fn a_client_has_sixty_four_asks_and_another_has_its_own() {
    let mut rig = Rig::new();
    for seq in 1..=64 {
        assert_eq!(rig.tell(&ask(1, seq)), [acked(seq)]);
    }
    assert_eq!(rig.tell(&ask(1, 65)), [BUSY]);
    assert_eq!(rig.tell(&ask(2, 1)), [acked(1)]);
    assert_eq!(rig.tell(&take(1, 2, 0)), [Said::Pending(2, 1_000)]);
    assert_eq!(rig.tell(&ask(1, 65)), [acked(65)]);
}

#[test]
fn a_newer_epoch_takes_the_room_of_the_oldest_and_an_older_one_takes_none() {
    let mut rig = Rig::new();
    for n in 1..=32 {
        rig.tell(&ask_at(in_epoch(1, 2, n), 0));
        rig.tell(&ask_at(in_epoch(1, 4, n), 0));
    }
    assert_eq!(rig.tell(&ask_at(in_epoch(1, 1, 1), 0)), [BUSY], "nothing is older");
    for n in 1..=2 {
        assert_eq!(rig.tell(&ask_at(in_epoch(1, 5, n), 0)), [acked(n)]);
        assert_eq!(rig.tell(&encode(&take_with(in_epoch(1, 2, n), 0, 0, 0))), [Said::Gone(n)]);
    }
    assert_eq!(rig.tell(&encode(&take_with(in_epoch(1, 2, 3), 0, 0, 0))), [Said::Pending(3, 1_000)]);
    assert_eq!(rig.tell(&encode(&take_with(in_epoch(1, 4, 1), 0, 0, 0))), [Said::Pending(1, 1_000)]);
    assert_eq!((rig.dialect.asks.len(), rig.metrics.asks_expired.get()), (64, 2));
}

#[test]
fn a_newer_epoch_takes_its_own_clients_room_when_there_is_none_for_anybody() {
    let mut rig = Rig::with_room_for(2);
    rig.tell(&ask_at(in_epoch(1, 1, 1), 0));
    rig.tell(&ask_at(in_epoch(2, 1, 1), 0));
    assert_eq!(rig.tell(&ask_at(in_epoch(3, 9, 1), 0)), [BUSY]);
    assert_eq!(rig.tell(&ask_at(in_epoch(2, 2, 1), 0)), [acked(1)]);
    assert_eq!(rig.tell(&encode(&take_with(in_epoch(1, 1, 1), 0, 0, 0))), [Said::Pending(1, 1_000)]);
}

#[test]
fn gone_in_unknown_sessions_is_said_as_often_as_a_source_may_hear_a_refusal() {
    let mut rig = Rig::new();
    let peer = Peer::new(SocketAddr::from(([10, 0, 0, 1], 5)), 0);
    for client in 0..5_000 {
        rig.send_from(peer, &take(client, 1, 0));
    }
    assert_eq!(rig.said().len(), limits::REFUSALS_BURST.get() as usize);
}

/// The flood that costs the most: each client asks once, and each ask waits with a TAKE that is held.
#[test]
fn asks_of_many_clients_take_no_more_memory_than_the_documented_sum_says() {
    let most = AskConfig::default().asks_max;
    let mut rig = Rig::new();
    for client in 0..most as u64 + 1_000 {
        rig.send(1, &ask(client, 1));
        rig.send(1, &waiting(client, 1, 0));
        if client % 1_000 == 999 {
            rig.commit();
        }
    }
    rig.commit();
    let busy = rig.said().into_iter().filter(|said| *said == BUSY).count();
    assert_eq!((rig.dialect.asks.len(), rig.dialect.held.len(), busy), (most, most, 1_000));
    assert!(rig.dialect.wants_checkpoint());
    let each = rig.dialect.asks.bytes() / most;
    assert!(each <= limits::ASK_BYTES, "{each} bytes");
    rig.dialect.begin_checkpoint(rig.now());
    assert!(!rig.dialect.wants_checkpoint());
    let each = rig.dialect.asks.bytes() / most;
    assert!(each <= limits::ASK_BYTES, "{each} bytes while a checkpoint is written");
}
