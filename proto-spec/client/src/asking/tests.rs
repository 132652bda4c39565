//! Asking against a server in memory that answers when the test says so.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use duragram_proto::client::FailReason;
use duragram_proto::codec::{self, Ack, Answer as Reply, AnswerStatus, Datagram, Durability, Reject, RejectCode, Take};
use duragram_proto::{ClientId, Epoch, Seq};

use super::*;
use crate::{AskConfig, Builder, Status, blocking};

const PATIENCE: Duration = Duration::from_secs(10);
const EPOCH: Epoch = Epoch::new(7).unwrap();

struct Fake {
    addr: SocketAddr,
    shared: Arc<FakeShared>,
    thread: Option<JoinHandle<()>>,
}

struct FakeShared {
    socket: UdpSocket,
    stop: AtomicBool,
    state: Mutex<FakeState>,
}

#[derive(Default)]
struct FakeState {
    lacks_extension: bool,
    /// Seqs that asked, and their answers.
    asks: HashMap<u64, Option<(AnswerStatus, Vec<u8>)>>,
    takes: Vec<Take>,
    held: HashMap<u64, (SocketAddr, Take)>,
}

impl Fake {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let addr = socket.local_addr().unwrap();
        let (stop, state) = (AtomicBool::new(false), Mutex::default());
        let shared = Arc::new(FakeShared { socket, stop, state });
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.serve()
        });
        Self { addr, shared, thread: Some(thread) }
    }

    fn state(&self) -> MutexGuard<'_, FakeState> {
        self.shared.state.lock().unwrap()
    }

    fn builder(&self) -> Builder {
        Client::builder(self.addr.to_string()).client_id(0xa1).epoch(EPOCH)
    }

    fn answer(&self, seq: u64, status: AnswerStatus, body: &[u8]) {
        let mut state = self.state();
        state.asks.insert(seq, Some((status, body.to_vec())));
        if let Some((peer, take)) = state.held.remove(&seq) {
            self.shared.reply(&state, peer, &take);
        }
    }

    /// Waits until something is so at the server.
    fn until(&self, what: &str, mut is_so: impl FnMut(&FakeState) -> bool) {
        let begun = std::time::Instant::now();
        while !is_so(&self.state()) {
            assert!(begun.elapsed() < PATIENCE, "never: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the fake has not panicked");
        }
    }
}

impl FakeShared {
    fn serve(&self) {
        let mut bytes = [0; 2_048];
        while !self.stop.load(Ordering::Relaxed) {
            let Ok((len, peer)) = self.socket.recv_from(&mut bytes) else { continue };
            let mut state = self.state.lock().unwrap();
            match codec::decode(&bytes[..len]).expect("clients send what the protocol allows") {
                Datagram::Data(data) if data.options != 0 && state.lacks_extension => self.send(
                    peer,
                    &Datagram::Reject(Reject {
                        client: data.client,
                        epoch: data.epoch.value(),
                        code: RejectCode::Unsupported,
                        refused: data.seq.0,
                        retry_after_ms: 0,
                    }),
                ),
                Datagram::Data(data) => {
                    if data.asks() {
                        state.asks.entry(data.seq.0).or_default();
                    }
                    // The loopback neither loses nor reorders.
                    self.send(peer, &Datagram::Ack(ack(data.client, data.epoch, data.seq)));
                }
                Datagram::Take(take) => {
                    state.takes.push(take);
                    match state.asks.get(&take.seq.0) {
                        Some(None) if take.wait_ms > 0 => _ = state.held.insert(take.seq.0, (peer, take)),
                        _ => self.reply(&state, peer, &take),
                    }
                }
                other => panic!("not expected: {other:?}"),
            }
        }
    }

    fn reply(&self, state: &FakeState, peer: SocketAddr, take: &Take) {
        let nothing: &[u8] = &[];
        let (status, number, body) = match state.asks.get(&take.seq.0) {
            None => (AnswerStatus::Gone, 0, nothing),
            Some(None) => (AnswerStatus::Pending, 1_000, nothing),
            Some(Some((status, body))) => {
                let fits = body.len() <= take.room;
                (*status, u32::try_from(body.len()).unwrap(), if fits { &body[..] } else { nothing })
            }
        };
        let (client, epoch, seq) = (take.client, take.epoch, take.seq);
        self.send(peer, &Datagram::Answer(Reply { client, epoch, seq, status, number, body }));
    }

