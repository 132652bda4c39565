//! Raw UDP against the real binary: every REJECT, and when service resumes (PROTOCOL.md#reject-codes).

use std::fs::{self, File};
use std::path::Path;

use crate::common::server::{Home, Server};
use crate::common::wire::{Is, Wire, bytes_of, fix_crc, refusal};
use duragram_proto::codec::{Data, Datagram, RejectCode};

/// After whatever was refused, nothing is journaled but this one sentinel.
fn only_the_sentinel_is_journaled(home: &Home, server: &Server, wire: &Wire) {
    assert_eq!(wire.ask_ack(&wire.data(1, b"sentinel")).floor, 1);
    let lines = home.wait_lines(1);
    assert_eq!(lines.len(), 1);
    assert_eq!((lines[0].offset, lines[0].payload()), (0, b"sentinel".to_vec()));
    assert_eq!(server.metric("duragram_datagrams_total", "\"journaled\""), 1.0);
}

#[test]
fn another_version_is_told_which_one_is_spoken() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::in_epoch(&server, 0xd1, 77);
    for version in (0..=15).filter(|&version| version != 1) {
        for kind in [0, 1, 4, 9] {
            let mut bytes = bytes_of(&Datagram::Data(wire.data(5, b"of another time")));
            bytes[0] = version << 4 | kind;
            bytes[1] = 0xff;
            fix_crc(&mut bytes);
            wire.send_bytes(&bytes);
            let reply = wire.reply_bytes();
            assert_eq!(reply.len(), 32);
            assert_eq!(reply[0], 0x13, "the reply's own version nibble says 1");
            let reject = match duragram_proto::codec::decode(&reply) {
                Ok(Datagram::Reject(reject)) => reject,
                other => panic!("{other:?}"),
            };
            assert_eq!(refusal(&reject), (RejectCode::Version, 5));
            assert_eq!((reject.client, reject.epoch), (wire.client, 77));
        }
    }
    only_the_sentinel_is_journaled(&home, &server, &wire);
}

#[test]
fn another_version_without_a_valid_checksum_is_foreign_traffic() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0xd2);
    for version in (0..=15).filter(|&version| version != 1) {
        let mut bytes = bytes_of(&Datagram::Data(wire.data(5, b"of another time")));
        bytes[0] = version << 4 | 1;
        wire.send_bytes(&bytes);
    }
    wire.assert_silence();
}

#[test]
fn fragments_and_reserved_fields_are_unsupported() {
    let home = Home::with_config("sessions_max = 1\n");
    let server = home.serve();
    let wire = Wire::new(&server, 0xd3);
    let whole = wire.data(3, b"a piece");
    let asks_for_more = [
        Data { end: false, ..whole },
        Data { begin: false, ..whole },
        Data { begin: false, end: false, ..whole },
        Data { options: 1, ..whole },
        Data { options: 0x8000, ..whole },
        Data { end: false, batch: true, ..whole },
        Data { options: 1, batch: true, ..whole },
    ];
    for data in asks_for_more {
        let reject = wire.ask_reject(&data);
        assert_eq!(refusal(&reject), (RejectCode::Unsupported, 3), "{data:?}");
        assert_eq!((reject.client, reject.epoch), (wire.client, wire.epoch.value()));
    }
    // In another session, for which there is room only if none was opened.
    only_the_sentinel_is_journaled(&home, &server, &Wire::new(&server, 0xd2));
}

#[test]
fn a_datagram_above_the_configured_maximum_is_too_large() {
    for (config, most) in [("", 1472), ("datagram_bytes_max = 100\n", 100), ("datagram_bytes_max = 65507\n", 65_507)] {
        let home = Home::with_config(config);
        let server = home.serve();
        let wire = Wire::new(&server, 0xd4);
        let fits = vec![b'x'; most - 32];
        for len in [most + 1, most + 8, 2 * most, 65_507].into_iter().filter(|&len| len > most && len <= 65_507) {
            let reject = wire.ask_reject(&wire.data(2, &vec![b'x'; len - 32]));
            assert_eq!(refusal(&reject), (RejectCode::TooLarge, 2), "{len} bytes");
            assert_eq!((reject.client, reject.epoch), (wire.client, wire.epoch.value()));
        }
        assert_eq!(wire.ask_ack(&wire.data(1, &fits)).floor, 1, "exactly the maximum");
        let lines = home.wait_lines(1);
        assert_eq!((lines.len(), lines[0].payload()), (1, fits));
    }
}

#[test]
fn what_is_too_large_and_garbled_is_not_answered() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0xd5);
    let mut bytes = bytes_of(&Datagram::Data(wire.data(1, &[0; 2000])));
    bytes[1000] ^= 1;
    wire.send_bytes(&bytes);
    wire.assert_silence();
}

