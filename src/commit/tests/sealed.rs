//! Sealed mode through admission and committer: what opens a session, where acks go, what is remembered, and what a server seals.

mod counter;
mod epochs;
mod places;

use std::collections::{BTreeMap, BTreeSet};

use duragram_proto::seal::{ClientKey, SessionKeys};

use super::*;
use crate::journal::Replay;
use crate::keys::{KeyRing, Keys};
use crate::limits;
use crate::model::ClientRecord;

/// Client `n` has the key of 32 bytes `n`; 9 is revoked, 3 may use channel 7 alone.
const KEY_FILE: &str = "\
client 0000000000000001 0101010101010101010101010101010101010101010101010101010101010101
client 0000000000000002 0202020202020202020202020202020202020202020202020202020202020202
client 0000000000000003 0303030303030303030303030303030303030303030303030303030303030303 channels=7
client 0000000000000009 0909090909090909090909090909090909090909090909090909090909090909
revoked 0000000000000009
";

impl Rig {
    fn sealed() -> Self {
        Self::sealed_on(MemoryDisk::default(), 10, false)
    }

    /// A server with keys, after its first commit.
    fn sealed_on(disk: MemoryDisk, sessions_max: usize, allow_plain: bool) -> Self {
        Self::with_keys(disk, config(), sessions_max, allow_plain)
    }

    fn with_keys(disk: MemoryDisk, config: Config, sessions_max: usize, allow_plain: bool) -> Self {
        let mut rig = Self::on(disk, Config { sealed: true, ..config }, sessions_max);
        let keys = KeyRing::of(Keys::parse(KEY_FILE.as_bytes()).unwrap());
        rig.admission_config = AdmissionConfig { keys, allow_plain, ..AdmissionConfig::plain(1472) };
        rig.admission = Admission::new(rig.admission_config.clone());
        rig.committer.commit(&rig.clock).unwrap();
        rig
    }

    /// After a SIGKILL, with the same keys.
    fn sealed_restart(self, allow_plain: bool) -> Self {
        let clock = self.clock.0.get();
        let mut rig = Self::sealed_on(self.disk, 10, allow_plain);
        // The time of day goes on; the monotonic clock does so too, which does no harm.
        rig.clock.0.set(clock);
        rig.committer.commit(&rig.clock).unwrap();
        rig
    }

    /// Datagrams in, what was answered out: to whom, and what it says.
    fn exchange(&mut self, datagrams: &[(u16, Vec<u8>)]) -> Vec<(u16, Reply)> {
        let datagrams: Vec<_> = datagrams.iter().map(|(port, bytes)| (peer(*port), bytes.clone())).collect();
        self.step(&datagrams).iter().map(|(to, bytes)| (to.addr.port(), opened(bytes))).collect()
    }

    fn tell(&mut self, datagram: &[u8]) -> Option<Reply> {
        let mut replies = self.exchange(&[(1, datagram.to_vec())]);
        assert!(replies.len() <= 1, "{replies:?}");
        replies.pop().map(|(_, reply)| reply)
    }

    fn outcome(&self, outcome: &'static str) -> u64 {
        self.metrics.datagrams.get_or_create(&crate::metrics::Outcome { outcome }).get()
    }
}

fn client_key(client: u64) -> ClientKey {
    ClientKey::new([u8::try_from(client).unwrap(); 32])
}

fn keys(client: u64, epoch: u32) -> SessionKeys {
    client_key(client).keys(ClientId(client), Epoch::new(epoch))
}

/// What a sealed reply says; panics if it is not sealed by the server for whom it names.
fn opened(bytes: &[u8]) -> Reply {
    if bytes[1] & 8 == 0 {
        return reply(bytes);
    }
    let head = codec::peek(bytes).unwrap();
    let keys = client_key(head.client.0).keys(head.client, head.keys.epoch());
    let mut bytes = bytes.to_vec();
    let datagram = codec::unseal_reply(&mut bytes, &keys).unwrap();
    // As a plain one, so that one reading serves both.
    reply(&encode(&datagram))
}

fn sealed(datagram: &Datagram<'_>, client: u64, epoch: u32, counter: u64) -> Vec<u8> {
    let mut buffer = [0; 1500];
    let len = datagram.seal(&keys(client, epoch), counter, &mut buffer).unwrap();
    buffer[..len].to_vec()
}

fn plain_data(client: u64, epoch: u32, seq: u64, span: u16) -> Data<'static> {
    Data { channel: 7, ..Data::whole(ClientId(client), Epoch::new(epoch).unwrap(), Seq(seq), span, b"a reading") }
}

