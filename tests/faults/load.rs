//! Clients of the fault tests, and the oracle: what was acked against what came out.
//!
//! A record's bytes follow from its client and number, so what came out can be held against what was sent without
//! keeping it. The client keeps the protocol's rules and nothing else: it sends what fits the window, and again what is
//! not acked.

use std::collections::{BTreeMap, HashSet};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use duragram_proto::codec::{self, Ack, Data, Datagram};
use duragram_proto::{ClientId, Epoch, Seq};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::common::sink::Line;
use crate::common::wire::bytes_of;

/// How long a client waits for an ack before it sends again.
const RETRY: Duration = Duration::from_millis(40);
const EPOCH: u32 = 1;

/// The record with this number of a client: text or not, long or short, none at all.
pub(crate) fn payload(client: u64, seq: u64, bytes_max: usize) -> Vec<u8> {
    let mut random = SmallRng::seed_from_u64(client << 40 ^ seq);
    let mut payload = format!("record {seq} of client {client} ").into_bytes();
    match random.random_range(0..10) {
        0 => payload.clear(),
        1..8 => payload.extend((0..random.random_range(0..bytes_max)).map(|_| random.random::<u8>())),
        _ => {}
    }
    payload
}

/// A client sends and waits by this plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// How many records; `u64::MAX` is forever.
    pub(crate) records: u64,
    pub(crate) window: u64,
    pub(crate) bytes_max: usize,
}

/// What a client has heard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// Every number up to here was acked.
    pub(crate) floor: u64,
    /// Numbers above the floor that were acked too.
    pub(crate) above: HashSet<u64>,
    /// The highest number that was sent.
    pub(crate) sent: u64,
    /// So many REJECTs came with each code.
    pub(crate) rejects: BTreeMap<String, u64>,
    pub(crate) retransmissions: u64,
    /// The longest time without progress.
    pub(crate) stalled: Duration,
}

/// Clients with the ids from 1 on, each at work in a thread of its own. They give up when this is dropped.
pub(crate) struct Crowd {
    clients: Vec<(Arc<Mutex<Heard>>, JoinHandle<()>)>,
    /// Asks the clients to make no new records.
    stop: Arc<AtomicBool>,
    /// Asks the clients to end at once.
    abandon: Arc<AtomicBool>,
}

impl Heard {
    pub(crate) fn acked(&self) -> u64 {
        self.floor + self.above.len() as u64
    }

    fn is_acked(&self, seq: u64) -> bool {
        seq <= self.floor || self.above.contains(&seq)
    }

    /// Takes an ACK in; returns whether it said anything new.
    pub(crate) fn hear(&mut self, ack: &Ack<'_>) -> bool {
        let before = self.acked();
        let bits = ack.bitmap.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
        let above = bits.zip(ack.floor.0 + 1..).filter_map(|(set, seq)| set.then_some(seq));
        self.above.extend(above);
        self.floor = self.floor.max(ack.floor.0);
        while self.above.contains(&(self.floor + 1)) {
            self.floor += 1;
        }
        let floor = self.floor;
        self.above.retain(|&seq| seq > floor);
        self.acked() > before
    }
}

impl Crowd {
    /// `count` clients that begin.
    pub(crate) fn start(server: SocketAddr, count: usize, plan: Plan) -> Self {
        Self::go_on(server, &vec![Heard::default(); count], plan)
    }

    /// Clients that go on from what earlier ones have heard, and send again what those had sent.
    pub(crate) fn go_on(server: SocketAddr, heard: &[Heard], plan: Plan) -> Self {
        let (stop, abandon) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let client = |(id, heard): (u64, &Heard)| {
            let (heard, stop, abandon) = (Arc::new(Mutex::new(heard.clone())), Arc::clone(&stop), Arc::clone(&abandon));
            let thread = {
                let heard = Arc::clone(&heard);
                std::thread::spawn(move || run(server, id, plan, &heard, &stop, &abandon))
            };
            (heard, thread)
        };
        Self { clients: (1..).zip(heard).map(client).collect(), stop, abandon }
    }

