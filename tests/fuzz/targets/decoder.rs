//! Bytes from the network into the decoder of plain datagrams, as they come and under a right checksum.

use duragram::dialect::Arrivals;
use duragram::dialect::duragram::{Admission, AdmissionConfig};
use duragram::model::Peer;
use duragram::net::Slab;
use duragram_proto::Seq;
use duragram_proto::codec::{
    CRC_LEN, Data, Datagram, DecodeError, HEADER_LEN, MIN_LEN, Records, RejectCode, decode, decode_version_refusal,
    is_batch,
};

pub(crate) fn decoder(input: &[u8]) {
    check(input);
    check(&under_a_right_checksum(input.to_vec()));
    // A sealed one with its SEALED bit off is one more way to come to the types.
    let mut plain = input.to_vec();
    if let [first, flags, ..] = &mut plain[..] {
        *first = 0x10 | *first & 0x0f;
        *flags &= !8;
    }
    check(&under_a_right_checksum(plain));
    records(input);
}

fn under_a_right_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(body) = bytes.len().checked_sub(CRC_LEN) {
        let checksum = crc32fast::hash(&bytes[..body]);
        bytes[body..].copy_from_slice(&checksum.to_le_bytes());
    }
    bytes
}

fn check(bytes: &[u8]) {
    let long_enough = bytes.len() >= MIN_LEN;
    let sealed = long_enough && bytes[0] >> 4 == 1 && bytes[1] & 8 != 0;
    let body = bytes.len().saturating_sub(CRC_LEN);
    let sound = long_enough && crc32fast::hash(&bytes[..body]).to_le_bytes() == bytes[body..];
    match decode(bytes) {
        Ok(datagram) => {
            assert!(sound && !sealed && bytes[0] >> 4 == 1);
            decoded(bytes, &datagram);
        }
        Err(DecodeError::Truncated) => assert!(!long_enough),
        Err(DecodeError::Sealed) => assert!(sealed),
        Err(DecodeError::Checksum) => assert!(!sound && !sealed),
        Err(DecodeError::Version { client, epoch, seq }) => {
            assert!(sound && bytes[0] >> 4 != 1 && bytes[0] & 0x0f != 3);
            assert_eq!((client.0, epoch, seq), (u64_at(bytes, 8), u32_at(bytes, 4), u64_at(bytes, 16)));
        }
        Err(DecodeError::UnknownType) => {
            let kind = bytes[0] & 0x0f;
            assert!(sound && (!(1..=8).contains(&kind) || bytes[0] >> 4 != 1 && kind == 3));
        }
        Err(DecodeError::Malformed | DecodeError::BrokenBatch) => assert!(sound && !sealed),
        // Of the sealed decoder.
        #[allow(unreachable_patterns)]
        Err(other) => panic!("{other:?} of a plain datagram"),
    }
    if let Some(reject) = decode_version_refusal(bytes) {
        assert!(sound && bytes[0] >> 4 != 1 && reject.code == RejectCode::Version);
    }
    counted_once(bytes);
}

/// What was understood is what stands there (PROTOCOL.md has the places), and says the same when it is sent again.
fn decoded(bytes: &[u8], datagram: &Datagram<'_>) {
    let mut again = vec![0xaa; bytes.len()];
    assert_eq!(datagram.encode(&mut again), Ok(bytes.len()));
    assert_eq!(decode(&again).as_ref(), Ok(datagram));
    let (client, seq, small) = match datagram {
        Datagram::Data(data) => {
            assert_eq!(again, bytes, "DATA has no bit without a meaning");
            assert_eq!(data.epoch.value(), u32_at(bytes, 4));
            assert_eq!(data.payload, &bytes[HEADER_LEN + 4..bytes.len() - CRC_LEN]);
            data_keeps_its_rules(data);
            (data.client, data.seq.0, data.span)
        }
        Datagram::Ack(ack) => {
            assert_eq!(ack.epoch.value(), u32_at(bytes, 4));
            assert!(ack.bitmap.len() <= 128 && ack.bitmap.len().is_multiple_of(8));
            (ack.client, ack.floor.0, ack.credit)
        }
        // A code without a name keeps none of its number.
        Datagram::Reject(reject) => (reject.client, reject.refused, u16_at(bytes, 2)),
        Datagram::Hello(hello) => (hello.client, hello.nonce, 0),
        Datagram::Welcome(welcome) => (welcome.client, welcome.nonce, welcome.credit),
        Datagram::Ping(ping) => (ping.client, 0, 0),
        Datagram::Answer(answer) => (answer.client, answer.seq.0, u16_at(bytes, 2)),
        Datagram::Take(take) => (take.client, take.seq.0, take.span),
    };
    assert_eq!((client.0, seq, small), (u64_at(bytes, 8), u64_at(bytes, 16), u16_at(bytes, 2)));
}

fn data_keeps_its_rules(data: &Data<'_>) {
    assert!(data.seq > Seq::ZERO && u64::from(data.span) < data.seq.0);
    assert_eq!(data.base().0, data.seq.0 - u64::from(data.span));
    if data.is_supported() {
        assert!(!data.batch || is_batch(data.payload));
        let records: usize = data.records().map(|record| record.len() + if data.batch { 2 } else { 0 }).sum();
        assert_eq!(records, data.payload.len());
    }
}

/// Admission makes a request of each datagram or counts it as dropped.
fn counted_once(bytes: &[u8]) {
    let mut arrivals = Arrivals::new(Slab::new(0));
    let peer = Peer::new(([127, 0, 0, 1], 1).into(), 0);
    arrivals.slab.push(peer, bytes);
    arrivals.admit(&mut Admission::new(AdmissionConfig::plain(1472)));
    let dropped = arrivals.dropped();
    let sum = dropped.truncated
        + dropped.checksum
        + dropped.malformed
        + dropped.unknown_type
        + dropped.wrong_direction
        + dropped.too_long
        + dropped.sealed;
    assert_eq!(arrivals.requests().len() as u64 + sum, 1);
    assert_eq!(arrivals.slab.received_bytes(), bytes.len() as u64);
}

/// A run of records is read to its end, also one that is none.
fn records(payload: &[u8]) {
    let read: usize = Records::new(payload).map(|record| record.len() + 2).sum();
    assert!(read <= payload.len() || !is_batch(payload));
    if is_batch(payload) {
        assert_eq!(read, payload.len());
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("2 bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}