fn data(client: u64, epoch: u32, seq: u64, span: u16, counter: u64) -> Vec<u8> {
    sealed(&Datagram::Data(plain_data(client, epoch, seq, span)), client, epoch, counter)
}

fn ping(client: u64, epoch: u32, counter: u64) -> Vec<u8> {
    let ping = Ping { client: ClientId(client), epoch: Epoch::new(epoch).unwrap() };
    sealed(&Datagram::Ping(ping), client, epoch, counter)
}

fn hello(client: u64, nonce: u64) -> Vec<u8> {
    sealed(&Datagram::Hello(Hello { client: ClientId(client), nonce }), client, 0, nonce)
}

fn id(client: u64, epoch: u32) -> SessionId {
    SessionId { client: ClientId(client), epoch: Epoch::new(epoch).unwrap() }
}

const STALE: Option<Reply> = Some(Reply::Reject(RejectCode::StaleEpoch));
const SEALED_ONLY: Option<Reply> = Some(Reply::Reject(RejectCode::SealedOnly));

#[test]
fn sealed_data_is_journaled_in_the_clear_and_acked_sealed() {
    let mut rig = Rig::sealed();
    assert_eq!(rig.tell(&data(1, 5, 1, 0, 100)), Some(acked(1)));
    assert_eq!(rig.tell(&data(1, 5, 3, 1, 101)), Some(Reply::Ack { floor: 1, bits: vec![3], duplicate: false }));
    assert_eq!(rig.tell(&data(1, 5, 2, 0, 102)), Some(acked(3)));
    assert_eq!(rig.tell(&data(1, 5, 2, 0, 103)), Some(acked_again(3)));
    assert_eq!(rig.tell(&ping(1, 5, 104)), Some(acked_again(3)));
    let mut found = Vec::new();
    rig.disk.open(&mut |replay| {
        if let Replay::Block(block) = replay {
            found.extend(block.entries().map(|entry| (entry.meta.seq.0, entry.meta.sealed, entry.payload.to_vec())));
        }
    });
    let entry = |seq| (seq, true, b"a reading".to_vec());
    assert_eq!(found, [entry(1), entry(3), entry(2)]);
}

#[test]
fn no_reply_to_a_sealed_datagram_is_longer_than_it() {
    let mut rig = Rig::sealed();
    // Many gaps, so that every ack would like a long bitmap.
    for (counter, seq) in (1..).zip((1..=99).step_by(2)) {
        rig.tell(&data(1, 5, seq, u16::try_from(seq - 1).unwrap(), counter));
    }
    for len in 0..300 {
        let payload = vec![1; len];
        let datagram = Datagram::Data(Data { payload: &payload, ..plain_data(1, 5, 1, 0) });
        let bytes = sealed(&datagram, 1, 5, 1_000 + len as u64);
        let sent = rig.step(&[(peer(1), bytes.clone())]);
        assert!(sent[0].1.len() <= bytes.len(), "{len}");
        assert!(sent[0].1.len() + 8 > bytes.len().min(52 + 16), "the room of {len} bytes is used");
    }
}

#[test]
fn whatever_is_not_well_sealed_is_dropped_in_silence_and_counted() {
    let mut rig = Rig::sealed();
    let good = data(1, 5, 1, 0, 1);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_eq!(rig.tell(&bad), None, "byte {at}");
    }
    for len in 0..good.len() {
        assert_eq!(rig.tell(&good[..len]), None, "cut to {len} bytes");
    }
    assert!(rig.outcome("bad_seal") > 0);
    let others = Datagram::Data(plain_data(1, 5, 1, 0));
    let mut buffer = [0; 1500];
    // Another epoch's keys, another client's, and those of a client that nobody knows.
    for keys in [keys(1, 6), keys(2, 5)] {
        let before = rig.outcome("bad_seal");
        let len = others.seal(&keys, 1, &mut buffer).unwrap();
        assert_eq!(rig.tell(&buffer[..len]), None);
        assert_eq!(rig.outcome("bad_seal"), before + 1);
    }
    let before = (rig.outcome("unknown_key"), rig.outcome("revoked"));
    assert_eq!(rig.tell(&data(0x77, 5, 1, 0, 1)), None);
    assert_eq!(rig.tell(&data(9, 5, 1, 0, 1)), None);
    assert_eq!((rig.outcome("unknown_key"), rig.outcome("revoked")), (before.0 + 1, before.1 + 1));
    // What the server itself has sealed comes back to it.
    let sent = rig.step(&[(peer(1), good)]);
    assert_eq!(rig.tell(&sent[0].1), None);
    assert_eq!(rig.outcome("wrong_direction"), 1);
    assert_eq!(rig.disk.end(), Offset(1));
}

