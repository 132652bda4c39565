//! Where acks go, what may mix, and who gets the places in the table.

use super::*;

#[test]
fn acks_go_where_the_highest_counter_came_from() {
    let mut rig = Rig::sealed();
    assert_eq!(rig.exchange(&[(1, data(1, 5, 1, 0, 10))]), [(1, acked(1))]);
    // A recording from elsewhere: the answer goes to the client.
    assert_eq!(rig.exchange(&[(666, data(1, 5, 1, 0, 10))]), [(1, acked_again(1))]);
    assert_eq!(rig.exchange(&[(666, data(1, 5, 2, 1, 9))]), [(1, acked(2))]);
    // The client itself has moved.
    assert_eq!(rig.exchange(&[(2, ping(1, 5, 11))]), [(2, acked_again(2))]);
    // Within one commit the order does not matter.
    assert_eq!(rig.exchange(&[(3, data(1, 5, 3, 0, 20)), (666, data(1, 5, 3, 0, 12))]), [(3, acked(3))]);
    assert_eq!(rig.exchange(&[(666, data(1, 5, 3, 0, 12)), (4, data(1, 5, 4, 0, 21))]), [(4, acked(4))]);
    // A refusal goes where what it refuses came from, as does an answer about nothing.
    assert_eq!(rig.exchange(&[(9, data(1, 5, 200, 0, 8))]), [(9, Reply::Reject(RejectCode::StaleEpoch))]);
    assert_eq!(rig.exchange(&[(9, ping(1, 6, 8))]), [(9, acked_again(0))]);
    // Plain sessions: the latest datagram.
    let mut rig = Rig::new();
    let plain = |seq| encode(&Datagram::Data(plain_data(1, 5, seq, 0)));
    assert_eq!(rig.exchange(&[(1, plain(1)), (2, plain(1))]), [(2, acked(1))]);
}

#[test]
fn a_server_with_keys_refuses_what_is_plain() {
    let mut rig = Rig::sealed();
    let plain = plain_data(0x77, 5, 3, 0);
    let sent = rig.step(&[(peer(1), encode(&Datagram::Data(plain)))]);
    let Datagram::Reject(reject) = codec::decode(&sent[0].1).unwrap() else { panic!() };
    assert_eq!((reject.epoch, reject.refused, reject.client), (5, 3, ClientId(0x77)));
    assert_eq!(rig.tell(&crate::commit::tests::hello(0x77, 4)), SEALED_ONLY);
    let ping = encode(&Datagram::Ping(Ping { client: ClientId(0x77), epoch: Epoch::new(5).unwrap() }));
    assert_eq!(rig.tell(&ping), SEALED_ONLY);
    assert_eq!(rig.outcome("sealed_only"), 3);
    assert_eq!(rig.disk.end(), Offset(0));
}

#[test]
fn where_plain_traffic_is_allowed_a_client_with_a_key_still_speaks_sealed_alone() {
    let mut rig = Rig::sealed_on(MemoryDisk::default(), 10, true);
    let plain = |client, epoch, seq| encode(&Datagram::Data(plain_data(client, epoch, seq, 0)));
    assert_eq!(rig.tell(&plain(0x77, 5, 1)), Some(acked(1)));
    assert_eq!(rig.tell(&plain(1, 5, 1)), SEALED_ONLY);
    assert_eq!(rig.tell(&crate::commit::tests::hello(1, 4)), SEALED_ONLY);
    assert_eq!(rig.tell(&data(1, 5, 1, 0, 1)), Some(acked(1)));
}

/// A fleet key stands for every client, and who has never used it may be a plain one.
const FLEET: &str = "fleet 0101010101010101010101010101010101010101010101010101010101010101\n";

fn fleet_data(client: u64, epoch: u32, seq: u64) -> Vec<u8> {
    let fleet = duragram_proto::seal::FleetKey::new([1; 32]);
    let keys = fleet.client_key(ClientId(client)).keys(ClientId(client), Epoch::new(epoch));
    let mut buffer = [0; 200];
    let len = Datagram::Data(plain_data(client, epoch, seq, 0)).seal(&keys, seq, &mut buffer).unwrap();
    buffer[..len].to_vec()
}

#[test]
fn sealed_and_plain_sessions_of_one_client_never_mix_also_after_a_restart() {
    let fleet = |rig: Rig| {
        rig.admission_config.keys.replace(Keys::parse(FLEET.as_bytes()).unwrap());
        rig
    };
    let mut rig = fleet(Rig::sealed_on(MemoryDisk::default(), 10, true));
    let plain = |client, epoch, seq| encode(&Datagram::Data(plain_data(client, epoch, seq, 0)));
    let code = |rig: &mut Rig, client: u64, datagram: &[u8]| {
        let sent = rig.step(&[(peer(1), datagram.to_vec())]);
        let [(_, bytes)] = &sent[..] else { panic!("{sent:?}") };
        if bytes[1] & 8 == 0 {
            return reply(bytes);
        }
        let fleet = duragram_proto::seal::FleetKey::new([1; 32]);
        let epoch = codec::peek(bytes).unwrap().keys.epoch();
        let keys = fleet.client_key(ClientId(client)).keys(ClientId(client), epoch);
        reply(&encode(&codec::unseal_reply(&mut bytes.to_vec(), &keys).unwrap()))
    };
    assert_eq!(code(&mut rig, 0x50, &plain(0x50, 5, 1)), acked(1));
    // A plain session is open in this epoch; plain epochs do not count as opened.
    assert_eq!(code(&mut rig, 0x50, &fleet_data(0x50, 5, 2)), Reply::Reject(RejectCode::StaleEpoch));
    let mut rig = fleet(rig.sealed_restart(true));
    assert_eq!(code(&mut rig, 0x50, &fleet_data(0x50, 5, 2)), Reply::Reject(RejectCode::StaleEpoch));
    assert_eq!(code(&mut rig, 0x50, &plain(0x50, 5, 2)), acked(2));
    assert_eq!(code(&mut rig, 0x50, &fleet_data(0x50, 4, 1)), acked(1));
    for _ in 0..2 {
        // Now it has opened a sealed one.
        assert_eq!(code(&mut rig, 0x50, &plain(0x50, 5, 3)), Reply::Reject(RejectCode::SealedOnly));
        assert_eq!(code(&mut rig, 0x50, &plain(0x50, 4, 2)), Reply::Reject(RejectCode::SealedOnly));
        assert_eq!(code(&mut rig, 0x50, &crate::commit::tests::hello(0x50, 1)), Reply::Reject(RejectCode::SealedOnly));
        rig = fleet(rig.sealed_restart(true));
    }
    assert_eq!(rig.disk.end(), Offset(3));
}

