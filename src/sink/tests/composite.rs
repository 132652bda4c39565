use std::sync::{Arc, Mutex};

use super::record;
use crate::model::Record;
use crate::process::handler::{Answer, Handler, HandlerError, Outcomes};
use crate::sink::Composite;

/// What a child does with the record at an offset.
type Script = Box<dyn FnMut(u64) -> Answer + Send>;

struct Child {
    script: Script,
    seen: Arc<Mutex<Vec<u64>>>,
    state: &'static [u8],
}

impl Handler for Child {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        for (i, record) in records.iter().enumerate() {
            self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(record.offset.0);
            match (self.script)(record.offset.0) {
                Answer::Done => outcomes.done(i),
                Answer::Retry(reason) if reason == "panic" => panic!("as told"),
                Answer::Retry(reason) => outcomes.retry(i, reason),
                Answer::GiveUp(reason) => outcomes.give_up(i, reason),
                Answer::Unanswered => return outcomes.unavailable("away"),
            }
        }
    }

    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        if self.state.is_empty() { Err(HandlerError::new("cannot")) } else { Ok(self.state.to_vec()) }
    }

    fn reopen(&mut self) -> Result<(), HandlerError> {
        self.seen.lock().unwrap().push(u64::MAX);
        if self.state.is_empty() { Err(HandlerError::new("cannot")) } else { Ok(()) }
    }
}

struct Family {
    composite: Composite,
    seen: Vec<Arc<Mutex<Vec<u64>>>>,
}