    /// What all have heard by now, in the order of their ids.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.clients.iter().map(|(heard, _)| heard.lock().unwrap().clone()).collect()
    }

    /// How many records are acked.
    pub(crate) fn acked(&self) -> u64 {
        self.clients.iter().map(|(heard, _)| heard.lock().unwrap().acked()).sum()
    }

    fn is_done(&self) -> bool {
        self.clients.iter().all(|(_, thread)| thread.is_finished())
    }

    /// Waits until so many more are acked, or all; `false` when that takes longer than `patience`.
    pub(crate) fn wait_acked(&self, more: u64, patience: Duration) -> bool {
        let (target, deadline) = (self.acked() + more, Instant::now() + patience);
        while self.acked() < target && !self.is_done() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// No new records from now on.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether every record is acked, within `patience`.
    pub(crate) fn finish(mut self, patience: Duration) -> Result<Vec<Heard>, String> {
        let deadline = Instant::now() + patience;
        while !self.is_done() {
            if Instant::now() > deadline {
                return Err(format!("after {patience:?} not all is acked: {:?}", self.heard()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let heard = self.heard();
        for (_, thread) in std::mem::take(&mut self.clients) {
            thread.join().map_err(|_| "a client panicked".to_owned())?;
        }
        Ok(heard)
    }

    /// What all have heard when they give up now.
    pub(crate) fn give_up(mut self) -> Vec<Heard> {
        self.abandon.store(true, Ordering::Relaxed);
        let heard = std::mem::take(&mut self.clients).into_iter().map(|(heard, thread)| {
            thread.join().expect("no client panicked");
            let heard = heard.lock().unwrap();
            heard.clone()
        });
        heard.collect()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.abandon.store(true, Ordering::Relaxed);
    }
}

fn run(server: SocketAddr, id: u64, plan: Plan, heard: &Mutex<Heard>, stop: &AtomicBool, abandon: &AtomicBool) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback socket");
    let send = |seq: u64, floor: u64, again: bool| {
        let span = u16::try_from(seq - floor - 1).expect("the window is small");
        let payload = payload(id, seq, plan.bytes_max);
        let data = Data { attempt: u8::from(again), ..Data::whole(ClientId(id), epoch(), Seq(seq), span, &payload) };
        // A network does not report what it could not deliver.
        socket.send_to(&bytes_of(&Datagram::Data(data)), server).ok();
    };
    let mut buffer = vec![0; 65_536];
    let (mut progress, mut again_at) = (Instant::now(), Instant::now());
    let mut credit = plan.window;
    while !abandon.load(Ordering::Relaxed) {
        let now = Instant::now();
        let Heard { floor, sent, .. } = *heard.lock().unwrap();
        let new_to = match stop.load(Ordering::Relaxed) {
            true => sent,
            false => plan.records.min(floor + plan.window.min(credit)).max(sent),
        };
        if floor == sent && (sent == plan.records || stop.load(Ordering::Relaxed)) {
            return;
        }
        // Before it is sent: nobody may know of a record that was not.
        heard.lock().unwrap().sent = new_to;
        (sent + 1..=new_to).for_each(|seq| send(seq, floor, false));
        if now >= again_at {
            let unacked: Vec<u64> = {
                let mut heard = heard.lock().unwrap();
                let unacked: Vec<_> = (floor + 1..=sent).filter(|&seq| !heard.is_acked(seq)).collect();
                heard.retransmissions += unacked.len() as u64;
                unacked
            };
            unacked.into_iter().for_each(|seq| send(seq, floor, true));
            again_at = now + RETRY.max((now - progress) / 4).min(Duration::from_millis(500));
        }
        socket.set_read_timeout(Some(Duration::from_millis(5))).expect("a timeout above 0");
        let len = match socket.recv(&mut buffer) {
            Ok(len) => len,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            // The server is away: the kernel says that nobody listens.
            Err(_) => continue,
        };
        let mut heard = heard.lock().unwrap();
        match codec::decode(&buffer[..len]).expect("the server sends what the protocol allows") {
            Datagram::Ack(ack) => {
                credit = u64::from(ack.credit);
                if heard.hear(&ack) {
                    heard.stalled = heard.stalled.max(progress.elapsed());
                    progress = Instant::now();
                    again_at = progress + RETRY;
                }
            }
            Datagram::Reject(reject) => *heard.rejects.entry(format!("{:?}", reject.code)).or_default() += 1,
            other => panic!("not an answer to DATA: {other:?}"),
        }
    }
}

fn epoch() -> Epoch {
    Epoch::new(EPOCH).expect("not 0")
}

/// What replies told the clients 1 to `count`, and the epochs that they gave out to other clients.
pub(crate) fn overhear<'a>(
    replies: impl IntoIterator<Item = &'a Vec<u8>>,
    heard: &mut [Heard],
    epochs: &mut BTreeMap<u64, u32>,
) -> bool {
    let mut news = false;
    for reply in replies {
        match codec::decode(reply).expect("the server sends what the protocol allows") {
            Datagram::Ack(ack) => {
                let client = usize::try_from(ack.client.0).ok().and_then(|id| heard.get_mut(id.checked_sub(1)?));
                news |= client.is_some_and(|heard| heard.hear(&ack));
            }
            Datagram::Welcome(welcome) => {
                let highest = epochs.entry(welcome.client.0).or_default();
                *highest = welcome.epoch.value().max(*highest);
            }
            _ => {}
        }
    }
    news
}

/// The oracle: every record that the clients have sent, all of which were acked by now, has come out once, as it was
/// sent, and nothing else has.
pub(crate) fn judge(lines: &[Line], heard: &[Heard], bytes_max: usize) -> Result<(), String> {
    let mut seen = HashSet::new();
    let mut offsets = HashSet::new();
    for line in lines {
        let client = u64::from_str_radix(&line.client, 16).map_err(|error| error.to_string())?;
        if line.gap.is_some() {
            return Err(format!("the server was told that it has lost acked data: {line:?}"));
        }
        let sent =
            usize::try_from(client).ok().and_then(|id| heard.get(id.checked_sub(1)?)).map_or(0, |heard| heard.sent);
        let known = line.epoch == EPOCH && line.index == 0 && (1..=sent).contains(&line.seq);
        if !known || line.payload() != payload(client, line.seq, bytes_max) {
            return Err(format!("nobody sent this: {line:?}"));
        }
        if !seen.insert((client, line.seq)) {
            return Err(format!("client {client}, seq {} came out twice", line.seq));
        }
        if !offsets.insert(line.offset) {
            return Err(format!("offset {} was used twice", line.offset));
        }
    }
    for (client, heard) in (1..).zip(heard) {
        if let Some(seq) = (1..=heard.sent).find(|&seq| !seen.contains(&(client, seq))) {
            return Err(format!("client {client}, seq {seq} was acked and has not come out"));
        }
    }
    match offsets.iter().max() {
        Some(&last) if last + 1 != offsets.len() as u64 => {
            Err(format!("{} offsets, the last is {last}", offsets.len()))
        }
        _ => Ok(()),
    }
}