#[test]
fn the_mode_of_a_session_survives_its_entries() {
    let mut rig = Rig::sealed();
    rig.tell(&data(1, 5, 1, 0, 1));
    rig.set_watermark(1);
    rig.clock.advance_s(2);
    rig.committer.commit(&rig.clock).unwrap();
    assert!(rig.disk.session(id(1, 5)).unwrap().sealed, "in the checkpoint");
    let mut rig = rig.sealed_restart(false);
    assert_eq!(rig.tell(&data(1, 5, 2, 0, 2)), Some(acked(2)));
}

#[test]
fn plain_traffic_cannot_take_the_sealed_clients_places() {
    let lasting = Config { session_ttl_s: 100_000, ..config() };
    let mut rig = Rig::with_keys(MemoryDisk::default(), lasting, 4, true);
    let plain = |client| encode(&Datagram::Data(plain_data(client, 5, 1, 0)));
    assert_eq!(rig.tell(&plain(0x71)), Some(acked(1)));
    assert_eq!(rig.tell(&plain(0x72)), Some(acked(1)));
    let busy = Some(Reply::Reject(RejectCode::Busy));
    assert_eq!(rig.tell(&plain(0x73)), busy, "half of the table is the sealed ones'");
    assert_eq!(rig.tell(&crate::commit::tests::hello(0x73, 1)), busy);
    assert_eq!(rig.tell(&data(1, 5, 1, 0, 1)), Some(acked(1)));
    assert_eq!(rig.tell(&data(2, 5, 1, 0, 1)), Some(acked(1)));
    assert_eq!(rig.tell(&data(3, 5, 1, 0, 1)), busy, "the plain ones are at work");
    rig.clock.advance_s(400);
    assert_eq!(rig.tell(&plain(0x72)), Some(acked_again(1)));
    rig.clock.advance_s(400);
    rig.committer.commit(&rig.clock).unwrap();
    assert_eq!(rig.tell(&data(3, 5, 1, 0, 2)), Some(acked(1)), "the idle one gives way");
    assert_eq!(rig.tell(&data(3, 6, 1, 0, 3)), busy, "the other was heard");
    // It is forgotten on the disk too.
    rig.clock.advance_s(2);
    rig.committer.commit(&rig.clock).unwrap();
    rig.clock.advance_s(2);
    rig.committer.commit(&rig.clock).unwrap();
    assert_eq!(rig.disk.session(id(0x71, 5)), None);
    assert!(rig.disk.session(id(0x72, 5)).is_some() && rig.disk.session(id(3, 5)).is_some());
}

#[test]
fn a_client_takes_no_more_places_than_its_share_and_keeps_its_newest_sessions() {
    let most = u32::try_from(limits::SEALED_SESSIONS_PER_CLIENT).unwrap();
    let mut rig = Rig::sealed_on(MemoryDisk::default(), 1000, false);
    assert_eq!(rig.tell(&data(2, 5, 1, 0, 1)), Some(acked(1)));
    for epoch in 1..=most {
        assert_eq!(rig.tell(&data(1, epoch, 1, 0, 1)), Some(acked(1)));
    }
    let busy = Some(Reply::Reject(RejectCode::Busy));
    assert_eq!(rig.tell(&data(1, most + 1, 1, 0, 1)), busy, "until a checkpoint holds the oldest");
    rig.clock.advance_s(2);
    rig.committer.commit(&rig.clock).unwrap();
    for epoch in most + 1..=most + 3 {
        assert_eq!(rig.tell(&data(1, epoch, 1, 0, 2)), Some(acked(1)));
    }
    assert_eq!(rig.committer.status().sessions, most as usize + 1);
    assert_eq!(rig.tell(&data(1, 3, 1, 0, 3)), STALE, "nothing of it is journaled again");
    assert_eq!(rig.tell(&data(1, 4, 1, 0, 3)), Some(acked_again(1)));
    assert_eq!(rig.tell(&data(2, 5, 1, 0, 3)), Some(acked_again(1)));
    rig.clock.advance_s(2);
    rig.committer.commit(&rig.clock).unwrap();
    rig.clock.advance_s(2);
    rig.committer.commit(&rig.clock).unwrap();
    assert_eq!(rig.disk.session(id(1, 3)), None, "it is forgotten on the disk too");
    assert!(rig.disk.session(id(1, 4)).is_some());
    let mut rig = rig.sealed_restart(false);
    assert_eq!(rig.tell(&data(1, 3, 1, 0, 4)), STALE);
    assert_eq!(rig.tell(&data(1, 4, 1, 0, 4)), Some(acked_again(1)));
}
