//! When operators are told what they ask about asks.

use duragram_proto::codec::OPTION_ASK;

use super::*;
use crate::limits;
use crate::model::AsksRequest;

fn asking(client: u64) -> Vec<u8> {
    let data = Data::whole(ClientId(client), Epoch::new(1).unwrap(), Seq(1), 0, b"a question");
    encode(&Datagram::Data(Data { options: OPTION_ASK, ..data }))
}

fn forget(client: u64) -> AsksRequest {
    AsksRequest::Forget(ClientId(client))
}

#[test]
fn an_operator_is_told_that_asks_are_forgotten_when_that_is_durable_and_not_before() {
    let mut rig = Rig::new();
    rig.step(&[(peer(1), asking(1)), (peer(1), asking(2))]);
    assert_eq!(rig.committer.status().asks.open, 2);
    rig.hand.hold(1);
    let answer = rig.committer.ask_control().ask(forget(1)).unwrap();
    rig.committer.launch(&rig.clock).unwrap();
    assert!(rig.committer.is_in_flight() && answer.try_recv().is_err());
    // Rests on the commit in flight, and needs none of its own.
    let look = rig.committer.ask_control().ask(AsksRequest::Of(ClientId(2))).unwrap();
    rig.disk.on_write(|_| WriteFate::Durable);
    rig.committer.land(&rig.clock).unwrap();
    let told = answer.try_recv().unwrap();
    assert_eq!((told.asks.len(), told.totals.open), (1, 1));
    rig.committer.commit(&rig.clock).unwrap();
    assert_eq!(look.try_recv().unwrap().asks.len(), 1);
    let mut rig = rig.restart();
    assert_eq!(rig.committer.status().asks.open, 1);
    let gone = rig.committer.ask_control().ask(forget(1)).unwrap();
    rig.committer.commit(&rig.clock).unwrap();
    assert_eq!(gone.try_recv().unwrap().asks, []);
}

#[test]
fn what_needs_no_commit_is_told_with_the_one_in_flight_that_it_may_rest_on() {
    let mut rig = Rig::new();
    rig.hand.hold(1);
    rig.absorb(&[(peer(1), asking(1))]).unwrap();
    rig.committer.launch(&rig.clock).unwrap();
    let look = rig.committer.ask_control().ask(AsksRequest::Overview).unwrap();
    rig.hand.hold(2);
    rig.committer.launch(&rig.clock).unwrap();
    assert!(look.try_recv().is_err(), "the ask that it would tell of is not durable");
    rig.disk.on_write(|_| WriteFate::Durable);
    rig.committer.land(&rig.clock).unwrap();
    rig.committer.commit(&rig.clock).unwrap();
    assert_eq!(look.try_recv().unwrap().totals.open, 1);
}

#[test]
fn nobody_is_told_of_what_a_failed_commit_was_to_forget() {
    let mut rig = Rig::new();
    rig.step(&[(peer(1), asking(1))]);
    // Outlives the committer, as the admin interface's does.
    let control = rig.committer.ask_control();
    let answer = control.ask(forget(1)).unwrap();
    rig.disk.on_write(|_| WriteFate::FailedAndLost);
    rig.committer.commit(&rig.clock).unwrap_err();
    let late = control.ask(AsksRequest::Overview).unwrap();
    rig.committer.commit(&rig.clock).unwrap_err();
    assert!(answer.try_recv().is_err() && late.try_recv().is_err());
    drop(rig);
    let heard = late.try_recv();
    assert_eq!(heard, Err(crossbeam_channel::TryRecvError::Disconnected), "who waits hears that nobody will answer");
    assert!(control.ask(AsksRequest::Overview).is_err());
}

#[test]
fn one_request_is_taken_with_each_commit_and_no_more_wait_than_may() {
    let mut rig = Rig::new();
    let control = rig.committer.ask_control();
    let answers: Vec<_> = (0..limits::ASK_REQUESTS).map(|_| control.ask(AsksRequest::Overview).unwrap()).collect();
    assert!(control.ask(AsksRequest::Overview).is_err());
    rig.committer.commit(&rig.clock).unwrap();
    let told: Vec<bool> = answers.iter().map(|answer| answer.try_recv().is_ok()).collect();
    assert!(told[0] && !told[1..].contains(&true), "{told:?}");
    assert!(control.ask(AsksRequest::Overview).is_ok());
    drop(rig);
    assert!(control.ask(AsksRequest::Overview).is_err(), "there is nobody any more");
}
