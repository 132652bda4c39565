//! Which sink answers, and that one that waits holds up nobody's answers but its own.

use std::fs;

use duragram_proto::codec::AnswerStatus::{Done, Failed, Gone, Pending};

use super::CONFIG;
use crate::common::server::Home;
use crate::common::service::Service;
use crate::common::wait_for;
use crate::common::wire::Wire;

/// A command that runs this Python program, which has `records` and `say`.
fn python(home: &Home, program: &str) -> String {
    let path = home.path().join("handler.py");
    let prelude = "import json, os, sys\n\
                   def say(record, **verdict):\n    \
                   print(json.dumps({'offset': record['offset'], 'index': record['index'], **verdict}), flush=True)\n";
    fs::write(&path, format!("{prelude}os.chdir({:?})\n{program}", home.path())).unwrap();
    format!("exec:exec python3 '{}'", path.display())
}

#[test]
fn a_child_answers_with_text_and_with_bytes_and_gives_up() {
    let home = Home::with_config(CONFIG);
    let child = python(
        &home,
        "for line in sys.stdin:
    record = json.loads(line)
    assert record['ask'] is True
    match record['payload']:
        case 'text': say(record, done=True, answer='ä')
        case 'bytes': say(record, done=True, answer_base64='AP8=')
        case 'nothing': say(record, done=True)
        case _: say(record, give_up='no such thing')
",
    );
    let server = home.serve_sinks(&[&child]);
    let wire = Wire::new(&server, 0xf1);
    let expected =
        [("text", Done, "ä".as_bytes()), ("bytes", Done, &[0, 255]), ("nothing", Done, b""), ("else", Failed, b"")];
    for (seq, (payload, status, body)) in (1..).zip(expected) {
        wire.ask_ack(&wire.asking(seq, payload.as_bytes()));
        let answer = wire.taken(wire.held(seq, 0));
        assert_eq!((answer.status, &answer.body[..]), (status, body), "{payload}");
    }
}

#[test]
fn a_record_that_is_tried_again_and_again_does_not_hold_the_answers_of_others() {
    let home = Home::with_config(&format!("{CONFIG}[retry]\nattempts_max = 65535\n"));
    let child = python(
        &home,
        "import time
for line in sys.stdin:
    record = json.loads(line)
    while record['payload'] == 'gate' and not os.path.exists('open'):
        open('busy', 'w').close()
        time.sleep(0.01)
    if record['payload'] == 'poison' and not os.path.exists('cured'):
        say(record, retry='busy')
    else:
        say(record, done=True, answer=record['payload'])
",
    );
    let server = home.serve_sinks(&[&child]);
    let (poisoned, wire) = (Wire::new(&server, 0xf2), Wire::new(&server, 0xf3));
    // What comes while the child is busy is given to it in one batch; later batches wait for the poisoned record.
    wire.ask_ack(&wire.asking(1, b"gate"));
    wait_for("the child to be busy", || home.path().join("busy").exists().then_some(()));
    poisoned.ask_ack(&poisoned.asking(1, b"poison"));
    for seq in 2..=20 {
        wire.ask_ack(&wire.asking(seq, format!("order {seq}").as_bytes()));
    }
    fs::write(home.path().join("open"), "").unwrap();
    for seq in 2..=20 {
        assert_eq!(wire.taken(wire.held(seq, 0)).said(), (Done, format!("order {seq}")));
    }
    assert_eq!(poisoned.taken(poisoned.take(1, 0)).status, Pending);
    fs::write(home.path().join("cured"), "").unwrap();
    assert_eq!(poisoned.taken(poisoned.held(1, 0)).said(), (Done, "poison".to_owned()));
}

#[test]
fn a_sink_that_only_stores_answers_when_it_has_the_record() {
    let home = Home::with_config(CONFIG);
    let server = home.serve();
    let wire = Wire::new(&server, 0xf4);
    wire.ask_ack(&wire.asking(1, b"open"));
    assert_eq!(wire.taken(wire.held(1, 0)).said(), (Done, String::new()));
    assert_eq!(home.lines().len(), 1, "told when it is there, without waiting");
}

#[test]
fn of_several_sinks_the_one_that_is_named_answers_and_the_others_hold_nobody_up() {
    let (service, slow) = (Service::start(), Service::start());
    slow.hold(b"open");
    let home = Home::with_config(&format!("{CONFIG}answering_sink = {:?}\n", service.sink()));
    let server = home.serve_sinks(&[&slow.sink(), &service.sink()]);
    let wire = Wire::new(&server, 0xf5);
    wire.ask_ack(&wire.asking(1, b"open"));
    assert_eq!(wire.taken(wire.held(1, 0)).said(), (Done, "OPEN".to_owned()));
    assert_eq!(slow.times(b"open"), 1);
}

#[test]
fn of_several_sinks_without_a_name_all_must_have_it() {
    let slow = Service::start();
    slow.hold(b"open");
    let home = Home::with_config("checkpoint_interval = \"20ms\"\n");
    let server = home.serve_sinks(&[&home.file_sink(), &slow.sink()]);
    let wire = Wire::new(&server, 0xf6);
    wire.ask_ack(&wire.asking(1, b"open"));
    wait_for("the file to have it", || (home.lines().len() == 1).then_some(()));
    assert_eq!(wire.taken(wire.take(1, 0)).status, Pending);
    slow.release(b"open");
    assert_eq!(wire.taken(wire.held(1, 0)).said(), (Done, String::new()));
}

#[test]
fn an_ask_that_the_answering_sink_has_passed_is_gone_at_the_next_start_and_logged() {
    let service = Service::start();
    service.hold(b"open");
    let home = Home::with_config(&format!("checkpoint_interval = \"10ms\"\nanswering_sink = {:?}\n", service.sink()));
    let sinks = [home.file_sink(), service.sink()];
    let sinks: Vec<&str> = sinks.iter().map(|sink| &**sink).collect();
    let server = home.serve_sinks(&sinks);
    let wire = Wire::new(&server, 0xf7);
    wire.ask_ack(&wire.asking(1, b"open"));
    wait_for("the file to have it", || (home.lines().len() == 1).then_some(()));
    assert!(server.terminate().success(), "with a record that is not answered");
    home.configure(&format!("{CONFIG}answering_sink = {:?}\n", home.file_sink()));
    let server = home.serve_sinks(&sinks);
    let wire = Wire::new(&server, 0xf7);
    wait_for("GONE", || (wire.taken(wire.take(1, 0)).status == Gone).then_some(()));
    assert!(server.log().contains("no answer will come"), "{}", server.log());
}
