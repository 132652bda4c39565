//! The async client against a server in memory: what callers see, whatever server and network do.

use std::collections::HashSet;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::common::PATIENCE;
use crate::common::fake::Fake;
use crate::common::lossy::{LossyPath, Weather};
use duragram::client::{Batching, Builder, Client, ConnectError, Incomplete, Pending, Receipt, SendError};
use duragram_proto::Epoch;
use duragram_proto::client::FailReason;
use duragram_proto::codec::{Durability, RejectCode};

const EPOCH: Epoch = Epoch::new(7).unwrap();

/// A client with an epoch of its own, so that its first datagram is its first record.
fn builder(fake: &Fake) -> Builder {
    Client::builder(fake.addr.to_string()).client_id(0xa1).epoch(EPOCH)
}

/// Waits for what must happen, within the tests' patience.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("this does not take so long")
}

/// Whether a future is not ready now. It is dropped.
async fn is_waiting(future: impl Future) -> bool {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

fn record(n: usize) -> Vec<u8> {
    format!("record {n}").into_bytes()
}

async fn send_all(client: &Client, records: std::ops::Range<usize>) -> Vec<Pending> {
    let mut pending = Vec::new();
    for n in records {
        pending.push(soon(client.send(&record(n))).await.unwrap());
    }
    pending
}

async fn receipts(pending: Vec<Pending>) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for pending in pending {
        receipts.push(soon(pending).await.unwrap());
    }
    receipts
}

#[tokio::test]
async fn each_record_gets_a_receipt_and_arrives_in_order() {
    let fake = Fake::start();
    let client = builder(&fake).connect().await.unwrap();
    let pending = send_all(&client, 0..100).await;
    let on_channel = soon(client.send_on(9, b"elsewhere")).await.unwrap();
    for (n, receipt) in receipts(pending).await.into_iter().enumerate() {
        assert_eq!((receipt.epoch, receipt.seq.0, receipt.index), (EPOCH, n as u64 + 1, 0));
        assert_eq!(receipt.durability, Durability::Synced);
    }
    assert_eq!(soon(on_channel).await.unwrap().seq.0, 101);
    soon(client.close(None)).await.unwrap();

    let memory = fake.memory();
    assert_eq!(memory.hellos, 0, "it has an epoch");
    let last = memory.taken.last().unwrap();
    assert_eq!((last.channel, &last.records), (9, &vec![b"elsewhere".to_vec()]));
    drop(memory);
    assert_eq!(fake.records()[..100], (0..100).map(record).collect::<Vec<_>>());
    let stats = client.stats();
    assert_eq!((stats.acked, stats.failed, stats.unacked), (101, 0, 0));
}

#[tokio::test]
async fn without_an_epoch_the_server_gives_one() {
    let fake = Fake::start();
    let client = Client::builder(fake.addr.to_string()).connect().await.unwrap();
    let pending = send_all(&client, 0..3).await;
    let epochs: Vec<_> = receipts(pending).await.iter().map(|receipt| receipt.epoch.value()).collect();
    assert_eq!(epochs, [1001; 3]);
    assert_eq!(client.stats().epoch, Epoch::new(1001));
    assert_eq!(fake.memory().hellos, 1);
}

#[tokio::test]
async fn through_loss_duplicates_and_reordering_each_record_is_taken_once() {
    let fake = Fake::start();
    let path = LossyPath::to(fake.addr, Weather { loss: 0.15, ..Weather::FOUL }, 42);
    let client = Client::builder(path.addr().to_string()).connect().await.unwrap();
    let pending = send_all(&client, 0..1000).await;
    let receipts = receipts(pending).await;
    let distinct: HashSet<_> = receipts.iter().map(|receipt| (receipt.epoch, receipt.seq)).collect();
    assert_eq!(distinct.len(), 1000);
    assert_eq!(fake.records(), (0..1000).map(record).collect::<Vec<_>>());
    let stats = client.stats();
    assert!(stats.retransmissions > 0 && path.counts().lost > 0);
    soon(client.close(None)).await.unwrap();
}

#[tokio::test]
async fn a_nat_that_forgets_is_not_noticed() {
    let fake = Fake::start();
    let path = LossyPath::to(fake.addr, Weather::CLEAR, 1);
    let client = Client::builder(path.addr().to_string()).client_id(1).epoch(EPOCH).connect().await.unwrap();
    for round in 0..5 {
        receipts(send_all(&client, round * 10..(round + 1) * 10).await).await;
        path.rebind();
    }
    assert_eq!(fake.memory().peers.len(), 5);
    assert_eq!(fake.records(), (0..50).map(record).collect::<Vec<_>>());
}

