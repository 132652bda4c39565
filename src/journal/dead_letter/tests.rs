use super::*;

pub(crate) fn letter(offset: u64, index: u16) -> DeadLetter {
    DeadLetter {
        id: DeadLetterId { offset: Offset(offset), index, sink: SinkId::EMBEDDED },
        session: SessionId { client: ClientId(0xa1), epoch: Epoch::new(3).unwrap() },
        seq: Seq(9),
        channel: 5,
        received_unix_us: 1_700_000_000_000_000,
        payload: vec![1, 2, 3],
        gap_from: None,
        error: "the printer is on fire".into(),
        attempts: 10,
        since_unix_us: 1_700_000_000_000_001,
        told_failed: false,
    }
}

#[test]
fn a_dead_letter_comes_back_as_it_was_stored_under_its_own_key_alone() {
    let letter = letter(7, 1);
    let value = letter.encode();
    assert_eq!(DeadLetter::decode(&letter.id.key(), &value), Ok(letter.clone()));
    let other = DeadLetterId { index: 2, ..letter.id };
    assert_eq!(DeadLetter::decode(&other.key(), &value), Err(RecordError::Checksum));
    assert!(DeadLetter::decode(&letter.id.key()[1..], &value).is_err());
    let gap = DeadLetter { payload: Vec::new(), gap_from: Some(Seq(5)), ..letter };
    assert_eq!(DeadLetter::decode(&gap.id.key(), &gap.encode()), Ok(gap));
}

#[test]
fn a_change_of_any_byte_of_a_record_is_detected() {
    let letter = letter(7, 1);
    let good = letter.encode();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert!(DeadLetter::decode(&letter.id.key(), &bad).is_err(), "bit {bit} of byte {at}");
        }
        assert!(DeadLetter::decode(&letter.id.key(), &good[..at]).is_err(), "cut to {at} bytes");
    }
}

/// The format on disk: whoever changes these bytes must raise `Stored::VERSION`.
#[test]
fn the_format_is_that_of_the_golden_dead_letter() {
    assert_eq!(letter(7, 1).encode(), include_bytes!("../testdata/dead_v1.bin"));
    let told = DeadLetter { told_failed: true, ..letter(7, 1) };
    assert_eq!(told.encode(), include_bytes!("../testdata/dead_told_v1.bin"));
    assert_eq!(DeadLetter::decode(&told.id.key(), &told.encode()), Ok(told));
}

#[test]
fn a_letter_with_flags_that_are_not_known_is_refused() {
    let letter = letter(7, 1);
    let stored = Stored { flags: 2, ..letter.stored() };
    let value = envelope::encode(&letter.id.key(), &stored);
    assert!(matches!(DeadLetter::decode(&letter.id.key(), &value), Err(RecordError::Malformed(_))));
}

/// The same record's, of a configured sink.
pub(crate) fn letter_of(sink: u128, offset: u64, index: u16) -> DeadLetter {
    let letter = letter(offset, index);
    DeadLetter { id: DeadLetterId { sink: SinkId(sink), ..letter.id }, ..letter }
}

#[test]
fn a_sinks_letter_comes_back_under_its_own_key_and_under_no_other_sinks() {
    let letter = letter_of(1 << 127 | 5, 7, 1);
    let (key, value) = (letter.id.key(), letter.encode());
    assert_eq!(DeadLetter::decode(&key, &value), Ok(letter.clone()));
    for sink in [SinkId::EMBEDDED, SinkId(5), SinkId(u128::MAX)] {
        let other = DeadLetterId { sink, ..letter.id };
        assert_eq!(DeadLetter::decode(&other.key(), &value), Err(RecordError::Checksum));
    }
    for at in 0..key.len() {
        for bit in 0..8 {
            let mut bad = key.clone();
            bad[at] ^= 1 << bit;
            assert!(DeadLetter::decode(&bad, &value).is_err(), "bit {bit} of byte {at} of the key");
        }
    }
}

/// The format on disk: whoever changes these keys must raise the directory's format.
#[test]
fn a_key_is_the_offset_the_index_and_for_a_configured_sink_its_id() {
    let offset_and_index = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
    let embedded = letter(0x0102_0304_0506_0708, 0x090a).id;
    assert_eq!(embedded.key(), offset_and_index);
    let of_sink = DeadLetterId { sink: SinkId(0xabcd << 64 | 0xef), ..embedded };
    let id = [0, 0, 0, 0, 0, 0, 0xab, 0xcd, 0, 0, 0, 0, 0, 0, 0, 0xef];
    assert_eq!(of_sink.key(), [&offset_and_index[..], &id].concat());
}

#[test]
fn a_key_that_is_no_ids_is_refused() {
    for id in [letter(7, 1).id, letter_of(9, 7, 1).id] {
        assert_eq!(DeadLetterId::from_key(&id.key()), Some(id));
    }
    let whole = [&letter(7, 1).id.key()[..], &[1; 17]].concat();
    for len in (0..=whole.len()).filter(|len| ![10, 26].contains(len)) {
        assert_eq!(DeadLetterId::from_key(&whole[..len]), None, "{len} bytes");
    }
    let embedded_written_out = [&letter(7, 1).id.key()[..], &[0; 16]].concat();
    assert_eq!(DeadLetterId::from_key(&embedded_written_out), None, "an id has one key");
}

/// In their order, each with the one that comes right after it.
fn ids() -> Vec<DeadLetterId> {
    let mut ids = Vec::new();
    for (offset, index) in [(0, 0), (0, 1), (0, 256), (1, 0), (256, 0), (u64::MAX, u16::MAX)] {
        for sink in [0, 1, 256, 1 << 64, u128::MAX] {
            ids.push(letter_of(sink, offset, index).id);
        }
    }
    ids
}

#[test]
fn keys_sort_as_ids_do() {
    assert!(ids().is_sorted() && ids().into_iter().map(DeadLetterId::key).is_sorted());
    assert!(ids().iter().all(|id| id.key()[..] < DeadLetterId::KEYS_END[..]));
}

#[test]
fn the_next_id_is_that_of_the_next_sink_record_or_entry_and_none_lies_between() {
    let table = [
        ((0, 7, 1), Some((1, 7, 1))),
        ((5, 7, 1), Some((6, 7, 1))),
        ((u128::MAX, 7, 1), Some((0, 7, 2))),
        ((u128::MAX, 7, u16::MAX), Some((0, 8, 0))),
        ((u128::MAX, u64::MAX, u16::MAX), None),
    ];
    for ((sink, offset, index), next) in table {
        let expected = next.map(|(sink, offset, index)| letter_of(sink, offset, index).id);
        assert_eq!(letter_of(sink, offset, index).id.next(), expected);
    }
    for pair in ids().windows(2) {
        assert!(pair[0] < pair[0].next().unwrap() && pair[0].next().unwrap() <= pair[1], "{pair:?}");
    }
}