    fn send(&self, peer: SocketAddr, datagram: &Datagram<'_>) {
        let mut out = [0; 2_048];
        let len = datagram.encode(&mut out).unwrap();
        self.socket.send_to(&out[..len], peer).ok();
    }
}

fn ack(client: ClientId, epoch: Epoch, floor: Seq) -> Ack<'static> {
    Ack {
        client,
        epoch,
        floor,
        credit: 1_000,
        durability: Durability::Synced,
        duplicate: false,
        complete: true,
        ready: false,
        delay_us: 0,
        bitmap: &[],
    }
}

/// Runs a test within its patience.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("this does not take so long") })
}

#[test]
fn an_answer_comes_after_the_receipt_with_its_body_however_long() {
    let fake = Fake::start();
    run(async {
        let client = fake.builder().connect().await.unwrap();
        for (seq, len, status, told) in
            [(1, 11, AnswerStatus::Done, Status::Done), (2, 1_100, AnswerStatus::Failed, Status::Failed)]
        {
            let asked = client.ask(b"open valve 7").await.unwrap();
            assert_eq!(asked.receipt.await.unwrap().seq, Seq(seq));
            assert_eq!((client.waiting(), client.stats().asking), (vec![(EPOCH, Seq(seq))], 1));
            fake.until("the TAKE is held", |state| state.held.contains_key(&seq));
            fake.answer(seq, status, &vec![7; len]);
            let answer = asked.answer.await.unwrap();
            assert_eq!((answer.epoch, answer.seq, answer.status), (EPOCH, Seq(seq), told));
            assert_eq!((answer.length as usize, answer.body), (len, vec![7; len]));
        }
        assert_eq!((client.stats().answered, client.stats().asking), (2, 0));
        client.close(None).await.unwrap();
    });
    fake.until("the farewell", |state| state.takes.last().is_some_and(|take| take.base() == Seq(3)));
}

#[test]
fn a_server_without_the_extension_is_said_to_be_one() {
    let fake = Fake::start();
    fake.state().lacks_extension = true;
    run(async {
        let client = fake.builder().connect().await.unwrap();
        let asked = client.ask(b"anybody?").await.unwrap();
        let refused = SendError::Rejected(FailReason::Unsupported);
        assert_eq!((asked.receipt.await, asked.answer.await), (Err(refused), Err(refused)));
        assert!(refused.to_string().contains("answers"), "{refused}");
        client.send(b"then without").await.unwrap().await.unwrap();
    });
}

#[test]
fn the_65th_ask_waits_until_an_answer_is_not_wanted_any_more() {
    let fake = Fake::start();
    run(async {
        let client = fake.builder().connect().await.unwrap();
        let mut asked = Vec::new();
        for _ in 0..64 {
            asked.push(client.ask(b"?").await.unwrap());
        }
        assert_eq!(client.try_ask(b"?").map(drop), Err(SendError::Full));
        client.send(b"no ask").await.unwrap().await.unwrap();
        let waits = client.ask(b"the 65th");
        let mut waits = std::pin::pin!(waits);
        let is_ready = std::future::poll_fn(|cx| Poll::Ready(waits.as_mut().poll(cx).is_ready())).await;
        assert!(!is_ready);
        drop(asked.remove(0).answer);
        let last = waits.await.unwrap();
        assert_eq!(last.receipt.await.unwrap().seq, Seq(66));
        fake.answer(66, AnswerStatus::Done, b"");
        // The first is not waited for any more: no TAKE holds its answer back at the server.
        fake.answer(2, AnswerStatus::Done, b"two");
        assert_eq!(asked.remove(0).answer.await.unwrap().body, b"two");
        fake.until("the base has moved on", |state| state.takes.iter().any(|take| take.base().0 > 1));
    });
}

#[test]
fn a_later_run_takes_what_an_earlier_one_left() {
    let fake = Fake::start();
    let left = run(async {
        let client = fake.builder().asks(AskConfig { wait_ms: 0, ..AskConfig::HELD }).connect().await.unwrap();
        let asked = client.ask(b"slowly").await.unwrap();
        asked.answer.leave();
        let receipt = asked.receipt.await.unwrap();
        assert_eq!(client.waiting(), [(receipt.epoch, receipt.seq)]);
        client.close(None).await.unwrap();
        assert!(fake.state().takes.is_empty(), "a TAKE would end what is left");
        receipt
    });
    fake.answer(1, AnswerStatus::Done, b"done at last");
    run(async {
        let client = Client::builder(fake.addr.to_string()).client_id(0xa1).connect().await.unwrap();
        let answer = client.take(left.epoch, left.seq).unwrap().await.unwrap();
        assert_eq!((answer.seq, answer.status, &answer.body[..]), (Seq(1), Status::Done, &b"done at last"[..]));
        let gone = client.take(left.epoch, Seq(9)).unwrap().await.unwrap();
        assert_eq!(gone.status, Status::Gone);
    });
}