#[tokio::test]
async fn records_go_on_to_where_the_server_has_moved() {
    let fake = Fake::start();
    let client = builder(&fake).connect().await.unwrap();
    receipts(send_all(&client, 0..5).await).await;
    let fake = fake.moved();
    let pending = send_all(&client, 5..10).await;
    client.set_server(fake.addr.to_string());
    let seqs: Vec<_> = receipts(pending).await.iter().map(|receipt| receipt.seq.0).collect();
    assert_eq!(seqs, [6, 7, 8, 9, 10], "the same session");
    assert_eq!(fake.records(), (0..10).map(record).collect::<Vec<_>>());
    assert_eq!(client.stats().reroutes, 1);
}

#[tokio::test]
async fn a_server_that_comes_back_gets_what_was_sent_while_it_was_away() {
    let fake = Fake::start();
    let client = builder(&fake).retry_interval_max(Duration::from_millis(100)).connect().await.unwrap();
    receipts(send_all(&client, 0..5).await).await;
    let back = fake.away();
    let pending = send_all(&client, 5..10).await;
    // It has been refused by the kernel more than once before the server is back.
    crate::common::wait_for_async("some tries", || (client.stats().retransmissions >= 2).then_some(())).await;
    let fake = back();
    receipts(pending).await;
    assert_eq!(fake.records(), (0..10).map(record).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_client_begins_while_the_server_is_away() {
    let fake = Fake::start();
    let addr = fake.addr;
    let back = fake.away();
    let client =
        Client::builder(addr.to_string()).retry_interval_max(Duration::from_millis(100)).connect().await.unwrap();
    let pending = send_all(&client, 0..3).await;
    assert_eq!(client.stats().epoch, None);
    let fake = back();
    receipts(pending).await;
    assert_eq!(fake.records(), (0..3).map(record).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_name_with_several_addresses_finds_the_one_that_listens() {
    let fake = Fake::start();
    // On many machines [::1] comes first; the fake listens on 127.0.0.1.
    let client = Client::builder(format!("localhost:{}", fake.addr.port())).epoch(EPOCH).connect().await.unwrap();
    receipts(send_all(&client, 0..3).await).await;
    assert_eq!(fake.records(), (0..3).map(record).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stale_epoch_is_left_and_what_was_unacked_is_sent_in_a_new_one() {
    let fake = Fake::start();
    fake.refuse_if(|data| (data.epoch == EPOCH && data.seq.0 > 5).then_some((RejectCode::StaleEpoch, 0)));
    let client = builder(&fake).connect().await.unwrap();
    let pending = send_all(&client, 0..20).await;
    let epochs: Vec<_> = receipts(pending).await.iter().map(|receipt| receipt.epoch).collect();
    assert!(epochs[..5].iter().all(|&epoch| epoch == EPOCH), "{epochs:?}");
    assert!(epochs[5..].iter().all(|&epoch| epoch > EPOCH), "{epochs:?}");
    assert_eq!(fake.records(), (0..20).map(record).collect::<Vec<_>>(), "in order, each once");
    assert!(client.stats().epoch > Some(EPOCH));
}

#[tokio::test]
async fn a_busy_server_is_waited_for() {
    for code in [RejectCode::Busy, RejectCode::Storage] {
        let fake = Fake::start();
        let mut refusals = 0;
        fake.refuse_if(move |_| {
            refusals += 1;
            (refusals <= 3).then_some((code, 20))
        });
        let client = builder(&fake).window(1).connect().await.unwrap();
        receipts(send_all(&client, 0..5).await).await;
        assert_eq!(fake.records(), (0..5).map(record).collect::<Vec<_>>());
        let stats = client.stats();
        assert_eq!((stats.rejects, stats.failed), (3, 0));
    }
}

#[tokio::test]
async fn a_refusal_for_good_fails_that_record_alone() {
    for (code, reason) in [
        (RejectCode::TooLarge, FailReason::TooLarge),
        (RejectCode::Channel, FailReason::Channel),
        (RejectCode::Unsupported, FailReason::Unsupported),
    ] {
        let fake = Fake::start();
        fake.refuse_if(move |data| (data.payload == b"record 3").then_some((code, 0)));
        let client = builder(&fake).connect().await.unwrap();
        let pending = send_all(&client, 0..10).await;
        for (n, pending) in pending.into_iter().enumerate() {
            match soon(pending).await {
                Ok(_) => assert_ne!(n, 3),
                Err(error) => assert_eq!((n, error), (3, SendError::Rejected(reason))),
            }
        }
        // The session goes on past the hole.
        receipts(send_all(&client, 10..20).await).await;
        let expected: Vec<_> = (0..20).filter(|&n| n != 3).map(record).collect();
        assert_eq!(fake.records(), expected);
        assert_eq!(client.close(None).await, Err(Incomplete { unacked: 0, failed: 1 }));
    }
}

#[tokio::test]
async fn a_record_that_fits_in_no_datagram_is_refused_at_once() {
    let fake = Fake::start();
    for batching in [Batching::Off, Batching::ON] {
        let client = builder(&fake).datagram_bytes_max(100).batching(batching).connect().await.unwrap();
        let error = client.send(&[0; 69]).await.unwrap_err();
        assert_eq!(error, SendError::TooLarge { bytes: 69, bytes_max: 68 });
        assert_eq!(error.to_string(), "a record of 69 bytes does not fit in a datagram: at most 68");
        assert_eq!(client.stats().unacked, 0);
    }
    let client = builder(&fake).epoch(Epoch::new(8).unwrap()).datagram_bytes_max(100).connect().await.unwrap();
    let pending = client.send(&[b'x'; 68]).await.unwrap();
    soon(pending).await.unwrap();
    assert_eq!(fake.records(), [vec![b'x'; 68]]);
}

#[tokio::test]
async fn when_the_window_is_full_send_waits_and_takes_no_memory() {
    let fake = Fake::start();
    fake.set_silent(true);
    let client = builder(&fake).window(8).connect().await.unwrap();
    let pending = send_all(&client, 0..8).await;
    for _ in 0..100 {
        assert!(is_waiting(client.send(b"one too many, dropped while it waited")).await);
    }
    assert_eq!(client.stats().unacked, 8);

    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.send(&record(8)).await.unwrap().await }
    });
    crate::common::wait_for_async("the fake to be asked", || (fake.memory().arrived > 0).then_some(())).await;
    fake.set_silent(false);
    assert_eq!(soon(waiting).await.unwrap().unwrap().seq.0, 9);
    receipts(pending).await;
    assert_eq!(fake.records(), (0..9).map(record).collect::<Vec<_>>(), "none of the dropped ones");
}

#[tokio::test]
async fn when_the_buffer_is_full_send_waits() {
    let fake = Fake::start();
    fake.set_silent(true);
    let client = builder(&fake).buffer_bytes(1000).connect().await.unwrap();
    let mut pending = Vec::new();
    for _ in 0..3 {
        pending.push(soon(client.send(&[1; 300])).await.unwrap());
    }
    assert!(is_waiting(client.send(&[1; 300])).await);
    fake.set_silent(false);
    pending.push(soon(client.send(&[2; 300])).await.unwrap());
    receipts(pending).await;
    assert_eq!(fake.records().len(), 4);
}

#[tokio::test]
async fn callers_that_wait_for_room_are_served_in_turn() {
    let fake = Fake::start();
    fake.set_silent(true);
    let client = builder(&fake).window(1).connect().await.unwrap();
    let first = send_all(&client, 0..1).await;
    let mut callers = Vec::new();
    for n in 1..20 {
        let client = client.clone();
        callers.push(tokio::spawn(async move { client.send(&record(n)).await.unwrap().await.unwrap() }));
        // One thread: the caller runs until it waits.
        tokio::task::yield_now().await;
    }
    fake.set_silent(false);
    receipts(first).await;
    for caller in callers {
        soon(caller).await.unwrap();
    }
    assert_eq!(fake.records(), (0..20).map(record).collect::<Vec<_>>());
}

#[tokio::test]
async fn small_records_share_datagrams_while_others_are_under_way() {
    let fake = Fake::start();
    let client = builder(&fake).batching(Batching::Linger(Duration::from_secs(3600))).connect().await.unwrap();
    let pending = send_all(&client, 0..5000).await;
    // The last batch is not full, and its linger is an hour: it goes when those before it are acked.
    let receipts = receipts(pending).await;
    assert_eq!(fake.records(), (0..5000).map(record).collect::<Vec<_>>());
    let memory = fake.memory();
    assert!(memory.taken.len() < 100, "{} datagrams", memory.taken.len());
    let places: HashSet<_> = receipts.iter().map(|receipt| (receipt.seq, receipt.index)).collect();
    assert_eq!(places.len(), 5000, "(seq, index) is a record's name");
    for (n, receipt) in receipts.iter().enumerate() {
        let taken = memory.taken.iter().find(|taken| taken.seq == receipt.seq.0).unwrap();
        assert_eq!(taken.records[usize::from(receipt.index)], record(n));
    }
}

#[tokio::test]
async fn a_lone_record_is_neither_held_back_nor_sent_as_a_batch() {
    let fake = Fake::start();
    let client = builder(&fake).batching(Batching::Linger(Duration::from_secs(3600))).connect().await.unwrap();
    for n in 0..5 {
        receipts(send_all(&client, n..n + 1).await).await;
    }
    let memory = fake.memory();
    assert_eq!(memory.taken.len(), 5);
    assert!(memory.taken.iter().all(|taken| !taken.batch));
}

#[tokio::test]
async fn a_batch_ends_at_another_channel_and_order_is_kept() {
    let fake = Fake::start();
    fake.set_silent(true);
    let client = builder(&fake).batching(Batching::Linger(Duration::from_secs(3600))).connect().await.unwrap();
    let mut pending = Vec::new();
    for (channel, record) in [(1, "a"), (1, "b"), (2, "c"), (1, "d"), (1, "")] {
        pending.push(client.send_on(channel, record.as_bytes()).await.unwrap());
    }
    pending.push(client.send_on(1, &[b'x'; 1168]).await.unwrap());
    fake.set_silent(false);
    client.flush().await;
    receipts(pending).await;
    let mut taken = fake.memory().taken.clone();
    taken.sort_by_key(|taken| taken.seq);
    let flat: Vec<_> = taken
        .iter()
        .flat_map(|taken| taken.records.iter().map(|r| (taken.channel, r.first().copied(), r.len())))
        .collect();
    assert_eq!(
        flat,
        [
            (1, Some(b'a'), 1),
            (1, Some(b'b'), 1),
            (2, Some(b'c'), 1),
            (1, Some(b'd'), 1),
            (1, None, 0),
            (1, Some(b'x'), 1168)
        ]
    );
}

#[tokio::test]
async fn flush_ends_the_lingering() {
    let fake = Fake::start();
    fake.refuse_if(|data| (data.seq.0 == 1 && data.attempt < 1).then_some((RejectCode::Busy, 30)));
    let client = builder(&fake).batching(Batching::Linger(Duration::from_secs(3600))).connect().await.unwrap();
    let first = send_all(&client, 0..1).await;
    let rest = send_all(&client, 1..4).await;
    soon(client.flush()).await;
    for pending in first.into_iter().chain(rest) {
        let mut pending = pin!(pending);
        let ready = std::future::poll_fn(|cx| Poll::Ready(pending.as_mut().poll(cx).is_ready())).await;
        assert!(ready, "flush has waited for it");
    }
}

#[tokio::test]
async fn close_waits_for_the_last_acks() {
    let fake = Fake::start();
    let path = LossyPath::to(fake.addr, Weather::FOUL, 5);
    let client = Client::builder(path.addr().to_string()).batching(Batching::ON).connect().await.unwrap();
    for n in 0..500 {
        // Nobody waits for these: closing does.
        drop(client.send(&record(n)).await.unwrap());
    }
    assert_eq!(soon(client.close(None)).await, Ok(()));
    assert_eq!(fake.records(), (0..500).map(record).collect::<Vec<_>>());
    assert_eq!(client.close(None).await, Ok(()), "again");
    assert_eq!(client.send(b"too late").await.unwrap_err(), SendError::Closed);
}

#[tokio::test]
async fn close_says_what_remained_when_its_deadline_passed() {
    let fake = Fake::start();
    let client = builder(&fake).window(4).connect().await.unwrap();
    receipts(send_all(&client, 0..3).await).await;
    fake.set_silent(true);
    let pending = send_all(&client, 3..7).await;
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.send(b"no room").await.map(drop) }
    });
    tokio::task::yield_now().await;
    let incomplete = Incomplete { unacked: 4, failed: 0 };
    assert_eq!(client.close(Some(Duration::from_millis(50))).await, Err(incomplete));
    assert_eq!(client.close(None).await, Err(incomplete), "again, without waiting");
    for pending in pending {
        assert_eq!(soon(pending).await, Err(SendError::Closed));
    }
    assert_eq!(soon(waiting).await.unwrap(), Err(SendError::Closed));
    soon(client.flush()).await;
    assert_eq!(incomplete.to_string(), "4 records were not acked in time and 0 were refused by the server");
}