#[test]
fn a_server_without_keys_drops_what_is_sealed() {
    let mut rig = Rig::new();
    assert_eq!(rig.tell(&data(1, 5, 1, 0, 1)), None);
    assert_eq!(rig.outcome("sealed"), 1);
}

#[test]
fn a_client_that_is_revoked_is_so_at_once_and_one_whose_key_was_changed_goes_on_with_the_new_one() {
    let mut rig = Rig::sealed();
    assert_eq!(rig.tell(&data(1, 5, 1, 0, 1)), Some(acked(1)));
    assert_eq!(rig.tell(&data(2, 5, 1, 0, 1)), Some(acked(1)));
    let changed = KEY_FILE.replace("client 0000000000000002 0202", "client 0000000000000002 aaaa");
    rig.admission_config.keys.replace(Keys::parse(format!("{changed}revoked 0000000000000001\n").as_bytes()).unwrap());
    assert_eq!(rig.tell(&data(1, 5, 2, 0, 2)), None);
    assert_eq!(rig.tell(&data(2, 5, 2, 0, 2)), None);
    assert_eq!((rig.outcome("revoked"), rig.outcome("bad_seal")), (1, 1));
    let mut key = [2; 32];
    key[..2].fill(0xaa);
    let keys = ClientKey::new(key).keys(ClientId(2), Epoch::new(5));
    let mut buffer = [0; 100];
    let len = Datagram::Data(plain_data(2, 5, 2, 0)).seal(&keys, 3, &mut buffer).unwrap();
    let sent = rig.step(&[(peer(1), buffer[..len].to_vec())]);
    let mut sent = sent[0].1.clone();
    let ack = codec::unseal_reply(&mut sent, &keys).unwrap();
    assert!(matches!(ack, Datagram::Ack(ack) if ack.floor == Seq(2)), "the session goes on: {ack:?}");
}

#[test]
fn a_client_is_refused_the_channels_that_are_not_its() {
    let mut rig = Rig::sealed();
    assert_eq!(rig.tell(&data(3, 5, 1, 0, 1)), Some(acked(1)));
    let other = Datagram::Data(Data { channel: 8, ..plain_data(3, 5, 2, 0) });
    assert_eq!(rig.tell(&sealed(&other, 3, 5, 2)), Some(Reply::Reject(RejectCode::Channel)));
}

#[test]
fn a_flood_of_forgeries_is_looked_at_for_a_while_and_sessions_at_work_are_let_in_always() {
    let mut rig = Rig::sealed();
    assert_eq!(rig.tell(&data(1, 5, 1, 0, 1)), Some(acked(1)));
    let forged: Vec<u8> = {
        let mut forged = data(2, 5, 1, 0, 1);
        *forged.last_mut().unwrap() ^= 1;
        forged
    };
    let flood = |rig: &mut Rig| {
        for _ in 0..limits::FORGERIES_PER_S.get() / 1_000 + 2 {
            let datagrams: Vec<_> = (0..1_000).map(|_| (peer(9), forged.clone())).collect();
            rig.absorb(&datagrams).unwrap();
        }
    };
    flood(&mut rig);
    let looked_at = rig.outcome("bad_seal");
    assert_eq!(looked_at, u64::from(limits::FORGERIES_PER_S.get()) + 1);
    assert!(rig.outcome("limited") > 900);
    assert_eq!(rig.tell(&data(2, 5, 1, 0, 1)), None, "one that is new must try again");
    assert_eq!(rig.tell(&data(1, 5, 2, 0, 2)), Some(acked(2)));
    rig.clock.advance_s(1);
    assert_eq!(rig.tell(&data(2, 5, 1, 0, 1)), Some(acked(1)));
    flood(&mut rig);
    assert_eq!(rig.tell(&data(2, 5, 2, 0, 2)), Some(acked(2)), "it is at work now");
    // Good seals use nothing up.
    let mut rig = Rig::sealed();
    for epoch in 1..=limits::FORGERIES_PER_S.get() + 10 {
        rig.absorb(&[(peer(1), ping(1, epoch, 1))]).unwrap();
    }
    assert_eq!((rig.outcome("limited"), rig.outcome("ping")), (0, u64::from(limits::FORGERIES_PER_S.get()) + 10));
}
