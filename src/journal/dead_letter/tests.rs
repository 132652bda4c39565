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
}

#[test]
fn keys_sort_as_ids_do() {
    let ids = [(0, 0), (0, 1), (0, 256), (1, 0), (256, 0), (u64::MAX, u16::MAX)];
    let ids = ids.map(|(offset, index)| DeadLetterId { offset: Offset(offset), index, sink: SinkId::EMBEDDED });
    assert!(ids.is_sorted() && ids.map(DeadLetterId::key).is_sorted());
}
