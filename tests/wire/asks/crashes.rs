//! What an answer is after a kill at the moments that matter: the effect, the answer's sync, the telling.

use duragram_proto::codec::AnswerStatus::{Done, Gone, Pending};

use super::{CONFIG, Place};
use crate::common::server::{Home, Server};
use crate::common::service::Service;
use crate::common::wait_for;
use crate::common::wire::Wire;
use crate::faults::layer::{Action, Layer, Rule, calls};
use crate::sinks::http::server::Response;

#[test]
fn an_open_ask_outlives_a_kill_and_the_next_take_is_held() {
    let place = Place::new();
    let wire = place.wire(0xe1);
    place.ask_held(&wire, 1, b"slow");
    wire.send_take(wire.held(1, 0));
    wire.assert_silence_so_far();
    let place = place.restart();
    let wire = place.wire(0xe1);
    assert_eq!(wire.taken(wire.take(1, 0)).status, Pending);
    wire.send_take(wire.held(1, 0));
    wire.assert_silence_so_far();
    place.service.release(b"slow");
    assert_eq!(wire.answer().said(), (Done, "SLOW".to_owned()));
}

#[test]
fn an_answer_outlives_kills_and_is_told_as_it_was() {
    let place = Place::new();
    let wire = place.wire(0xe2);
    wire.ask_ack(&wire.asking(1, b"open"));
    wire.ask_ack(&wire.asking(2, b"no such valve"));
    let told = [1, 2].map(|seq| wire.taken(wire.held(seq, u16::try_from(seq - 1).unwrap())));
    let mut place = place;
    for _ in 0..2 {
        place = place.restart();
        let wire = place.wire(0xe2);
        assert!(wire.ping().ready);
        assert_eq!([1, 2].map(|seq| wire.taken(wire.take(seq, u16::try_from(seq - 1).unwrap()))), told);
    }
}

#[test]
fn what_was_forgotten_durably_stays_forgotten_after_a_kill() {
    let place = Place::new();
    let wire = place.wire(0xe3);
    wire.ask_ack(&wire.asking(1, b"open"));
    assert_eq!(wire.taken(wire.held(1, 0)).status, Done);
    assert_eq!(wire.taken(wire.take(2, 0)).status, Gone);
    // The mark is durable with whatever is committed after it.
    wire.ask_ack(&wire.data(2, b"later"));
    let place = place.restart();
    let wire = place.wire(0xe3);
    assert_eq!(wire.taken(wire.take(1, 0)).status, Gone);
    assert!(!wire.ping().ready);
}

#[test]
fn sigterm_keeps_asks_and_answers() {
    let place = Place::new();
    let wire = place.wire(0xe4);
    wire.ask_ack(&wire.asking(1, b"open"));
    assert_eq!(wire.taken(wire.held(1, 0)).status, Done);
    let Place { server, service, home } = place;
    // It is answered while the server stops, or after the next start.
    wire.ask_ack(&wire.asking(2, b"last"));
    assert!(server.terminate().success());
    let server = home.serve_sinks(&[&service.sink()]);
    let wire = Wire::new(&server, 0xe4);
    assert_eq!(wire.taken(wire.held(1, 0)).said(), (Done, "OPEN".to_owned()));
    assert_eq!(wire.taken(wire.held(2, 0)).said(), (Done, "LAST".to_owned()));
    assert_eq!(service.times(b"open"), 1);
}

#[test]
fn a_directory_of_the_former_format_is_taken_over_and_has_asks_then() {
    let place = Place::new();
    let wire = place.wire(0xe6);
    wire.ask_ack(&wire.data(1, b"asks nothing"));
    let Place { server, service, home } = place;
    assert!(server.terminate().success());
    // Without asks nothing else differs.
    let marker = home.data().join("DURAGRAM");
    std::fs::write(&marker, "duragram data directory, format 4 crc32 df1005ec\n").unwrap();
    let server = home.serve_sinks(&[&service.sink()]);
    assert!(std::fs::read_to_string(&marker).unwrap().starts_with("duragram data directory, format 5 "));
    let wire = Wire::new(&server, 0xe6);
    assert!(wire.ask_ack(&wire.data(1, b"asks nothing")).duplicate);
    wire.ask_ack(&wire.asking(2, b"open"));
    assert_eq!(wire.taken(wire.held(2, 0)).said(), (Done, "OPEN".to_owned()));
}

/// A server that ends itself at the sync of an answer while a TAKE is held, and a service that counts: the body says how often the
/// record came.
fn killed_at_the_sync(action: Action) -> (Home, Service, Wire) {
    let calls_before = std::sync::atomic::AtomicUsize::new(0);
    let service = Service::start_with(move |_| {
        let nth = calls_before.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Response::status(200).body(format!("call {nth}"))
    });
    let home = Home::with_config(CONFIG);
    let layer = Layer::over(&home.disk());
    let mut command = home.command_with_sinks(&home.data(), &[&service.sink()]);
    layer.under(&mut command);
    let server = Server::try_start(&home, command).expect("it starts");
    let wire = Wire::new(&server, 0xe5);
    service.hold(b"count");
    wire.ask_ack(&wire.asking(1, b"count"));
    wire.send_take(wire.held(1, 0));
    wire.assert_silence_so_far();
    layer.set(0, Rule::nth(calls::SYNC, ".log", 1, action));
    service.release(b"count");
    assert_eq!(server.wait().code(), None, "it was to be killed");
    (home, service, wire)
}

#[test]
fn an_answer_whose_sync_never_came_is_not_told_and_that_of_the_next_time_counts() {
    let (home, service, wire) = killed_at_the_sync(Action::KillBefore);
    assert_eq!(wire.drain(), [], "nothing was durable yet");
    service.hold(b"count");
    let server = home.serve_sinks(&[&service.sink()]);
    let wire = Wire::new(&server, 0xe5);
    // The write may be there: a kill is no power cut. What is there is told, and else what comes again.
    wait_for("the record to come again, or its answer", || {
        (service.times(b"count") > 1 || wire.taken(wire.take(1, 0)).status == Done).then_some(())
    });
    service.release(b"count");
    let told = wire.taken(wire.held(1, 0));
    assert_eq!(told.status, Done);
    assert!(["call 0", "call 1"].contains(&&*told.said().1), "{told:?}");
    server.kill();
    let server = home.serve_sinks(&[&service.sink()]);
    let wire = Wire::new(&server, 0xe5);
    assert_eq!(wire.taken(wire.held(1, 0)), told, "the first durable one stands");
}

#[test]
fn an_answer_that_was_synced_and_not_told_is_told_after_the_restart() {
    let (home, service, wire) = killed_at_the_sync(Action::KillAfter);
    assert_eq!(wire.drain(), [], "the kill came before the telling");
    let server = home.serve_sinks(&[&service.sink()]);
    let wire = Wire::new(&server, 0xe5);
    assert_eq!(wire.taken(wire.held(1, 0)).said(), (Done, "call 0".to_owned()));
    // Its mark was not stored, so the record comes again, and its second answer is nothing.
    wire.ask_ack(&wire.asking(2, b"another"));
    assert_eq!(wire.taken(wire.held(2, 1)).status, Done);
    assert_eq!(wire.taken(wire.held(1, 0)).said(), (Done, "call 0".to_owned()));
}
