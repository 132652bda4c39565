//! What the server does when its sockets fail: it outlives what passes, and says what it was doing when something cannot.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::server::{Home, Server};
use crate::common::wire::Wire;
use crate::faults::layer::{Action, EVER, Layer, Rule, calls};

const EPERM: i32 = 1;
const EIO: i32 = 5;
const EBADF: i32 = 9;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
const EINVAL: i32 = 22;
const EMSGSIZE: i32 = 90;
const ENETDOWN: i32 = 100;
const ENETUNREACH: i32 = 101;
const ENOBUFS: i32 = 105;
const ECONNREFUSED: i32 = 111;
const EHOSTUNREACH: i32 = 113;

const PASSING: [i32; 11] =
    [ENOMEM, ENOBUFS, ENETDOWN, EPERM, EIO, EACCES, EINVAL, EMSGSIZE, ENETUNREACH, ECONNREFUSED, EHOSTUNREACH];

/// One thread and several, one socket and two.
const LAYOUTS: [&str; 3] = ["threading = \"single\"\n", "threading = \"single\"\nreceivers = 2\n", "receivers = 2\n"];

fn serve(home: &Home) -> (Layer, Server) {
    let layer = Layer::over(&home.disk());
    let mut command: Command = home.command(&home.data());
    layer.under(&mut command);
    let server = Server::try_start(home, command).expect("it starts");
    (layer, server)
}

#[test]
fn a_receive_that_fails_for_a_while_ends_no_server() {
    for layout in LAYOUTS {
        let home = Home::with_config(layout);
        let (layer, server) = serve(&home);
        let wire = Wire::new(&server, 1);
        for (seq, errno) in (1..).zip(PASSING) {
            // First one failure, then ten in a row.
            for times in [1, 10] {
                let rule = Rule { calls: calls::RECEIVE, part: "", first: 1, times, action: Action::Fail(errno) };
                layer.set(0, rule);
                crate::common::wait_for("the failures", || (layer.seen(0) >= times).then_some(()));
                assert_eq!(wire.ask_ack(&wire.data(seq, b"after a failure")).floor, seq, "{errno}");
            }
        }
        assert!(server.metric("duragram_receive_errors_total", "") >= 11.0 * 11.0, "each is counted");
        let log = server.log();
        let told = format!("receiving datagrams failed; trying again address={}", server.udp);
        assert!(log.contains(&told), "{told}: {log}");
        assert!(server.terminate().success());
    }
}

#[test]
fn a_receive_that_fails_for_long_is_tried_now_and_then_and_the_server_goes_on_when_it_works_again() {
    for layout in LAYOUTS {
        let home = Home::with_config(layout);
        let (layer, server) = serve(&home);
        let wire = Wire::new(&server, 1);
        layer.set(0, Rule::always(calls::RECEIVE, "", Action::Fail(ENOMEM)));
        let began = Instant::now();
        std::thread::sleep(Duration::from_millis(1_500));
        let (tries, seconds) = (layer.seen(0), began.elapsed().as_secs_f64());
        #[allow(clippy::cast_precision_loss)]
        let per_s = tries as f64 / seconds;
        // Two sockets, twenty times a second each, and what was tried before the pauses grew.
        assert!((5.0..80.0).contains(&per_s), "{per_s} receives a second ({layout})");
        let lines = server.log().matches("receiving datagrams failed").count();
        assert!((1..=6).contains(&lines), "{lines} lines");
        layer.clear(0);
        assert_eq!(wire.ask_ack(&wire.data(1, b"after all that")).floor, 1);
        assert!(server.terminate().success());
    }
}

#[test]
fn a_receive_that_can_never_work_again_ends_the_server_which_says_what_it_was_doing() {
    for layout in LAYOUTS {
        let home = Home::with_config(layout);
        let (layer, server) = serve(&home);
        let udp = server.udp;
        layer.set(0, Rule::always(calls::RECEIVE, "", Action::Fail(EBADF)));
        assert_eq!(server.wait().code(), Some(1));
        let log = fs::read_to_string(home.log_path()).unwrap();
        assert!(log.contains(&format!("duragram: receiving datagrams on {udp}: Bad file")), "{log}");
    }
}

#[test]
fn replies_that_cannot_be_sent_are_counted_and_told_and_end_no_server() {
    let home = Home::new();
    let (layer, server) = serve(&home);
    let wire = Wire::new(&server, 1);
    for (seq, errno) in (1..).zip(PASSING) {
        layer.set(0, Rule { calls: calls::REPLY, part: "", first: 1, times: EVER, action: Action::Fail(errno) });
        wire.send(&wire.data(seq, b"one"));
        crate::common::wait_for("the failure", || (layer.seen(0) >= 1).then_some(()));
        layer.clear(0);
        assert_eq!(wire.ask_ack(&wire.data(seq, b"one")).floor, seq, "{errno}");
    }
    assert!(server.metric("duragram_reply_errors_total", "") >= 11.0);
    assert!(server.log().contains("sending replies failed"), "{}", server.log());
    assert!(server.terminate().success());
}