#[test]
fn an_answer_that_was_left_can_be_taken_in_the_same_run_too() {
    let fake = Fake::start();
    run(async {
        let client = fake.builder().connect().await.unwrap();
        let asked = client.ask(b"for now").await.unwrap();
        asked.answer.leave();
        let receipt = asked.receipt.await.unwrap();
        fake.answer(1, AnswerStatus::Done, b"done");
        let taken = client.take(receipt.epoch, receipt.seq).unwrap();
        let answer = tokio::time::timeout(PATIENCE, taken).await.expect("it is never taken").unwrap();
        assert_eq!((answer.status, &answer.body[..]), (Status::Done, &b"done"[..]));
    });
}

#[test]
fn who_takes_an_answer_by_its_place_gets_it_also_where_its_message_was_sent_in_this_run() {
    let fake = Fake::start();
    run(async {
        let client = fake.builder().connect().await.unwrap();
        let asked = client.ask(b"twice").await.unwrap();
        let receipt = asked.receipt.await.unwrap();
        let taken = client.take(receipt.epoch, receipt.seq).unwrap();
        fake.answer(1, AnswerStatus::Done, b"done");
        let both = async { (asked.answer.await.unwrap(), taken.await.unwrap()) };
        let (one, other) = tokio::time::timeout(PATIENCE, both).await.expect("one of them is never told");
        assert_eq!((one.body, other.body), (b"done".to_vec(), b"done".to_vec()));
    });
}

#[test]
fn who_takes_an_answer_can_tell_a_server_that_does_not_reply_from_one_that_has_no_answer_yet() {
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
    let fake = Fake::start();
    run(async {
        let config = AskConfig { first_wait_ms: 10, ..AskConfig::HELD };
        let of = |addr: SocketAddr| Client::builder(addr.to_string()).client_id(0xa1).epoch(EPOCH).asks(config);
        let unheard = of(nobody.local_addr().unwrap()).connect().await.unwrap();
        let heard = of(fake.addr).connect().await.unwrap();
        let _waits = (unheard.take(EPOCH, Seq(1)).unwrap(), heard.take(EPOCH, Seq(1)).unwrap());
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !unheard.stats().takes_unheard {
            assert!(tokio::time::Instant::now() < deadline, "it is never noticed");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!heard.stats().takes_unheard);
    });
}

#[test]
fn a_sleeper_asks_for_answers_when_it_wakes() {
    let fake = Fake::start();
    run(async {
        let client = fake.builder().asks(AskConfig::SLEEPER).connect().await.unwrap();
        let asked = client.ask(b"later").await.unwrap();
        asked.receipt.await.unwrap();
        fake.answer(1, AnswerStatus::Done, b"now");
        assert!(fake.state().takes.is_empty());
        client.wake();
        assert_eq!(asked.answer.await.unwrap().body, b"now");
        assert_eq!(fake.state().takes[0].wait_ms, 0);
    });
}

#[test]
fn what_waits_when_the_client_ends_says_so() {
    let fake = Fake::start();
    run(async {
        let client = fake.builder().connect().await.unwrap();
        let asked = client.ask(b"?").await.unwrap();
        asked.receipt.await.unwrap();
        client.close(None).await.unwrap();
        assert_eq!(asked.answer.await, Err(SendError::Closed));
        assert_eq!(client.ask(b"?").await.map(drop), Err(SendError::Closed));
        assert_eq!(client.take(EPOCH, Seq(1)).map(drop), Err(SendError::Closed));
    });
    assert!(fake.state().takes.iter().all(|take| take.seq == Seq(1)), "no farewell: it may be taken later");
}

#[test]
fn an_answer_can_be_waited_for_without_async() {
    let fake = Fake::start();
    let client = blocking::Client::connect(fake.builder()).unwrap();
    let asked = client.ask_on(3, b"?").unwrap();
    asked.receipt.wait().unwrap();
    assert_eq!(client.waiting(), [(EPOCH, Seq(1))]);
    fake.answer(1, AnswerStatus::Done, b"!");
    assert_eq!(asked.answer.wait().unwrap().body, b"!");
    client.close(None).unwrap();
}
