//! The blocking client against a server in memory.

use std::time::{Duration, Instant};

use crate::common::PATIENCE;
use crate::common::fake::Fake;
use duragram::client::blocking::{Client, StartError};
use duragram::client::{self, Batching, ConnectError, Incomplete, SendError};

fn connect(fake: &Fake, batching: Batching) -> Client {
    Client::connect(client::Client::builder(fake.addr.to_string()).batching(batching)).unwrap()
}

#[test]
fn a_ticket_waits_for_the_receipt() {
    let fake = Fake::start();
    let client = connect(&fake, Batching::Off);
    let tickets: Vec<_> = (0..10_u8).map(|n| client.send(&[n]).unwrap()).collect();
    let seqs: Vec<_> = tickets.into_iter().map(|ticket| ticket.wait().unwrap().seq.0).collect();
    assert_eq!(seqs, (1..=10).collect::<Vec<_>>());
    assert_eq!(client.close(None), Ok(()));
    assert_eq!(fake.records(), (0..10).map(|n| vec![n]).collect::<Vec<_>>());
}

#[test]
fn threads_share_a_client_and_flush_waits_for_all() {
    let fake = Fake::start();
    let client = connect(&fake, Batching::ON);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let client = &client;
            scope.spawn(move || {
                for n in 0..250_u8 {
                    drop(client.send_on(u16::from(thread), &[thread, n]).unwrap());
                }
            });
        }
    });
    client.flush();
    let stats = client.stats();
    assert_eq!((stats.acked, stats.unacked), (1000, 0));
    for thread in 0..4_u8 {
        let of_thread: Vec<_> = fake.records().into_iter().filter(|record| record[0] == thread).collect();
        assert_eq!(of_thread, (0..250).map(|n| vec![thread, n]).collect::<Vec<_>>(), "in the thread's order");
    }
}

#[test]
fn close_has_a_deadline_and_dropping_never_waits() {
    let fake = Fake::start();
    fake.set_silent(true);
    let client = connect(&fake, Batching::Off);
    let ticket = client.send(b"unheard").unwrap();
    assert_eq!(client.close(Some(Duration::from_millis(50))), Err(Incomplete { unacked: 1, failed: 0 }));
    assert_eq!(ticket.wait(), Err(SendError::Closed));

    let client = connect(&fake, Batching::Off);
    let ticket = client.send(b"unheard").unwrap();
    let start = Instant::now();
    drop(client);
    assert_eq!(ticket.wait(), Err(SendError::Closed));
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}

#[test]
fn a_moved_server_is_followed() {
    let fake = Fake::start();
    let client = connect(&fake, Batching::Off);
    client.send(b"here").unwrap().wait().unwrap();
    let fake = fake.moved();
    let ticket = client.send(b"there").unwrap();
    client.set_server(fake.addr.to_string());
    ticket.wait().unwrap();
    assert_eq!(fake.records(), [b"here".to_vec(), b"there".to_vec()]);
}

#[test]
fn a_client_that_cannot_begin_says_why() {
    let error = Client::connect(client::Client::builder("no such name")).unwrap_err();
    assert!(matches!(error, StartError::Connect(ConnectError::Server { .. })), "{error}");
}
