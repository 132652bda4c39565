//! Who is let in while much else is forged, whose refusal is answered, and what is dropped.

use std::net::SocketAddr;

use duragram_proto::codec::{Data, Datagram, Ping, RejectCode};
use duragram_proto::seal::{ClientKey, FleetKey};
use duragram_proto::{ClientId, Epoch, Seq};

use super::*;
use crate::dialect::Arrivals;
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
    admission: Admission,
    now: Now,
    peer: Peer,
}

impl Door {
    fn new(ring: KeyRing, sessions_max: usize) -> Self {
        let config = AdmissionConfig { keys: ring, allow_plain: false, sessions_max, ..AdmissionConfig::plain(1472) };
        let peer = Peer::new(SocketAddr::from(([10, 0, 0, 1], 1)), 0);
        Self { admission: Admission::new(config), now: Now { mono_us: 1, unix_us: 1 }, peer }
    }

    fn lets_in(&mut self, datagram: &[u8]) -> bool {
        !matches!(self.answers(datagram), None | Some(RequestKind::Refused { .. }))
    }

    fn answers(&mut self, datagram: &[u8]) -> Option<RequestKind> {
        let mut bytes = datagram.to_vec();
        let raw = RawDatagram { peer: self.peer, at: 0, bytes: &mut bytes };
        self.admission.check(raw, self.now).ok().map(|request| request.kind)
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
    door.admission.expect(&known);
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
        .filter(|_| {
            matches!(door.answers(&bytes[..len]), Some(RequestKind::Refused { code: RejectCode::SealedOnly, .. }))
        })
        .count();
    assert_eq!(refused, limits::REFUSALS_BURST.get() as usize);
    let too_long = vec![0; 1_500];
    let mut sealed = [0; 1_600];
    let data = Datagram::Data(Data::whole(id.client, id.epoch, Seq(1), 0, &too_long));
    let len = data.seal(&key(1).keys(id.client, Some(id.epoch)), 1, &mut sealed).unwrap();
    let answer = door.answers(&sealed[..len]);
    assert!(matches!(answer, Some(RequestKind::Refused { code: RejectCode::TooLarge, .. })), "{answer:?}");
    // Its own are counted, wherever they come from.
    let mut told = 1;
    for n in 0..10_000u16 {
        door.peer = Peer::new(SocketAddr::from(([10, 1, (n >> 8) as u8, (n & 255) as u8], 1)), 0);
        told += u32::from(door.answers(&sealed[..len]).is_some());
    }
    assert_eq!(told, limits::REFUSALS_BURST.get());
}

#[test]
fn what_is_refused_and_what_is_dropped_is_told_apart() {
    let data = |seq, channel, payload: &[u8]| {
        let mut buffer = [0; 65_507];
        let data = Data { channel, ..Data::whole(ClientId(1), Epoch::new(1).unwrap(), Seq(seq), 0, payload) };
        let len = data.encode(&mut buffer).unwrap();
        buffer[..len].to_vec()
    };
    let reading = data(1, 0, &1u64.to_le_bytes());
    let mut garbled = reading.clone();
    garbled[30] ^= 1;
    let datagrams = [
        vec![],
        b"GET / HTTP/1.1\r\nHost: a port that is not HTTP\r\n\r\n".to_vec(),
        reading[..31].to_vec(),
        garbled,
        data(2, 0, &[0; 169]),
        data(3, 0, &[0; 60_000]),
        data(4, 8, &[]),
        data(5, 65_535, &5u64.to_le_bytes()),
    ];
    let channels = Some(ChannelSet::of([0, 7, 65_535]));
    let mut admission = Admission::new(AdmissionConfig { channels, ..AdmissionConfig::plain(200) });
    let mut arrivals = Arrivals::new(Slab::new(0));
    let peer = Peer::new(SocketAddr::from(([10, 0, 0, 1], 1)), 0);
    datagrams.iter().for_each(|datagram| arrivals.slab.push(peer, datagram));
    // One more was cut by the kernel.
    arrivals.slab.cut = 1;
    arrivals.admit(&mut admission);
    assert_eq!(*arrivals.dropped(), Dropped { truncated: 3, checksum: 2, ..Dropped::default() });
    let request = |request: &Request| match &request.kind {
        RequestKind::Refused { seq, code, .. } => (*seq, Some(*code)),
        RequestKind::Data(data) => {
            assert_eq!(arrivals.slab.bytes(data.payload.clone()), data.seq.0.to_le_bytes());
            (data.seq.0, None)
        }
        other => panic!("{other:?}"),
    };
    let requests: Vec<_> = arrivals.requests().iter().map(request).collect();
    let too_large = Some(RejectCode::TooLarge);
    assert_eq!(requests, [(2, too_large), (3, too_large), (4, Some(RejectCode::Channel)), (5, None)]);
}

#[test]
fn asks_and_takes_are_let_in_by_how_they_came() {
    use duragram_proto::codec::{OPTION_ASK, Take};
    let id = session(1);
    let (client, epoch) = (id.client, id.epoch);
    let ask = Data { options: OPTION_ASK, ..Data::whole(client, epoch, Seq(1), 0, b"?") };
    let batch = Data { options: OPTION_ASK, batch: true, payload: &[1, 0, 7], ..ask };
    let unknown = Data { options: 4, ..ask };
    let take = |room| Take { client, epoch, seq: Seq(1), span: 0, wait_ms: 0, room };
    let datagrams = [
        Datagram::Data(ask),
        Datagram::Data(batch),
        Datagram::Data(unknown),
        Datagram::Take(take(100)),
        Datagram::Take(take(1_500)),
    ];
    // Accepted, refused with a code, or dropped.
    let says = |door: &mut Door, sealed: bool| {
        datagrams.map(|datagram| {
            let mut bytes = vec![0; 2_000];
            let len = match sealed {
                true => datagram.seal(&key(1).keys(client, Some(epoch)), 1, &mut bytes).unwrap(),
                false => datagram.encode(&mut bytes).unwrap(),
            };
            door.answers(&bytes[..len]).map(|kind| match kind {
                RequestKind::Refused { code, .. } => Err(code),
                _ => Ok(()),
            })
        })
    };
    let none = Some(Err(RejectCode::Unsupported));
    let [taken, untaken] = [[Some(Ok(())), none, none, Some(Ok(())), None], [none, none, none, None, None]];
    for (asks, plain, sealed) in
        [(AsksOf::Nobody, untaken, untaken), (AsksOf::Sealed, untaken, taken), (AsksOf::Everybody, taken, taken)]
    {
        let mut door = Door::new(ring(), 10);
        door.admission.config.asks = asks;
        assert_eq!(says(&mut door, true), sealed, "sealed, {asks:?}");
        let mut door = Door::new(KeyRing::none(), 10);
        door.admission.config.asks = asks;
        assert_eq!(says(&mut door, false), plain, "plain, {asks:?}");
    }
}
