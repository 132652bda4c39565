//! Raw UDP against the real binary: what is acked, how, and to whom (PROTOCOL.md#ack, PROTOCOL.md#rule-1,
//! PROTOCOL.md#rule-2, PROTOCOL.md#rule-3, PROTOCOL.md#rule-5, PROTOCOL.md#rule-6, PROTOCOL.md#ping).

use std::time::Instant;

use crate::common::server::Home;
use crate::common::wire::{Is, Reply, Wire, bytes_of, refusal};
use duragram_proto::Seq;
use duragram_proto::codec::{Datagram, Durability, RejectCode};

const WINDOW: &str = "window = 16\n";

#[test]
fn the_ack_of_a_first_message_is_these_bytes() {
    let home = Home::with_config(WINDOW);
    let server = home.serve();
    let wire = Wire::in_epoch(&server, 0x0102_0304_0506_0708, 0x0a0b_0c0d);
    let sent = Instant::now();
    wire.send(&wire.data(1, b""));
    let ack = wire.reply_bytes();
    let elapsed_us = sent.elapsed().as_micros();

    let mut expected = vec![0x12, 0x40]; // version 1, ACK; COMPLETE, synced to disk, not sealed, not a duplicate
    expected.extend([16, 0]); // credit
    expected.extend([0x0d, 0x0c, 0x0b, 0x0a]); // epoch
    expected.extend([8, 7, 6, 5, 4, 3, 2, 1]); // client
    expected.extend([1, 0, 0, 0, 0, 0, 0, 0]); // floor
    assert_eq!(ack[..24], expected);
    assert_eq!(ack.len(), 32);
    let delay_us = u32::from_le_bytes(ack[24..28].try_into().unwrap());
    assert!(delay_us > 0 && u128::from(delay_us) <= elapsed_us, "{delay_us} of {elapsed_us} µs");
    assert_eq!(ack[28..], crc32fast::hash(&ack[..28]).to_le_bytes());

    let line = &home.wait_lines(1)[0];
    assert_eq!((line.offset, line.index, line.seq, line.channel, line.epoch), (0, 0, 1, 0, 0x0a0b_0c0d));
    assert_eq!((line.client.as_str(), line.payload()), ("0102030405060708", vec![]));
}

#[test]
fn a_duplicate_is_acked_again_and_not_journaled_again() {
    let home = Home::with_config(WINDOW);
    let server = home.serve();
    let wire = Wire::new(&server, 0xa1);
    let first = wire.ask_ack(&wire.data(1, b"once"));
    assert_eq!((first.floor, first.duplicate), (1, false));
    let above = wire.ask_ack(&wire.data(3, b"three, and room for a bitmap"));
    assert_eq!((above.floor, above.above, above.duplicate), (1, vec![3], false));

    for attempt in 1..=7 {
        let mut again = wire.data(1, b"another payload under the same seq");
        again.attempt = attempt;
        let ack = wire.ask_ack(&again);
        assert_eq!((ack.floor, ack.above, ack.duplicate), (1, vec![3], true), "at or below the floor");
        let ack = wire.ask_ack(&wire.data(3, b"three, and room for a bitmap"));
        assert_eq!((ack.floor, ack.above, ack.duplicate), (1, vec![3], true), "above the floor");
    }
    wire.ask_ack(&wire.data(2, b"last"));
    let payloads: Vec<_> = home.wait_lines(3).iter().map(|line| (line.offset, line.seq, line.payload())).collect();
    assert_eq!(
        payloads,
        [(0, 1, b"once".to_vec()), (1, 3, b"three, and room for a bitmap".to_vec()), (2, 2, b"last".to_vec())]
    );
    assert_eq!(server.metric("duragram_datagrams_total", "\"journaled\""), 3.0);
    assert_eq!(server.metric("duragram_datagrams_total", "\"duplicate\""), 14.0);
}

#[test]
fn messages_out_of_order_are_journaled_as_they_come_and_shown_as_bits() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0xa2);
    let room = [0; 128];
    for (seq, floor, above) in [
        (3, 0, vec![3]),
        (8, 0, vec![3, 8]),
        (66, 0, vec![3, 8, 66]),
        (1, 1, vec![3, 8, 66]),
        (2, 3, vec![8, 66]),
        (1000, 3, vec![8, 66, 1000]),
    ] {
        let ack = wire.ask_ack(&wire.data(seq, &room));
        assert_eq!((ack.floor, ack.above, ack.duplicate), (floor, above, false), "after {seq}");
    }
    let order: Vec<_> = home.wait_lines(6).iter().map(|line| (line.offset, line.seq)).collect();
    assert_eq!(order, [(0, 3), (1, 8), (2, 66), (3, 1), (4, 2), (5, 1000)]);
}

#[test]
fn a_bit_beyond_1024_waits_for_the_floor() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0xa3);
    let room = [0; 256];
    assert_eq!(wire.ask_ack(&wire.data(1024, &room)).above, [1024]);
    let ack = wire.ask_ack(&wire.data(1025, &room));
    assert_eq!((ack.floor, ack.above), (0, vec![1024]), "128 bytes of bitmap end at 1024");
    assert!(!ack.complete, "and it does not say that there is nothing beyond");
    let ack = wire.ask_ack(&wire.data(1, &room));
    assert_eq!((ack.floor, ack.above, ack.complete), (1, vec![1024, 1025], true));
}

