//! Whose failure it is that a broker refuses messages without saying why.

use bytes::BytesMut;
use duragram_proto::{ClientId, Epoch, Seq};

use super::*;
use crate::model::{Offset, SessionId};
use crate::process::handler::Outcome;

fn records(offsets: &[u64]) -> Vec<Record<'static>> {
    let session = SessionId { client: ClientId(1), epoch: Epoch::new(1).unwrap() };
    let record = |&offset| Record {
        offset: Offset(offset),
        index: 0,
        session,
        seq: Seq(offset + 1),
        channel: 0,
        received_unix_us: 0,
        asks: false,
        content: Content::Payload(b"x"),
    };
    offsets.iter().map(record).collect()
}

/// What follows when the broker answers for each of these records with one of these codes.
fn call(offsets: &[u64], codes: &[u8], blamed: &mut BTreeSet<(u64, u16)>) -> (Vec<Outcome>, bool) {
    let mut outcomes = Outcomes::new(offsets.len());
    let open = (1u16..).zip(0..offsets.len()).collect();
    let mut exchange = Exchange { outcomes: &mut outcomes, open, unclear: Vec::new(), refused: None, last_taken: None };
    for (id, code) in (1u8..).zip(codes) {
        let reply = reply::take(&mut BytesMut::from(&[0x40, 3, 0, id, *code][..])).unwrap().unwrap();
        assert!(exchange.take(reply).is_ok());
    }
    let is_away = exchange.end(&records(offsets), blamed).is_err();
    ((0..offsets.len()).map(|i| outcomes.outcome(i).clone()).collect(), is_away)
}

#[test]
fn a_record_that_is_refused_while_a_later_one_is_taken_is_to_blame_also_when_it_comes_alone() {
    let mut blamed = BTreeSet::new();
    let (answers, is_away) = call(&[5, 6, 7], &[0, 0x83, 0], &mut blamed);
    assert!(matches!(answers[..], [Outcome::Done, Outcome::Retry(_), Outcome::Done]) && !is_away, "{answers:?}");
    for _ in 0..3 {
        let (answers, is_away) = call(&[6], &[0x83], &mut blamed);
        assert!(matches!(answers[..], [Outcome::Retry(_)]) && !is_away, "{answers:?}");
    }
    assert_eq!(call(&[6], &[0], &mut blamed), (vec![Outcome::Done], false));
    assert!(blamed.is_empty(), "nothing is kept of a record that is done");
}

#[test]
fn a_broker_that_took_messages_and_takes_none_any_more_is_away_and_no_record_is_blamed() {
    for code in [0x80, 0x83] {
        let mut blamed = BTreeSet::new();
        let (answers, is_away) = call(&[5, 6, 7], &[0, code, code], &mut blamed);
        assert_eq!(answers, [Outcome::Done, Outcome::Unanswered, Outcome::Unanswered]);
        assert!(is_away);
        for _ in 0..12 {
            let nothing = (vec![Outcome::Unanswered, Outcome::Unanswered], true);
            assert_eq!(call(&[6, 7], &[code, code], &mut blamed), nothing);
        }
    }
}
