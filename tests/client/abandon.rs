//! The library's clients give messages up, against the real server: what was given up is no loss, and all else arrives
//! (PROTOCOL.md#duty-skip).

use duragram::client::blocking;
use duragram::client::{Batching, Builder, Client, SendError, Stats};
use duragram::host::secret_file::{self, Existing};
use duragram::keys::file;
use duragram::proto::ClientId;
use duragram::proto::seal::ClientKey;

use crate::common::lossy::{LossyPath, Weather};
use crate::common::server::{Home, Server};
use crate::common::wait_for;

const CUT: Weather = Weather { loss: 1.0, ..Weather::CLEAR };

/// A way to a server that can be cut.
fn way_to(server: &Server) -> (LossyPath, Builder) {
    let path = LossyPath::to(server.udp, Weather::CLEAR, 5);
    let builder = Client::builder(path.addr().to_string());
    (path, builder)
}

/// A blocking client of the server whose first record, "0", is acked, and which is then cut off from it.
fn cut_off(server: &Server, with: impl FnOnce(Builder) -> Builder) -> (LossyPath, blocking::Client) {
    let (path, builder) = way_to(server);
    let client = blocking::Client::connect(with(builder)).unwrap();
    client.send(b"0").unwrap().wait().unwrap();
    path.set_weather(CUT);
    (path, client)
}

/// Waits until so many messages were sent.
fn wait_sent(transmissions: u64, stats: impl Fn() -> Stats) {
    wait_for("transmissions", || (stats().transmissions - stats().retransmissions >= transmissions).then_some(()));
}

/// Clears the weather, once all that was sent since it was cut is lost and not only on its way.
fn clear(path: &LossyPath, before: u64, stats: impl Fn() -> Stats) {
    wait_for("losses", || (path.counts().lost >= stats().transmissions - before).then_some(()));
    path.set_weather(Weather::CLEAR);
}

/// What came out as text. Panics on a gap.
fn texts(home: &Home, lines: usize) -> Vec<String> {
    let lines = home.wait_lines(lines);
    lines.iter().map(|line| String::from_utf8(line.payload()).expect("text")).collect()
}

fn lost_and_abandoned(server: &Server) -> (f64, f64) {
    (server.metric("duragram_lost_seqs_total", ""), server.metric("duragram_abandoned_seqs_total", ""))
}

#[test]
fn what_was_given_up_after_it_was_sent_leaves_no_gap_and_all_else_arrives() {
    let home = Home::new();
    let server = home.serve();
    let (path, client) = cut_off(&server, |builder| builder);
    let before = client.stats().transmissions;
    let tickets: Vec<_> = (1..=5).map(|n| client.send(n.to_string().as_bytes()).unwrap()).collect();
    wait_sent(6, || client.stats());
    assert_eq!([client.abandon_oldest(), client.abandon_oldest()], [1, 1]);
    clear(&path, before, || client.stats());
    let outcomes: Vec<_> = tickets.into_iter().map(|ticket| ticket.wait().map(|receipt| receipt.seq.0)).collect();
    assert_eq!(outcomes, [Err(SendError::Abandoned), Err(SendError::Abandoned), Ok(4), Ok(5), Ok(6)]);
    client.send(b"6").unwrap().wait().unwrap();
    let stats = client.stats();
    assert_eq!((stats.acked, stats.failed, stats.abandoned, stats.unacked), (5, 0, 2, 0));
    client.close(None).expect("what the caller gave up is not missing");
    let mut texts = texts(&home, 5);
    texts.sort_unstable();
    assert_eq!(texts, ["0", "3", "4", "5", "6"]);
    assert_eq!(lost_and_abandoned(&server), (0.0, 2.0));
}