#[test]
fn the_bitmap_is_cut_to_what_the_request_pays_for() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0xa4);
    let room = [0; 128];
    // Every even seq: a bit in every word of the longest bitmap.
    for seq in (2..=1024).step_by(2) {
        wire.send(&wire.data(seq, &room));
        if seq % 64 == 0 {
            wire.settle();
        }
    }
    for payload in 0..=160 {
        let Reply { is: Is::Ack(ack), len } = wire.ask(&wire.data(2, &vec![0; payload])) else { panic!("not an ACK") };
        let bitmap = (payload / 8 * 8).min(128);
        assert_eq!(len, 32 + bitmap, "for a request of {} bytes", 32 + payload);
        let expected: Vec<u64> = (1..=bitmap as u64 * 8).filter(|seq| seq % 2 == 0).collect();
        assert_eq!(ack.above, expected);
        assert_eq!(ack.complete, bitmap == 128, "for a request of {} bytes", 32 + payload);
    }
}

#[test]
fn credit_is_the_window_and_beyond_it_is_rejected() {
    let home = Home::with_config(WINDOW);
    let server = home.serve();
    let wire = Wire::new(&server, 0xa5);
    let room = [0; 8];
    assert_eq!(wire.ask_ack(&wire.data(16, &room)).credit, 16);
    for seq in [17, 18, 1000] {
        let reject = wire.ask_reject(&wire.data(seq, &room));
        assert_eq!(refusal(&reject), (RejectCode::BeyondWindow, seq));
        assert_eq!((reject.client, reject.epoch), (wire.client, wire.epoch.value()));
    }
    assert_eq!(wire.ask_ack(&wire.data(1, &room)).floor, 1);
    let ack = wire.ask_ack(&wire.data(17, &room));
    assert_eq!((ack.floor, ack.above), (1, vec![16, 17]), "the window moves with the floor");
    let seqs: Vec<_> = home.wait_lines(3).iter().map(|line| line.seq).collect();
    assert_eq!(seqs, [16, 1, 17]);
    assert_eq!(server.metric("duragram_datagrams_total", "\"journaled\""), 3.0);
}

#[test]
fn acks_follow_a_client_to_a_new_port() {
    let home = Home::new();
    let server = home.serve();
    let mut wire = Wire::new(&server, 0xa6);
    assert_eq!(wire.ask_ack(&wire.data(1, b"from the first port")).floor, 1);
    let first = wire.rebind();
    assert_eq!(wire.ask_ack(&wire.data(2, b"from the second")).floor, 2);
    assert!(wire.ask_ack(&wire.data(1, b"again, from the second")).duplicate);
    let second = wire.rebind();
    assert_eq!(wire.ping().floor, 2, "also a PING's");
    for old in [first, second] {
        old.set_nonblocking(true).unwrap();
        assert!(old.recv(&mut [0; 64]).is_err(), "nothing more goes to an old port");
    }
}

#[test]
fn a_commit_acks_each_session_once() {
    let home = Home::new();
    let server = home.serve();
    let (one, two) = (Wire::new(&server, 0xa7), Wire::new(&server, 0xa8));
    let before = server.metric("duragram_commits_total", "");
    for seq in 1..=100 {
        one.send(&one.data(seq, b""));
        two.send(&two.data(seq, b""));
    }
    let acks_until_100 = |wire: &Wire| {
        let mut floors = vec![wire.ack().floor];
        while floors.last() != Some(&100) {
            floors.push(wire.ack().floor);
        }
        assert!(floors.is_sorted_by(|a, b| a < b), "each ack says something new: {floors:?}");
        assert_eq!(wire.drain(), [], "none after the last");
        floors.len()
    };
    let most = acks_until_100(&one).max(acks_until_100(&two));
    let commits = server.metric("duragram_commits_total", "") - before;
    assert!(most as f64 <= commits, "{most} acks for one session in {commits} commits");
}

#[test]
fn a_ping_shows_a_session_as_it_is() {
    let home = Home::with_config(WINDOW);
    let server = home.serve();
    let wire = Wire::new(&server, 0xa9);
    wire.ask_ack(&wire.data(1, b""));
    wire.ask_ack(&wire.data(3, b""));
    let ack = wire.ping();
    assert_eq!((ack.client, ack.epoch, ack.floor, ack.credit), (wire.client, wire.epoch, 1, 16));
    assert_eq!((ack.duplicate, ack.durability), (true, Durability::Synced));
    assert!(ack.above.is_empty(), "a PING pays for no bitmap");
    assert!(!ack.complete, "so it does not tell of 3");
    wire.ask_ack(&wire.data(2, b""));
    let ack = wire.ping();
    assert_eq!((ack.floor, ack.complete), (3, true));
}

