//! SIGKILL, again and again, under load, through a bad network: acked means on disk; on disk means processed, once.
//!
//! What a kill cannot show is a sync that is missing: the kernel keeps what was written. That no ack leaves before the
//! receipt of a durable commit is shown where the journal can be made to fail, in the tests of `ingest`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::lossy::{LossyPath, Weather};
use crate::common::server::Home;
use crate::common::sink::Line;
use crate::common::wire::{Is, Reply, Wire};
use duragram::client::{Batching, Client, Receipt};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// What a record is known by, wherever it shows up: client, epoch, seq and index.
type Name = (u64, u32, u64, u64);

const CLIENTS: u64 = 8;
const KILLS: usize = 10;
/// Acks between a restart and the next kill.
const ACKS_BETWEEN: u64 = 2000;

/// What the server has said on the wire so far, heard or lost.
#[derive(Default)]
struct Said {
    floors: HashMap<(u64, u32), u64>,
    acked: HashSet<(u64, u32, u64)>,
    /// These floors moved back, which no floor may.
    wrong: Vec<String>,
    /// To be called at the next ack that says something new.
    at_next_ack: Option<Box<dyn Fn() + Send>>,
}

impl Said {
    fn hear(&mut self, bytes: &[u8]) {
        let Is::Ack(ack) = Reply::parse(bytes).is else { return };
        if !ack.duplicate
            && let Some(strike) = self.at_next_ack.take()
        {
            strike();
        }
        let session = (ack.client.0, ack.epoch.value());
        let floor = self.floors.entry(session).or_default();
        if ack.floor < *floor {
            self.wrong.push(format!("the floor of {session:x?} fell from {floor} to {}", ack.floor));
        }
        self.acked.extend((*floor + 1..=ack.floor).map(|seq| (session.0, session.1, seq)));
        self.acked.extend(ack.above.iter().map(|&seq| (session.0, session.1, seq)));
        *floor = ack.floor.max(*floor);
    }
}

/// Some text, some not, short and long, none at all; never the same twice unless empty.
fn payload(random: &mut SmallRng, client: u64, n: u64) -> Vec<u8> {
    let mut payload = format!("client {client} record {n} ").into_bytes();
    match random.random_range(0..10) {
        0 => payload.clear(),
        1..5 => payload.extend((0..random.random_range(0..600)).map(|_| random.random::<u8>())),
        _ => {}
    }
    payload
}

/// Sends without a pause until told to stop; returns what was acked, and under which name.
async fn load(server: String, client: u64, stop: Arc<AtomicBool>, acks: Arc<AtomicU64>) -> Vec<(Receipt, Vec<u8>)> {
    let batching = if client.is_multiple_of(2) { Batching::ON } else { Batching::Off };
    let sender = Client::builder(server)
        .client_id(client)
        .window(256)
        .batching(batching)
        .retry_interval_max(Duration::from_millis(200))
        .connect()
        .await
        .expect("loopback");
    let mut random = SmallRng::seed_from_u64(client);
    let mut receipts = tokio::task::JoinSet::new();
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let record = payload(&mut random, client, n);
        let pending = sender.send(&record).await.expect("it is open and fits");
        let acks = Arc::clone(&acks);
        receipts.spawn(async move {
            let receipt = pending.await.expect("no server refuses this");
            acks.fetch_add(1, Ordering::Relaxed);
            (receipt, record)
        });
    }
    sender.close(None).await.expect("all is acked in the end");
    receipts.join_all().await
}

fn name(line: &Line) -> Name {
    (u64::from_str_radix(&line.client, 16).expect("a client id"), line.epoch, line.seq, line.index)
}