#[tokio::test]
async fn dropping_the_last_handle_ends_the_client_at_once() {
    let fake = Fake::start();
    fake.set_silent(true);
    let tasks = tokio::runtime::Handle::current().metrics();
    let before = tasks.num_alive_tasks();
    let client = builder(&fake).connect().await.unwrap();
    let other = client.clone();
    let pending = send_all(&client, 0..3).await;
    assert_eq!(tasks.num_alive_tasks(), before + 1, "one task a client");
    drop(client);
    assert_eq!(other.stats().unacked, 3, "the other handle still is one");
    drop(other);
    for pending in pending {
        assert_eq!(soon(pending).await, Err(SendError::Closed));
    }
    crate::common::wait_for_async("the task to end", || (tasks.num_alive_tasks() == before).then_some(())).await;
}

#[test]
fn a_client_whose_runtime_is_gone_is_closed() {
    let fake = Fake::start();
    fake.set_silent(true);
    let (theirs, ours) = (tokio::runtime::Runtime::new().unwrap(), tokio::runtime::Runtime::new().unwrap());
    let client = theirs.block_on(builder(&fake).connect()).unwrap();
    let pending = ours.block_on(client.send(b"unheard")).unwrap();
    theirs.shutdown_background();
    assert_eq!(ours.block_on(soon(pending)), Err(SendError::Closed));
    assert_eq!(ours.block_on(client.send(b"too late")).unwrap_err(), SendError::Closed);
    assert_eq!(ours.block_on(client.close(None)), Err(Incomplete { unacked: 1, failed: 0 }));
}