#[test]
fn a_full_session_table_is_busy_and_keeps_the_sessions_it_has() {
    let home = Home::with_config("sessions_max = 1\n");
    let server = home.serve();
    let first = Wire::new(&server, 0xd6);
    let second = Wire::new(&server, 0xd7);
    assert_eq!(first.ask_ack(&first.data(1, b"in")).floor, 1);

    let reject = second.ask_reject(&second.data(1, b"out"));
    assert_eq!(refusal(&reject), (RejectCode::Busy, 1));
    assert_eq!((reject.client, reject.epoch), (second.client, second.epoch.value()));
    assert!(reject.retry_after_ms > 0);

    let Is::Reject(reject) = second.hello(0x0123_4567_89ab_cdef).is else { panic!("not a REJECT") };
    assert_eq!(refusal(&reject), (RejectCode::Busy, 0x0123_4567_89ab_cdef), "the nonce in the place of the seq");
    assert_eq!((reject.client, reject.epoch), (second.client, 0));
    assert!(reject.retry_after_ms > 0);

    assert_eq!(first.ask_ack(&first.data(2, b"still in")).floor, 2);
    let lines = home.wait_lines(2);
    assert_eq!(lines.iter().map(|line| line.payload()).collect::<Vec<_>>(), [b"in".to_vec(), b"still in".to_vec()]);
}

#[test]
fn a_full_session_table_stays_full_after_a_crash() {
    let home = Home::with_config("sessions_max = 1\n");
    let server = home.serve();
    let first = Wire::new(&server, 0xd8);
    assert_eq!(first.ask_ack(&first.data(1, b"in")).floor, 1);
    server.kill();
    let server = home.serve();
    let second = Wire::new(&server, 0xd9);
    assert_eq!(refusal(&second.ask_reject(&second.data(1, b"out"))), (RejectCode::Busy, 1));
    let first = Wire::new(&server, 0xd8);
    assert_eq!(first.ask_ack(&first.data(2, b"in")).floor, 2);
}

#[test]
fn a_channel_that_is_not_configured_is_refused() {
    let home = Home::with_config("channels = [3, \"10-12\"]\n");
    let server = home.serve();
    let wire = Wire::new(&server, 0xda);
    for channel in [0, 2, 4, 9, 13, u16::MAX] {
        let reject = wire.ask_reject(&Data { channel, ..wire.data(2, b"") });
        assert_eq!(refusal(&reject), (RejectCode::Channel, 2), "channel {channel}");
    }
    for (seq, channel) in [(1, 3), (2, 10), (3, 12)] {
        assert_eq!(wire.ask_ack(&Data { channel, ..wire.data(seq, b"") }).floor, seq);
    }
    let channels: Vec<_> = home.wait_lines(3).iter().map(|line| line.channel).collect();
    assert_eq!(channels, [3, 10, 12]);
}

#[test]
fn a_disk_below_the_reserve_refuses_and_service_resumes_by_itself() {
    const MARGIN: u64 = 2 << 30;
    let home = Home::new();
    let free = free_bytes(home.path());
    assert!(free > 2 * MARGIN, "this test needs {} bytes of disk, there are {free}", 2 * MARGIN);
    home.configure(&format!("reserve_bytes = {}\n", free - MARGIN));
    let server = home.serve();
    let wire = Wire::new(&server, 0xdb);
    assert_eq!(wire.ask_ack(&wire.data(1, b"there is room")).floor, 1);

    let ballast = home.path().join("ballast");
    fill(&ballast, 2 * MARGIN);
    let mut seq = 1;
    let reject = crate::common::wait_for("the server to notice the full disk", || {
        seq += 1;
        match wire.ask(&wire.data(seq, b"perhaps")).is {
            Is::Reject(reject) => Some(reject),
            Is::Ack(_) => None,
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(refusal(&reject), (RejectCode::Storage, seq));
    assert!(reject.retry_after_ms > 0);
    let duplicate = wire.ask_ack(&wire.data(1, b"there is room"));
    assert!(duplicate.duplicate, "what is on disk is still acked");
    assert!(wire.ping().floor >= 1, "a PING needs no space");
    let Is::Reject(reject) = Wire::new(&server, 0xdc).hello(5).is else { panic!("not a REJECT") };
    assert_eq!((refusal(&reject), reject.epoch), ((RejectCode::Storage, 5), 0));

    fs::remove_file(&ballast).unwrap();
    crate::common::wait_for("service to resume", || {
        matches!(wire.ask(&wire.data(seq, b"again")).is, Is::Ack(ack) if ack.floor == seq).then_some(())
    });
    let seqs: Vec<_> = home.wait_lines(usize::try_from(seq).unwrap()).iter().map(|line| line.seq).collect();
    assert_eq!(seqs, (1..=seq).collect::<Vec<_>>(), "each once, the refused one too");
    assert!(server.terminate().success());
}

#[test]
fn a_reject_names_the_epoch_that_was_refused() {
    let home = Home::with_config("channels = [1]\n");
    let server = home.serve();
    for epoch in [1, 2, u32::MAX] {
        let wire = Wire::in_epoch(&server, 0xdd, epoch);
        assert_eq!(wire.ask_reject(&wire.data(1, b"")).epoch, epoch);
    }
}

fn free_bytes(path: &Path) -> u64 {
    let status = nix::sys::statvfs::statvfs(path).expect("a file system");
    status.blocks_available() * status.fragment_size()
}

/// Takes disk space without writing it.
fn fill(path: &Path, bytes: u64) {
    let file = File::create(path).expect("a new file");
    nix::fcntl::posix_fallocate(&file, 0, i64::try_from(bytes).unwrap()).expect("the disk has so much");
}