#[test]
fn a_full_client_makes_room_for_what_is_newer() {
    let home = Home::new();
    let server = home.serve();
    let (path, client) = cut_off(&server, |builder| builder.window(2));
    let before = client.stats().transmissions;
    let kept: Vec<_> = (1..=9)
        .map(|n| {
            loop {
                match client.try_send(n.to_string().as_bytes()) {
                    Err(SendError::Full) => assert_eq!(client.abandon_oldest(), 1),
                    taken => break taken.unwrap(),
                }
            }
        })
        .collect();
    clear(&path, before, || client.stats());
    let delivered: Vec<_> = kept.into_iter().map(|ticket| ticket.wait().is_ok()).collect();
    assert_eq!(delivered, [[false; 7].as_slice(), &[true; 2]].concat());
    assert_eq!(client.abandon_oldest(), 0, "nothing is unacked any more");
    client.close(None).unwrap();
    let mut texts = texts(&home, 3);
    texts.sort_unstable();
    assert_eq!(texts, ["0", "8", "9"]);
    let (lost, abandoned) = lost_and_abandoned(&server);
    assert!(lost == 0.0 && abandoned <= 7.0, "of what was never sent the server knows nothing: {lost}, {abandoned}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_given_up_as_a_whole_and_who_waits_for_room_goes_on() {
    let home = Home::new();
    let server = home.serve();
    let (path, builder) = way_to(&server);
    let client = builder.window(2).batching(Batching::ON).connect().await.unwrap();
    client.send(b"0").await.unwrap().await.unwrap();
    path.set_weather(CUT);
    let before = client.stats().transmissions;
    let alone = client.send(b"alone").await.unwrap();
    wait_sent(2, || client.stats());
    let mut batched = Vec::new();
    for n in 0..3 {
        batched.push(client.send(format!("batched {n}").as_bytes()).await.unwrap());
    }
    // The first of these begins another batch, which the second one ends; but there is no room for it.
    let others = client.send_on(1, b"on channel 1").await.unwrap();
    let waits = tokio::spawn({
        let client = client.clone();
        async move { client.send_on(2, b"on channel 2").await }
    });
    assert_eq!([client.abandon_oldest(), client.abandon_oldest()], [1, 3]);
    let last = waits.await.unwrap().unwrap();
    clear(&path, before, || client.stats());
    assert_eq!(alone.await, Err(SendError::Abandoned));
    for pending in batched {
        assert_eq!(pending.await, Err(SendError::Abandoned));
    }
    others.await.unwrap();
    last.await.unwrap();
    client.close(None).await.unwrap();
    assert_eq!(client.stats().abandoned, 4);
    let mut texts = texts(&home, 3);
    texts.sort_unstable();
    assert_eq!(texts, ["0", "on channel 1", "on channel 2"]);
    let (lost, abandoned) = lost_and_abandoned(&server);
    assert!(lost == 0.0 && (1.0..=2.0).contains(&abandoned), "datagrams, not records: {lost}, {abandoned}");
}

#[test]
fn dropping_a_ticket_or_a_pending_gives_nothing_up() {
    let home = Home::new();
    let server = home.serve();
    let (path, client) = cut_off(&server, |builder| builder);
    drop(client.send(b"1").unwrap());
    wait_sent(2, || client.stats());
    path.set_weather(Weather::CLEAR);
    client.flush();
    assert_eq!(texts(&home, 2), ["0", "1"]);
    assert_eq!(client.stats().abandoned, 0);
}

/// A key file with one client's key, and that key.
fn key_file(home: &Home, client: ClientId) -> (String, ClientKey) {
    let key = ClientKey::new(*file::random_key().unwrap());
    let path = home.path().join("keys");
    secret_file::write(&path, file::client_line(client, &key, None).as_bytes(), Existing::Keep).unwrap();
    (path.display().to_string(), key)
}

#[test]
fn a_sealed_client_gives_up_what_it_has_sent_and_what_it_has_not_and_all_else_arrives() {
    let (home, client) = (Home::new(), ClientId(0xa1));
    let (keys, key) = key_file(&home, client);
    let server = home.serve_with(&["--keys", &keys]);
    let (path, client) = cut_off(&server, |builder| builder.client_id(client.0).key(key));
    let before = client.stats().transmissions;
    let tickets: Vec<_> = (1..=12).map(|n| client.send(n.to_string().as_bytes()).unwrap()).collect();
    // The first congestion window, and what the ack has let it grow by, is less than all of these.
    wait_sent(11, || client.stats());
    assert_eq!([(); 3].map(|()| client.abandon_oldest()), [1; 3]);
    clear(&path, before, || client.stats());
    let delivered: Vec<_> = tickets.into_iter().map(|ticket| ticket.wait().is_ok()).collect();
    assert_eq!(delivered, [[false; 3].as_slice(), &[true; 9]].concat());
    client.send(b"13").unwrap().wait().unwrap();
    let stats = client.stats();
    assert_eq!((stats.acked, stats.failed, stats.abandoned, stats.unacked), (11, 0, 3, 0));
    client.close(None).expect("what the caller gave up is not missing");
    let mut numbers: Vec<u32> = texts(&home, 11).iter().map(|text| text.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [&[0], &[4, 5, 6, 7, 8, 9, 10, 11, 12, 13][..]].concat());
    assert_eq!(lost_and_abandoned(&server), (0.0, 3.0));
}

#[test]
fn a_sealed_client_that_has_given_up_more_than_the_server_would_skip_goes_on_in_another_epoch() {
    let (home, client) = (Home::with_config("window = 4\n"), ClientId(0xa1));
    let (keys, key) = key_file(&home, client);
    let server = home.serve_with(&["--keys", &keys]);
    let (path, builder) = way_to(&server);
    let client = blocking::Client::connect(builder.client_id(client.0).key(key)).unwrap();
    let first = client.send(b"0").unwrap().wait().unwrap();
    path.set_weather(CUT);
    let before = client.stats().transmissions;
    for n in 1..=5 {
        let ticket = client.send(n.to_string().as_bytes()).unwrap();
        wait_sent(1 + n, || client.stats());
        assert_eq!(client.abandon_oldest(), 1);
        assert_eq!(ticket.wait(), Err(SendError::Abandoned));
    }
    let last = client.send(b"last").unwrap();
    clear(&path, before, || client.stats());
    let last = last.wait().unwrap();
    assert!(last.epoch > first.epoch && last.seq.0 == 1, "{first:?}, {last:?}");
    client.close(None).unwrap();
    let mut texts = texts(&home, 2);
    texts.sort_unstable();
    assert_eq!(texts, ["0", "last"]);
    assert_eq!(lost_and_abandoned(&server), (0.0, 0.0));
}