#[tokio::test]
async fn foreign_datagrams_do_no_harm_and_are_counted() {
    let fake = Fake::start();
    fake.memory().noise = Some(b"GET / HTTP/1.1\r\n\r\n, sent to the wrong port by someone".to_vec());
    let client = builder(&fake).connect().await.unwrap();
    receipts(send_all(&client, 0..20).await).await;
    assert_eq!(fake.records(), (0..20).map(record).collect::<Vec<_>>());
    assert!(client.stats().ignored > 0);
}

#[tokio::test]
async fn showing_a_client_shows_its_state_and_not_its_buffers() {
    let fake = Fake::start();
    let client = builder(&fake).connect().await.unwrap();
    receipts(send_all(&client, 0..3).await).await;
    let shown = format!("{client:?}");
    assert!(shown.contains("acked: 3") && shown.len() < 2000, "{shown}");
}

#[tokio::test]
async fn a_small_server_window_is_kept() {
    let fake = Fake::start();
    fake.memory().window = 2;
    let client = builder(&fake).connect().await.unwrap();
    receipts(send_all(&client, 0..100).await).await;
    assert_eq!(fake.records(), (0..100).map(record).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_client_that_cannot_begin_says_why() {
    let error = Client::builder("no port in this").connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Server { .. }), "{error}");
    assert!(error.to_string().starts_with("\"no port in this\" is no HOST:PORT: "), "{error}");
    let limits = [
        (Client::builder("127.0.0.1:1").window(0), "window is 0; it must be 1 to 65,536"),
        (Client::builder("127.0.0.1:1").window(65_537), "window is 65537; it must be 1 to 65,536"),
        (Client::builder("127.0.0.1:1").buffer_bytes(0), "buffer_bytes is 0; it must be 1 to 1,073,741,824"),
        (Client::builder("127.0.0.1:1").datagram_bytes_max(32), "datagram_bytes_max is 32; it must be 33 to 65,507"),
        (
            Client::builder("127.0.0.1:1").datagram_bytes_max(65_508),
            "datagram_bytes_max is 65508; it must be 33 to 65,507",
        ),
    ];
    for (builder, message) in limits {
        assert_eq!(builder.connect().await.unwrap_err().to_string(), message);
    }
}