fn family(children: Vec<(&'static [u8], Script)>) -> Family {
    let mut seen = Vec::new();
    let child = |(name, (state, script)): (char, (&'static [u8], Script))| {
        let log = Arc::new(Mutex::new(Vec::new()));
        seen.push(Arc::clone(&log));
        (name.to_string(), Box::new(Child { script, seen: log, state }) as Box<dyn Handler>)
    };
    let composite = Composite::new(('a'..).zip(children).map(child).collect()).unwrap();
    Family { composite, seen }
}

impl Family {
    fn present(&mut self, offsets: &[u64]) -> Outcomes {
        let records: Vec<_> = offsets.iter().map(|&offset| record(offset, b"x")).collect();
        let mut outcomes = Outcomes::new(records.len());
        self.composite.process(&records, &mut outcomes);
        outcomes
    }

    /// What the nth child has seen since the last call.
    fn seen(&self, nth: usize) -> Vec<u64> {
        std::mem::take(&mut self.seen[nth].lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

fn always(answer: Answer) -> Script {
    Box::new(move |_| answer.clone())
}

fn retry(reason: &str) -> Answer {
    Answer::Retry(reason.into())
}

#[test]
fn a_retry_goes_only_to_those_that_lack_the_record() {
    let mut failures = 2;
    let second = move |offset| {
        if offset == 1 && failures > 0 {
            failures -= 1;
            return retry("busy");
        }
        Answer::Done
    };
    let mut family = family(vec![(b"a", always(Answer::Done)), (b"b", Box::new(second)), (b"c", always(Answer::Done))]);
    let outcomes = family.present(&[0, 1, 2]);
    assert_eq!(outcomes.answer(0), &Answer::Done);
    assert_eq!(outcomes.answer(1), &retry("b: busy"));
    assert_eq!(outcomes.answer(2), &Answer::Done);
    assert_eq!([family.seen(0), family.seen(1), family.seen(2)], [vec![0, 1, 2], vec![0, 1, 2], vec![0, 1, 2]]);
    assert_eq!(family.present(&[1]).answer(0), &retry("b: busy"));
    assert_eq!(family.present(&[1]).answer(0), &Answer::Done);
    assert_eq!([family.seen(0), family.seen(1), family.seen(2)], [vec![], vec![1, 1], vec![]]);
    assert!(family.present(&[3, 4]).all_done());
    assert_eq!([family.seen(0), family.seen(1)], [vec![3, 4], vec![3, 4]]);
}

#[test]
fn a_record_that_one_gives_up_still_goes_to_all_and_is_given_up_when_all_have_answered() {
    let mut failures = 1;
    let second = move |_| {
        if std::mem::take(&mut failures) > 0 { retry("busy") } else { Answer::Done }
    };
    let first = always(Answer::GiveUp("no".into()));
    let mut family = family(vec![(b"a", first), (b"b", Box::new(second))]);
    assert_eq!(family.present(&[0]).answer(0), &retry("b: busy"));
    assert_eq!(family.present(&[0]).answer(0), &Answer::GiveUp("a: no".into()));
    assert_eq!([family.seen(0), family.seen(1)], [vec![0], vec![0, 0]]);
}

#[test]
fn an_outage_of_one_holds_what_it_lacks_and_the_others_go_on() {
    let mut family = family(vec![(b"a", always(Answer::Unanswered)), (b"b", always(Answer::Done))]);
    let outcomes = family.present(&[0, 1]);
    assert_eq!(outcomes.unavailable_reason(), Some("a: away"));
    assert_eq!([outcomes.answer(0), outcomes.answer(1)], [&Answer::Unanswered; 2]);
    family.present(&[0, 1]);
    assert_eq!(family.seen(1), [0, 1], "each once");
}

#[test]
fn after_a_panic_those_that_were_done_do_not_get_the_record_again() {
    let mut panics = 1;
    let second = move |offset| {
        if offset == 1 && std::mem::take(&mut panics) > 0 { retry("panic") } else { Answer::Done }
    };
    let mut family = family(vec![(b"a", always(Answer::Done)), (b"b", Box::new(second))]);
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| family.present(&[0, 1, 2])));
    assert!(panic.is_err());
    // The lane presents them one by one.
    for offset in 0..3 {
        assert!(family.present(&[offset]).all_done());
    }
    assert_eq!(family.seen(0), [0, 1, 2]);
}

#[test]
fn each_ones_state_comes_back_under_its_name() {
    let mut composite = family(vec![(b"\xff\0a", always(Answer::Done)), (b"b", always(Answer::Done))]).composite;
    let state = composite.flush().unwrap();
    assert_eq!(Composite::state_of("a", &state), Some(b"\xff\0a".to_vec()));
    assert_eq!(Composite::state_of("b", &state), Some(b"b".to_vec()));
    for (name, state) in [("c", &state[..]), ("a", b"garbage"), ("a", b"")] {
        assert_eq!(Composite::state_of(name, state), None);
    }
}

#[test]
fn one_that_fails_keeps_no_other_from_its_flush_or_reopening() {
    let mut family = family(vec![(b"", always(Answer::Done)), (b"b", always(Answer::Done))]);
    assert_eq!(family.composite.flush().unwrap_err().to_string(), "a: cannot");
    assert_eq!(family.composite.reopen().unwrap_err().to_string(), "a: cannot");
    assert_eq!([family.seen(0), family.seen(1)], [[u64::MAX], [u64::MAX]]);
}

#[test]
fn what_was_partly_done_is_forgotten_when_the_lane_has_gone_on() {
    let mut family = family(vec![(b"a", always(Answer::Done)), (b"b", always(retry("busy")))]);
    for offset in 0..1000 {
        // The lane gives each up after one attempt.
        family.present(&[offset]);
    }
    family.composite.flush().unwrap();
    assert_eq!(family.composite.remembered(), 0);
}

#[test]
fn who_has_a_record_is_remembered_whatever_other_records_come_before_it_is_finished() {
    for other in [2, 9] {
        let mut failures = 2;
        let second = move |offset| {
            if offset == 5 && failures > 0 {
                failures -= 1;
                return retry("busy");
            }
            Answer::Done
        };
        let mut family = family(vec![(b"a", always(Answer::Done)), (b"b", Box::new(second))]);
        assert_eq!(family.present(&[5]).answer(0), &retry("b: busy"));
        assert!(family.present(&[other]).all_done(), "a dead letter that is retried");
        assert_eq!(family.present(&[5]).answer(0), &retry("b: busy"));
        assert!(family.present(&[5]).all_done());
        assert_eq!([family.seen(0), family.seen(1)], [vec![5, other], vec![5, other, 5, 5]]);
    }
}

#[test]
fn names_must_be_unique_and_their_number_is_bounded() {
    let child = |name: usize| (format!("{name}"), Box::new(super::null::Null) as Box<dyn Handler>);
    assert!(Composite::new(vec![]).is_err());
    assert_eq!(Composite::new(vec![child(1), child(2), child(1)]).unwrap_err().to_string(), "sink 1 is given twice");
    let mut largest = Composite::new((0..super::COMPOSITE_MAX).map(child).collect()).unwrap();
    let mut outcomes = Outcomes::new(1);
    largest.process(&[record(0, b"x")], &mut outcomes);
    assert!(outcomes.all_done());
    assert!(Composite::new((0..=super::COMPOSITE_MAX).map(child).collect()).is_err());
}
