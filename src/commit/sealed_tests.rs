//! Sealed mode through admission and committer: what opens a session, where acks go, what is remembered, and what a server seals.

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

    fn with_keys(disk: MemoryDisk, config: CommitterConfig, sessions_max: usize, allow_plain: bool) -> Self {
        let mut rig = Self::on(disk, CommitterConfig { sealed: true, ..config }, sessions_max);
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
    let datagram = codec::unseal_reply(bytes, &keys).unwrap();
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
    let ack = codec::unseal_reply(&sent[0].1, &keys).unwrap();
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

// ---- Epochs ----------------------------------------------------------------------------------------------------------

#[test]
fn a_session_that_was_recorded_journals_nothing_when_it_is_played_back() {
    let mut rig = Rig::sealed();
    let recording: Vec<_> = (1..=3).map(|seq| data(1, 5, seq, 0, seq)).collect();
    for datagram in &recording {
        rig.tell(datagram);
    }
    // Within the living session: duplicates.
    for datagram in &recording {
        assert_eq!(rig.tell(datagram), Some(acked_again(3)));
    }
    // The session expires, with all that the journal keeps of it.
    rig.set_watermark(3);
    rig.clock.advance_s(1_000);
    rig.committer.commit(&rig.clock).unwrap();
    rig.clock.advance_s(1_000);
    rig.committer.commit(&rig.clock).unwrap();
    assert_eq!(rig.disk.session(id(1, 5)), None);
    for datagram in &recording {
        assert_eq!(rig.tell(datagram), STALE);
    }
    assert_eq!(rig.outcome("replayed_session"), 3);
    let mut rig = rig.sealed_restart(false);
    for datagram in &recording {
        assert_eq!(rig.tell(datagram), STALE);
    }
    assert_eq!((rig.outcome("replayed_session"), rig.outcome("stale_epoch")), (3, 0));
    assert_eq!(rig.disk.end(), Offset(3));
    assert_eq!(rig.tell(&data(1, 6, 1, 0, 1)), Some(acked(1)), "the client itself goes on in the next epoch");
}

#[test]
fn what_was_opened_is_on_disk_with_the_first_entry() {
    let mut rig = Rig::sealed();
    rig.disk.on_write(|write| {
        let Write::Commit { block, records, .. } = write else { return WriteFate::Durable };
        if block.is_some() {
            assert_eq!(records.clients, [ClientRecord { client: ClientId(1), opened: 5, given: 0 }]);
        }
        WriteFate::Durable
    });
    rig.tell(&data(1, 5, 1, 0, 1));
    rig.disk.on_write(|write| {
        assert!(matches!(write, Write::Commit { records, .. } if records.clients.is_empty()), "once is enough");
        WriteFate::Durable
    });
    rig.tell(&data(1, 5, 2, 0, 2));
}

#[test]
fn a_session_opens_above_all_that_were_opened_and_open_ones_go_on_below() {
    let mut rig = Rig::sealed();
    assert_eq!(rig.tell(&data(1, 5, 1, 0, 1)), Some(acked(1)));
    assert_eq!(rig.tell(&data(1, 9, 1, 0, 1)), Some(acked(1)));
    assert_eq!(rig.tell(&data(1, 5, 2, 0, 2)), Some(acked(2)), "open already");
    assert_eq!(rig.tell(&data(1, 7, 1, 0, 1)), STALE);
    assert_eq!(rig.tell(&ping(1, 7, 2)), Some(acked_again(0)), "a PING opens nothing");
    assert_eq!(rig.tell(&data(2, 7, 1, 0, 1)), Some(acked(1)), "of another client");
    let mut rig = rig.sealed_restart(false);
    assert_eq!(rig.tell(&data(1, 5, 3, 0, 3)), Some(acked(3)));
    assert_eq!(rig.tell(&data(1, 8, 1, 0, 1)), STALE);
}

#[test]
fn data_that_opens_above_its_first_seq_shows_that_acked_data_was_lost() {
    let mut rig = Rig::sealed();
    assert_eq!(rig.tell(&data(1, 5, 8, 0, 1)), Some(acked(8)));
    assert_eq!(rig.metrics.lost.get(), 7);
    let mut gaps = Vec::new();
    rig.disk.open(&mut |replay| {
        if let Replay::Block(block) = replay {
            gaps.extend(block.entries().map(|entry| (entry.kind, entry.meta.sealed)));
        }
    });
    assert_eq!(gaps, [(EntryKind::Gap { from: Seq(1), to: Seq(7) }, true), (EntryKind::Data, true)]);
    let mut rig = Rig::sealed_on(rig.disk, 10, false);
    assert_eq!(rig.tell(&data(1, 5, 8, 0, 2)), Some(acked_again(8)));
    // What was abandoned before anything came was never acked.
    let skipped = Datagram::Data(Data { skip: true, ..plain_data(2, 5, 8, 0) });
    assert_eq!(rig.tell(&sealed(&skipped, 2, 5, 1)), Some(acked(8)));
    assert_eq!(rig.metrics.lost.get(), 0);
}

// ---- HELLO ----------------------------------------------------------------------------------------------------------

#[test]
fn hello_gives_an_epoch_that_is_on_disk_and_opens_nothing() {
    let mut rig = Rig::sealed();
    let unix_s = 1_800_000_000;
    assert_eq!(rig.tell(&hello(1, 77)), Some(Reply::Welcome(unix_s)));
    assert_eq!(rig.disk.client(ClientId(1)), Some(ClientRecord { client: ClientId(1), opened: 0, given: unix_s }));
    assert_eq!(rig.committer.status().sessions, 0);
    assert_eq!(rig.tell(&hello(1, 77)), Some(Reply::Welcome(unix_s)), "the same again");
    assert_eq!(rig.tell(&hello(1, 78)), Some(Reply::Welcome(unix_s + 1)));
    assert_eq!(rig.tell(&data(1, unix_s, 1, 0, 1)), Some(acked(1)));
    assert_eq!(rig.tell(&hello(1, 77)), None, "a recording");
    assert_eq!(rig.tell(&hello(1, 78)), Some(Reply::Welcome(unix_s + 1)));
    assert_eq!(rig.outcome("replayed_hello"), 1);
    let mut rig = rig.sealed_restart(false);
    assert_eq!(rig.tell(&hello(1, 77)), Some(Reply::Welcome(unix_s + 2)), "never one that was given");
    assert_eq!(rig.tell(&data(1, unix_s + 1, 1, 0, 1)), Some(acked(1)), "it was given, and not opened");
}

#[test]
fn no_welcome_leaves_before_its_epoch_is_on_disk() {
    let mut rig = Rig::sealed();
    let wire = rig.wire.clone();
    rig.disk.on_write(move |_| {
        assert_eq!(wire.len(), 0);
        WriteFate::Durable
    });
    // Its repetition waits too.
    assert_eq!(rig.exchange(&[(1, hello(1, 77)), (1, hello(1, 77))]).len(), 2);
}

#[test]
fn recorded_hellos_get_no_more_than_an_epoch_a_second() {
    let mut rig = Rig::sealed();
    let mut codes = BTreeMap::<String, u64>::new();
    for nonce in 0..50 {
        *codes
            .entry(format!("{:?}", rig.tell(&hello(1, nonce)).map(|reply| matches!(reply, Reply::Welcome(_)))))
            .or_default() += 1;
    }
    assert_eq!(codes["Some(true)"], 8);
    assert_eq!(rig.tell(&hello(1, 100)), Some(Reply::Reject(RejectCode::Busy)));
    rig.clock.advance_s(1);
    assert!(matches!(rig.tell(&hello(1, 100)), Some(Reply::Welcome(_))));
    assert_eq!(rig.tell(&hello(1, 101)), Some(Reply::Reject(RejectCode::Busy)));
}

#[test]
fn a_client_that_has_used_up_its_epochs_is_told_so_for_good() {
    let mut rig = Rig::sealed();
    assert_eq!(rig.tell(&data(1, u32::MAX, 1, 0, 1)), Some(acked(1)));
    for nonce in [1, 1, 2] {
        assert_eq!(rig.tell(&hello(1, nonce)), Some(Reply::Reject(RejectCode::Unsupported)), "waiting is no remedy");
    }
    assert_eq!(rig.tell(&data(1, u32::MAX, 2, 0, 2)), Some(acked(2)), "its session goes on");
}

#[test]
fn a_session_that_begins_beyond_reason_is_refused_and_nothing_counts_as_lost() {
    let mut rig = Rig::sealed();
    let stale = Some(Reply::Reject(RejectCode::StaleEpoch));
    for seq in [u64::MAX, u64::MAX - 1, 1 << 60, limits::SEALED_GAP_MAX + 2] {
        assert_eq!(rig.tell(&data(1, 5, seq, 0, 1)), stale, "{seq}");
    }
    assert_eq!((rig.metrics.lost.get(), rig.committer.status().sessions), (0, 0));
    assert_eq!(rig.tell(&data(1, 5, limits::SEALED_GAP_MAX + 1, 0, 1)), Some(acked(limits::SEALED_GAP_MAX + 1)));
    assert_eq!(rig.metrics.lost.get(), limits::SEALED_GAP_MAX);
}

#[test]
fn while_space_is_short_a_new_epoch_is_refused_and_a_known_one_is_told_again() {
    let mut rig = Rig::sealed();
    assert!(matches!(rig.tell(&hello(1, 1)), Some(Reply::Welcome(_))));
    rig.disk.set_free_bytes(10);
    rig.clock.advance_s(1);
    rig.committer.commit(&rig.clock).unwrap();
    assert_eq!(rig.tell(&hello(1, 2)), Some(Reply::Reject(RejectCode::Storage)));
    assert!(matches!(rig.tell(&hello(1, 1)), Some(Reply::Welcome(_))));
    assert_eq!(rig.tell(&data(1, 5, 1, 0, 1)), Some(Reply::Reject(RejectCode::Storage)));
}

// ---- Addresses ------------------------------------------------------------------------------------------------------

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

// ---- Sealed and plain -----------------------------------------------------------------------------------------------

#[test]
fn a_server_with_keys_refuses_what_is_plain() {
    let mut rig = Rig::sealed();
    let plain = plain_data(0x77, 5, 3, 0);
    let sent = rig.step(&[(peer(1), encode(&Datagram::Data(plain)))]);
    let Datagram::Reject(reject) = codec::decode(&sent[0].1).unwrap() else { panic!() };
    assert_eq!((reject.epoch, reject.refused, reject.client), (5, 3, ClientId(0x77)));
    assert_eq!(rig.tell(&super::hello(0x77, 4)), SEALED_ONLY);
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
    assert_eq!(rig.tell(&super::hello(1, 4)), SEALED_ONLY);
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
        reply(&encode(&codec::unseal_reply(bytes, &keys).unwrap()))
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
        assert_eq!(code(&mut rig, 0x50, &super::hello(0x50, 1)), Reply::Reject(RejectCode::SealedOnly));
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

// ---- Places in the table --------------------------------------------------------------------------------------------

#[test]
fn plain_traffic_cannot_take_the_sealed_clients_places() {
    let lasting = CommitterConfig { session_ttl_s: 100_000, ..config() };
    let mut rig = Rig::with_keys(MemoryDisk::default(), lasting, 4, true);
    let plain = |client| encode(&Datagram::Data(plain_data(client, 5, 1, 0)));
    assert_eq!(rig.tell(&plain(0x71)), Some(acked(1)));
    assert_eq!(rig.tell(&plain(0x72)), Some(acked(1)));
    let busy = Some(Reply::Reject(RejectCode::Busy));
    assert_eq!(rig.tell(&plain(0x73)), busy, "half of the table is the sealed ones'");
    assert_eq!(rig.tell(&super::hello(0x73, 1)), busy);
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

// ---- The server's counter -------------------------------------------------------------------------------------------

/// The counter of a sealed reply.
fn counter_of(bytes: &[u8]) -> u64 {
    codec::peek(bytes).unwrap().counter
}

#[test]
fn nothing_is_sealed_before_a_limit_is_on_disk_and_nothing_above_it() {
    let mut rig = Rig::on(MemoryDisk::default(), CommitterConfig { sealed: true, ..config() }, 10);
    rig.admission = Admission::new(AdmissionConfig {
        keys: KeyRing::of(Keys::parse(KEY_FILE.as_bytes()).unwrap()),
        ..rig.admission_config.clone()
    });
    assert_eq!(rig.disk.counter_limit(), None);
    // Answered in the commit's first half, before it is written.
    assert_eq!(rig.tell(&ping(1, 5, 1)), None);
    let withheld = crate::metrics::Outcome { outcome: "unsealable" };
    assert_eq!(rig.metrics.replies_withheld.get_or_create(&withheld).get(), 1);
    let disk = rig.disk.clone();
    let wire = rig.wire.clone();
    rig.disk.on_write(move |_| {
        // Hours pass while the disk is slow.
        let limit = disk.counter_limit().unwrap();
        assert!(wire.0.lock().unwrap().iter().all(|(_, bytes)| counter_of(bytes) < limit));
        WriteFate::Durable
    });
    let mut last = 0;
    for round in 0..200 {
        rig.clock.advance_s(600);
        let limit = rig.disk.counter_limit().unwrap();
        for (_, bytes) in
            rig.step(&[(peer(1), ping(1, 5, 2 + 2 * round)), (peer(1), data(1, 5, 1 + round, 0, 3 + 2 * round))])
        {
            let counter = counter_of(&bytes);
            assert!(counter > last && counter < rig.disk.counter_limit().unwrap());
            assert!(counter < limit || rig.disk.counter_limit() > Some(limit));
            last = counter;
        }
    }
}

#[test]
fn a_number_never_comes_twice_whatever_becomes_of_clock_and_process() {
    let mut rig = Rig::sealed();
    let mut seen = BTreeSet::new();
    let mut seq = 0;
    // Seconds by which the clock steps at each restart.
    for step in [0, 10_000, -9_000, 5, -1_000_000, 0, 86_400 * 30, -86_400 * 29, 1] {
        for _ in 0..20 {
            seq += 1;
            let datagrams =
                [(peer(1), data(1, 5, seq, 0, 2 * seq)), (peer(1), ping(2, 5, seq)), (peer(1), hello(2, seq))];
            for (_, bytes) in rig.step(&datagrams) {
                let counter = counter_of(&bytes);
                assert!(seen.last().is_none_or(|&last| last < counter), "{counter} after {:?}", seen.last());
                seen.insert(counter);
            }
        }
        let now = rig.clock.1.get() + step;
        rig = Rig::sealed_on(rig.disk, 10, false);
        rig.clock.1.set(now);
        rig.committer.commit(&rig.clock).unwrap();
    }
    assert!(seen.len() > 300);
}

#[test]
fn a_limit_counts_only_when_its_commit_has_landed() {
    let mut rig = Rig::sealed();
    assert_eq!(rig.tell(&data(1, 5, 1, 0, 1)), Some(acked(1)));
    rig.hand.hold(1);
    // The limit on disk is passed, and the next one is on its way.
    rig.clock.advance_s(2 * 3_600);
    rig.absorb(&[(peer(1), data(1, 5, 2, 0, 2))]).unwrap();
    rig.committer.launch(&rig.clock).unwrap();
    assert!(rig.hand.has_work());
    let refused = data(2, 5, 5_000, 4_999, 1);
    rig.absorb(&[(peer(1), refused.clone())]).unwrap();
    rig.hand.run();
    rig.committer.land(&rig.clock).unwrap();
    let sent = rig.sent();
    assert_eq!(
        sent.iter().map(|(_, bytes)| opened(bytes)).collect::<Vec<_>>(),
        [acked(2)],
        "no REJECT: it came before"
    );
    assert_eq!(rig.tell(&refused), Some(Reply::Reject(RejectCode::BeyondWindow)));
}

#[test]
fn a_failed_commit_leaves_nothing_sealed() {
    let mut rig = Rig::sealed();
    rig.disk.on_write(|_| WriteFate::FailedButWritten);
    rig.absorb(&[(peer(1), data(1, 5, 1, 0, 1)), (peer(1), hello(2, 1))]).unwrap();
    rig.committer.commit(&rig.clock).unwrap_err();
    assert_eq!(rig.sent(), []);
    rig.disk.on_write(|_| WriteFate::Durable);
    // It was on the disk all the same: the session goes on, and the epoch is used.
    let mut rig = Rig::sealed_on(rig.disk, 10, false);
    assert_eq!(rig.tell(&data(1, 5, 1, 0, 2)), Some(acked_again(1)));
    assert_eq!(rig.tell(&data(1, 4, 1, 0, 1)), STALE);
}
