//! Who is let in while much else is forged, and who is told that it is refused.

use std::net::SocketAddr;

use duragram_proto::codec::{Data, Datagram, Ping, RejectCode};
use duragram_proto::seal::{ClientKey, FleetKey};
use duragram_proto::{ClientId, Epoch, Seq};

use super::*;
use crate::keys::{KeyRing, Keys};
use crate::limits;
use crate::model::{Now, Peer, SessionId};

const SESSIONS: u64 = 50_000;

fn ring() -> KeyRing {
    KeyRing::of(keys(""))
}

fn keys(more: &str) -> Keys {
    Keys::parse(format!("fleet {}\n{more}", "07".repeat(32)).as_bytes()).unwrap()
}

fn key(client: u64) -> ClientKey {
    FleetKey::new([7; 32]).client_key(ClientId(client))
}

fn session(client: u64) -> SessionId {
    SessionId { client: ClientId(client), epoch: Epoch::new(5).unwrap() }
}

/// A client's PING, sealed with `key`.
fn ping(id: SessionId, key: &ClientKey, counter: u64) -> Vec<u8> {
    let mut bytes = vec![0; 100];
    let ping = Datagram::Ping(Ping { client: id.client, epoch: id.epoch });
    let len = ping.seal(&key.keys(id.client, Some(id.epoch)), counter, &mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

struct Door {
    gate: Gate,
    now: Now,
    peer: Peer,
}

impl Door {
    fn new(ring: KeyRing, sessions_max: usize) -> Self {
        let admission = Admission { keys: ring, allow_plain: false, sessions_max, ..Admission::plain(1472) };
        let peer = Peer::new(SocketAddr::from(([10, 0, 0, 1], 1)), 0);
        Self { gate: Gate::new(admission), now: Now { mono_us: 1, unix_us: 1 }, peer }
    }

    fn lets_in(&mut self, datagram: &[u8]) -> bool {
        !matches!(self.answers(datagram), None | Some(ItemKind::Refused { .. }))
    }

    fn answers(&mut self, datagram: &[u8]) -> Option<ItemKind> {
        self.gate.admit(&mut datagram.to_vec(), 0, self.peer, self.now).ok().map(|(kind, _)| kind)
    }

    /// More forgeries than a receiver looks at in a second, each of a session that it does not know.
    fn flood(&mut self) {
        let false_key = ClientKey::new([9; 32]);
        let forged = ping(session(1 << 40), &false_key, 1);
        let mut admitted = 0;
        for n in 0..u64::from(limits::FORGERIES_PER_S.get()) + 1_000 {
            let mut forged = forged.clone();
            forged[8..16].copy_from_slice(&((1u64 << 40) + n).to_le_bytes());
            admitted += u32::from(self.lets_in(&forged));
        }
        assert_eq!(admitted, 0);
        let newcomer = session(1 << 50);
        assert!(!self.lets_in(&ping(newcomer, &key(1 << 50), 1)), "the flood must be one that keeps newcomers out");
    }

    fn locked_out(&mut self, clients: impl Iterator<Item = u64>, counter: u64) -> usize {
        clients.filter(|&client| !self.lets_in(&ping(session(client), &key(client), counter))).count()
    }
}

#[test]
fn sessions_at_work_are_let_in_under_a_flood_however_many_they_are() {
    let mut door = Door::new(ring(), 100_000);
    assert_eq!(door.locked_out(0..SESSIONS, 1), 0);
    door.flood();
    assert_eq!(door.locked_out(0..SESSIONS, 2), 0);
}

#[test]
fn sessions_at_work_are_let_in_under_a_flood_after_the_keys_were_read_again() {
    let ring = ring();
    let mut door = Door::new(ring.clone(), 100_000);
    assert_eq!(door.locked_out(0..SESSIONS, 1), 0);
    ring.replace(keys("revoked 0000000000000007\n"));
    door.flood();
    assert!(!door.lets_in(&ping(session(7), &key(7), 2)), "revoked");
    assert!(!door.lets_in(&ping(session(7), &key(7), 3)), "and so it stays");
    assert_eq!(door.locked_out((0..SESSIONS).filter(|&client| client != 7), 2), 0);
    // Of another key than before.
    ring.replace(keys(&format!("client 0000000000000008 {}\n", "08".repeat(32))));
    assert!(!door.lets_in(&ping(session(8), &key(8), 4)), "the old key");
    assert!(door.lets_in(&ping(session(8), &ClientKey::new([8; 32]), 5)));
    assert!(door.lets_in(&ping(session(7), &key(7), 4)), "not revoked any more");
}

#[test]
fn sessions_that_the_journal_holds_are_let_in_under_a_flood_after_a_restart() {
    let mut door = Door::new(ring(), 100_000);
    let known: Vec<_> = (0..SESSIONS).map(session).collect();
    door.gate.expect(&known);
    door.flood();
    assert!(!door.lets_in(&ping(session(3), &ClientKey::new([9; 32]), 1)), "a forged one is none of them");
    assert_eq!(door.locked_out(0..SESSIONS, 2), 0);
}

#[test]
fn whoever_has_a_key_drives_out_no_session_at_work_by_opening_others() {
    let mut door = Door::new(ring(), 1_000);
    assert_eq!(door.locked_out(0..1_000, 1), 0);
    // More than there are places, while those at work go on.
    for epoch in 10..40_000u32 {
        let id = SessionId { client: ClientId(5_000), epoch: Epoch::new(epoch).unwrap() };
        assert!(door.lets_in(&ping(id, &key(5_000), 1)));
        if epoch % 5_000 == 0 {
            assert_eq!(door.locked_out(0..1_000, u64::from(epoch)), 0);
        }
    }
    door.flood();
    assert_eq!(door.locked_out(0..1_000, 99_999), 0);
}

#[test]
fn plain_datagrams_in_a_clients_name_and_from_its_address_take_no_answer_from_what_it_seals() {
    let mut door = Door::new(ring(), 1_000);
    let id = session(1);
    let plain = |channel| Data { channel, ..Data::whole(id.client, id.epoch, Seq(1), 0, b"forged") };
    let mut bytes = [0; 100];
    let len = plain(0).encode(&mut bytes).unwrap();
    let refused = (0..20_000)
        .filter(|_| matches!(door.answers(&bytes[..len]), Some(ItemKind::Refused { code: RejectCode::SealedOnly, .. })))
        .count();
    assert_eq!(refused, limits::REFUSALS_BURST.get() as usize);
    let too_long = vec![0; 1_500];
    let mut sealed = [0; 1_600];
    let data = Datagram::Data(Data::whole(id.client, id.epoch, Seq(1), 0, &too_long));
    let len = data.seal(&key(1).keys(id.client, Some(id.epoch)), 1, &mut sealed).unwrap();
    let answer = door.answers(&sealed[..len]);
    assert!(matches!(answer, Some(ItemKind::Refused { code: RejectCode::TooLarge, .. })), "{answer:?}");
    // Its own are counted, wherever they come from.
    let mut told = 1;
    for n in 0..10_000u16 {
        door.peer = Peer::new(SocketAddr::from(([10, 1, (n >> 8) as u8, (n & 255) as u8], 1)), 0);
        told += u32::from(door.answers(&sealed[..len]).is_some());
    }
    assert_eq!(told, limits::REFUSALS_BURST.get());
}
