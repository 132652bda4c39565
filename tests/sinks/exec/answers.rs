//! What a child says of its records, and what is no answer.

use std::time::Instant;

use duragram::process::{Outcome, Outcomes, Record};

use super::{Place, exec, process, reason};
use crate::common::{PATIENCE, wait_for};
use crate::sinks::support::lane::messages;

#[test]
fn answers_come_in_any_order_and_each_is_its_own_records() {
    let place = Place::new();
    let mut child = exec(place.python(
        r#"
lines = [json.loads(sys.stdin.readline()) for _ in range(4)]
say(lines[3], done=True, answer="thanks")
say(lines[1], retry="busy")
say(lines[0], give_up="no such user")
say(lines[2], done=True, answer_base64="AP8=")
sys.stdin.read()
"#,
    ));
    let outcomes = process(&mut *child, &messages(0, 4));
    assert_eq!(outcomes.outcome(0), &Outcome::GiveUp("no such user".into()));
    assert_eq!(outcomes.outcome(1), &Outcome::Retry("busy".into()));
    assert_eq!(outcomes.outcome(2), &Outcome::Done);
    assert_eq!(outcomes.outcome(3), &Outcome::Done);
    assert_eq!(outcomes.unavailable_reason(), None);
    let answers = [0, 1, 2, 3].map(|i| outcomes.body(i).map(|body| body.to_vec()));
    assert_eq!(answers, [None, None, Some(vec![0, 255]), Some(b"thanks".to_vec())]);
}

#[test]
fn a_child_hears_that_somebody_waits_and_an_answer_that_is_too_long_costs_the_record_nothing() {
    let place = Place::new();
    let mut child = exec(place.python(
        r#"
for record in records():
    say(record, done=True, answer="y" * (1025 if "ask" in record else 3))
"#,
    ));
    let messages = messages(0, 2);
    let records = [Record { asks: true, ..messages[0].record() }, messages[1].record()];
    let mut outcomes = Outcomes::new(2);
    child.process(&records, &mut outcomes);
    assert!((0..2).all(|i| *outcomes.outcome(i) == Outcome::Done), "{outcomes:?}");
    assert_eq!([0, 1].map(|i| outcomes.body(i).map(|body| body.len())), [None, Some(3)]);
}

#[test]
fn what_is_no_answer_is_named_and_confirms_nothing() {
    let place = Place::new();
    for (said, named) in [
        ("hello", "a line that is no answer (expected value at line 1 column 1): hello"),
        (r#"{"offset":7,"index":0,"done":false}"#, "a line that is no answer (exactly one of"),
        (r#"{"offset":8,"index":0,"done":true}"#, "an answer to a record that it was not given: {\"offset\":8,"),
        (r#"{"offset":7,"index":1,"done":true}"#, "an answer to a record that it was not given: {\"offset\":7,"),
    ] {
        let reason = reason(place.shell(&format!("read line; echo '{said}'; cat >/dev/null")), PATIENCE);
        assert!(reason.starts_with(&format!("the sink's child wrote to its standard output {named}")), "{reason}");
    }
}

#[test]
fn a_second_answer_is_named_and_the_first_one_counts() {
    let answer = r#"echo '{"offset":7,"index":0,"done":true}'"#;
    let mut child = exec(format!("read line; {answer}; {answer}; cat >/dev/null"));
    let outcomes = process(&mut *child, &messages(7, 2));
    assert_eq!(outcomes.outcome(0), &Outcome::Done);
    assert_eq!(outcomes.outcome(1), &Outcome::Unanswered);
    let reason = outcomes.unavailable_reason().expect("a reason");
    assert!(reason.contains("a second answer to a record"), "{reason}");
}

#[test]
fn an_answer_that_was_given_before_it_was_asked_for_confirms_nothing() {
    let place = Place::new();
    let answer = |offset| format!(r#"echo '{{"offset":{offset},"index":0,"done":true}}'"#);
    let program = format!("read line; {}; sleep 0.2; {}; echo > early; cat >/dev/null", answer(7), answer(8));
    let mut child = exec(place.shell(&program));
    assert_eq!(process(&mut *child, &messages(7, 1)).outcome(0), &Outcome::Done);
    wait_for("the early answer", || place.path("early").exists().then_some(()));
    let outcomes = process(&mut *child, &messages(8, 1));
    assert_eq!(outcomes.outcome(0), &Outcome::Unanswered);
    assert!(outcomes.unavailable_reason().expect("a reason").contains("an answer to a record that it was not given"));
}

#[test]
fn a_line_without_end_is_cut_short() {
    let started = Instant::now();
    let reason = reason("read line; head -c 1000000000 /dev/zero; sleep 1000".into(), PATIENCE);
    assert!(reason.contains("a line of more than 524288 bytes"), "{reason}");
    assert!(started.elapsed() < PATIENCE);
}