#[test]
fn a_ping_of_an_unknown_session_opens_none() {
    let home = Home::with_config("sessions_max = 1\n");
    let server = home.serve();
    for epoch in 1..=3 {
        let stranger = Wire::in_epoch(&server, 0xaa, epoch);
        let ack = stranger.ping();
        assert_eq!((ack.client, ack.epoch, ack.floor, ack.duplicate), (stranger.client, stranger.epoch, 0, true));
    }
    let wire = Wire::new(&server, 0xab);
    assert_eq!(wire.ask_ack(&wire.data(1, b"the one place is free")).floor, 1);
}

#[test]
fn epochs_of_a_client_are_sessions_of_their_own() {
    let home = Home::new();
    let server = home.serve();
    let old = Wire::in_epoch(&server, 0xac, 1);
    let new = Wire::in_epoch(&server, 0xac, 2);
    assert_eq!(old.ask_ack(&old.data(1, b"one/1")).floor, 1);
    assert_eq!(old.ask_ack(&old.data(2, b"one/2")).floor, 2);
    let ack = new.ask_ack(&new.data(1, b"two/1"));
    assert_eq!((ack.epoch, ack.floor, ack.duplicate), (new.epoch, 1, false));
    let sink: Vec<_> = home.wait_lines(3).iter().map(|line| (line.epoch, line.seq, line.payload())).collect();
    assert_eq!(sink, [(1, 1, b"one/1".to_vec()), (1, 2, b"one/2".to_vec()), (2, 1, b"two/1".to_vec())]);
}

#[test]
fn the_records_of_a_batch_share_seq_and_offset() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0xad);
    let payload = crate::common::wire::batch_of(&[b"first", b"", b"\xff\xfe not text"]);
    let mut batch = wire.data(1, &payload);
    batch.batch = true;
    batch.channel = 7;
    assert_eq!(wire.ask_ack(&batch).floor, 1);
    assert_eq!(wire.ask_ack(&wire.data(2, b"after")).floor, 2);
    let sink: Vec<_> = home.wait_lines(4).iter().map(|l| (l.offset, l.index, l.seq, l.channel, l.payload())).collect();
    assert_eq!(
        sink,
        [
            (0, 0, 1, 7, b"first".to_vec()),
            (0, 1, 1, 7, vec![]),
            (0, 2, 1, 7, b"\xff\xfe not text".to_vec()),
            (1, 0, 2, 0, b"after".to_vec()),
        ]
    );
}

#[test]
fn an_unknown_session_opens_where_its_client_is() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0xae);
    let mut data = wire.data(10, b"the lowest that the client holds is 7");
    data.span = 3;
    let ack = wire.ask_ack(&data);
    assert_eq!((ack.floor, ack.above), (6, vec![10]));

    let far = Wire::new(&server, 0xaf);
    let mut data = far.data(1, b"a client after years");
    data.seq = Seq(u64::MAX / 2);
    data.span = 0;
    assert_eq!(far.ask_ack(&data).floor, u64::MAX / 2);

    let lines = home.wait_lines(2);
    assert!(lines.iter().all(|line| line.gap.is_none()), "the server has lost nothing: {lines:?}");
    assert_eq!(server.metric("duragram_lost_seqs_total", ""), 0.0);
}

#[test]
fn the_last_seq_of_all_is_acked() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0xb0);
    let mut data = wire.data(1, b"the end of the sequence space");
    (data.seq, data.span) = (Seq(u64::MAX), 0);
    assert_eq!(wire.ask_ack(&data).floor, u64::MAX);
    assert!(wire.ask_ack(&data).duplicate);
    assert_eq!(home.wait_lines(1)[0].seq, u64::MAX);
}

#[test]
fn datagrams_that_the_kernel_joined_are_taken_one_by_one() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0xb1);
    // Equal lengths but the last: what one system call with GSO sends, and GRO hands over as one.
    let payloads: Vec<_> = (1..=40).map(|n| if n < 40 { vec![n; 100] } else { vec![n; 7] }).collect();
    let datagrams = (1..).zip(&payloads).map(|(seq, payload)| bytes_of(&Datagram::Data(wire.data(seq, payload))));
    wire.send_joined(&datagrams.collect::<Vec<_>>().concat(), 132);
    while wire.ack().floor < 40 {}
    let lines: Vec<_> = home.wait_lines(40).iter().map(|line| (line.seq, line.payload())).collect();
    assert_eq!(lines, (1..).zip(payloads).collect::<Vec<_>>());
}

#[test]
fn a_span_as_long_as_the_window_opens_no_session() {
    let home = Home::with_config("window = 16\nsessions_max = 1\n");
    let server = home.serve();
    let stranger = Wire::new(&server, 0xb2);
    assert_eq!(refusal(&stranger.ask_reject(&stranger.data(17, b""))), (RejectCode::BeyondWindow, 17));
    let wire = Wire::new(&server, 0xb3);
    let ack = wire.ask_ack(&wire.data(16, b"the longest span that fits"));
    assert_eq!((ack.floor, ack.above), (0, vec![16]), "the one place was free");
}