#[test]
fn ten_kills_under_load_lose_nothing_and_repeat_nothing() {
    const SEED: u64 = 20_261_123;
    let mut random = SmallRng::seed_from_u64(SEED);
    // Small steps, so that kills hit checkpoints and trimming too.
    let home = Home::with_config("checkpoint_bytes = 65536\ncheckpoint_interval = \"20ms\"\nlanes = 3\n");
    let mut server = home.serve();

    let said = Arc::new(Mutex::new(Said::default()));
    let tap = Box::new({
        let said = Arc::clone(&said);
        move |bytes: &[u8]| said.lock().unwrap().hear(bytes)
    });
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let path = LossyPath::open(any, server.udp, Weather::FOUL, SEED, Some(tap)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (stop, acks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let loads: Vec<_> = (1..=CLIENTS)
        .map(|client| {
            let (server, stop, acks) = (path.addr().to_string(), Arc::clone(&stop), Arc::clone(&acks));
            runtime.spawn(load(server, client, stop, acks))
        })
        .collect();

    for kill in 0..KILLS {
        let before = acks.load(Ordering::Relaxed);
        crate::common::wait_for("the load to go on", || {
            (acks.load(Ordering::Relaxed) >= before + ACKS_BETWEEN).then_some(())
        });
        if kill % 2 == 0 {
            // At any moment of a commit, a checkpoint, a sink's sync.
            std::thread::sleep(Duration::from_micros(random.random_range(0..30_000)));
            server.kill();
        } else {
            // In the moment of an ack: what it says must be on disk already.
            said.lock().unwrap().at_next_ack = Some(Box::new(server.killer()));
            server.wait();
        }
        server = home.serve();
        path.set_server(server.udp);
        if kill % 3 == 0 {
            path.rebind();
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut acked: BTreeMap<Name, Vec<u8>> = BTreeMap::new();
    for (client, load) in (1..).zip(loads) {
        let receipts = async { tokio::time::timeout(crate::common::PATIENCE, load).await.expect("all is acked soon") };
        let receipts = runtime.block_on(receipts).expect("the load has not panicked");
        for (receipt, record) in receipts {
            let name = (client, receipt.epoch.value(), receipt.seq.0, u64::from(receipt.index));
            assert!(acked.insert(name, record).is_none(), "{name:x?} is the receipt of two records");
        }
    }
    assert!(server.terminate().success());
    let lines = home.lines();

    let said = said.lock().unwrap();
    assert_eq!(said.wrong, Vec::<String>::new());
    let mut offsets = HashMap::new();
    let mut processed: BTreeMap<Name, Vec<u8>> = BTreeMap::new();
    for line in &lines {
        let (client, epoch, seq, index) = name(line);
        let offset = *offsets.entry((client, epoch, seq)).or_insert(line.offset);
        assert_eq!(offset, line.offset, "one offset for {client:x}/{epoch}/{seq}");
        assert!(
            processed.insert((client, epoch, seq, index), line.payload()).is_none(),
            "{client:x}/{epoch}/{seq} index {index} came out twice"
        );
    }
    for acked in &said.acked {
        assert!(offsets.contains_key(acked), "{acked:x?} was acked on the wire and did not come out");
    }
    let distinct: HashSet<_> = offsets.values().collect();
    assert_eq!(distinct.len(), offsets.len(), "one message an offset");
    assert_eq!(*offsets.values().max().unwrap(), offsets.len() as u64 - 1, "no holes");
    assert!(
        processed == acked,
        "what came out is what was acked, byte for byte: {} and {}",
        processed.len(),
        acked.len()
    );
    for client in 1..=CLIENTS {
        let of_client: Vec<_> = lines.iter().filter(|line| name(line).0 == client).map(|line| line.offset).collect();
        assert!(of_client.is_sorted(), "a session comes out in the journal's order");
    }
    assert!(path.counts().lost > 100, "the network was bad: {:?}", path.counts());
}

#[test]
fn kills_during_recovery_do_no_harm() {
    let mut random = SmallRng::seed_from_u64(7);
    let home = Home::with_config("checkpoint_bytes = 65536\n");
    let mut seq = 0;
    for round in 0..3 {
        let server = home.serve();
        let wire = Wire::new(&server, 0x21);
        assert_eq!(wire.ping().floor, seq, "round {round}");
        for _ in 0..100 {
            seq += 1;
            let data = duragram_proto::codec::Data { span: 0, ..wire.data(seq, &[b'z'; 1000]) };
            assert_eq!(wire.ask_ack(&data).floor, seq);
        }
        server.kill();
        for _ in 0..5 {
            let start = Instant::now();
            let mut child =
                home.command(&home.data()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary");
            // Any moment from the first instruction to readiness.
            std::thread::sleep(Duration::from_micros(random.random_range(0..60_000)));
            let early = child.try_wait().expect("our own child");
            assert!(early.is_none(), "ended by itself after {:?}: {early:?}", start.elapsed());
            child.kill().expect("our own child");
            child.wait().expect("our own child");
        }
    }
    let server = home.serve();
    let wire = Wire::new(&server, 0x21);
    assert_eq!(wire.ping().floor, 300);
    assert!(server.terminate().success());
    let seqs: Vec<_> = home.lines().iter().map(|line| (line.offset, line.seq)).collect();
    assert_eq!(seqs, (1..=300).map(|seq| (seq - 1, seq)).collect::<Vec<_>>());
}
