//! What other machines may hold and be told without a session; the machine's own are not bounded so.

use duragram_proto::ClientId;
use duragram_proto::codec::AnswerStatus::{Done, Pending};
use duragram_proto::codec::Take;

use super::addresses::in_a_network_of_its_own;
use crate::common::server::{Home, Server, duragram};
use crate::common::service::Service;
use crate::common::wait_for;
use crate::common::wire::Wire;

/// TAKEs at once: above what a source may be told without a session.
const MANY: u64 = 4_096;

#[test]
fn the_takes_of_another_machine_are_held_up_to_a_number_and_answered_up_to_a_rate() {
    if !in_a_network_of_its_own(
        "net::asks::the_takes_of_another_machine_are_held_up_to_a_number_and_answered_up_to_a_rate",
    ) {
        return;
    }
    let (service, home) = (Service::start(), Home::new());
    let mut command = duragram();
    command.args(["serve", "--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0", "--sink", &service.sink()]);
    command.arg("--data").arg(home.data()).env("DURAGRAM_ALLOW_PLAIN", "true").env("DURAGRAM_PLAIN_ASKS", "true");
    let server = Server::try_start(&home, command).expect("it starts");
    let wire = |client: u64, source: u8| {
        Wire::between(([169, 254, 7, source], 0).into(), ([169, 254, 7, 2], server.udp.port()).into(), client)
    };
    let wires: Vec<Wire> = (1..=17).map(|client| wire(client, 1)).collect();
    service.hold(b"slow");
    for wire in &wires {
        for seq in 1..=16 {
            wire.ask_ack(&wire.asking(seq, b"slow"));
        }
    }
    let held = |wire: &Wire, seq: u64| wire.held(seq, u16::try_from(seq - 1).unwrap());
    let (last, first) = wires.split_last().unwrap();
    for wire in first {
        (1..=16).for_each(|seq| wire.send_take(held(wire, seq)));
        wire.assert_silence_so_far();
    }
    let answer = last.taken(held(last, 1));
    assert_eq!((answer.status, answer.number >= 1_000), (Pending, true), "{answer:?}");
    let other = wire(18, 2);
    other.ask_ack(&other.asking(1, b"slow"));
    other.send_take(held(&other, 1));
    other.assert_silence_so_far();
    service.release(b"slow");
    for wire in first {
        (0..16).for_each(|_| assert_eq!(wire.answer().status, Done));
    }
    assert_eq!(other.answer().status, Done, "another source has its own");
    assert_eq!(last.taken(held(last, 2)).status, Done, "there is room again");

    // GONE of sessions that are not there.
    let mut next = 1_000_000;
    wait_for("answers to be withheld", || {
        for client in next..next + MANY {
            last.send_take(Take { client: ClientId(client), ..last.take(1, 0) });
        }
        next += MANY;
        (server.metric("duragram_replies_withheld_total", "limited") > 0.0).then_some(())
    });
}
