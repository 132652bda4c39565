//! A server that journals in memory: the rules of a session without disk, for tests of clients.

use std::collections::{BTreeSet, HashMap};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use duragram_proto::codec::{
    self, Ack, BITMAP_LEN_MAX, Data, Datagram, Durability, MIN_LEN, Reject, RejectCode, Welcome,
};
use duragram_proto::{ClientId, Epoch, Seq};

/// What the server has taken, as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Taken {
    pub(crate) client: ClientId,
    pub(crate) epoch: u32,
    pub(crate) seq: u64,
    pub(crate) channel: u16,
    pub(crate) batch: bool,
    pub(crate) records: Vec<Vec<u8>>,
}

/// Looks at a message before it is taken; a code refuses it, with the milliseconds to wait.
type Doorkeeper = Box<dyn FnMut(&Data<'_>) -> Option<(RejectCode, u32)> + Send>;

/// What outlives a move to another port.
pub(crate) struct Memory {
    pub(crate) taken: Vec<Taken>,
    /// Datagrams that came, of any kind.
    pub(crate) arrived: u64,
    pub(crate) hellos: u64,
    /// Clients were seen at these addresses.
    pub(crate) peers: BTreeSet<SocketAddr>,
    /// Nothing is read nor answered.
    pub(crate) silent: bool,
    /// Every reply is preceded by these bytes in a datagram of their own.
    pub(crate) noise: Option<Vec<u8>>,
    pub(crate) window: u16,
    doorkeeper: Doorkeeper,
    sessions: HashMap<(u64, u32), (u64, BTreeSet<u64>)>,
    last_epoch: u32,
}

/// A running fake; stops when dropped.
pub(crate) struct Fake {
    pub(crate) addr: SocketAddr,
    memory: Arc<Mutex<Memory>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let memory = Memory {
            taken: Vec::new(),
            arrived: 0,
            hellos: 0,
            peers: BTreeSet::new(),
            silent: false,
            noise: None,
            window: 1024,
            doorkeeper: Box::new(|_| None),
            sessions: HashMap::new(),
            last_epoch: 1_000,
        };
        Self::on((Ipv4Addr::LOCALHOST, 0).into(), Arc::new(Mutex::new(memory)))
    }

    fn on(addr: SocketAddr, memory: Arc<Mutex<Memory>>) -> Self {
        let socket = UdpSocket::bind(addr).expect("a loopback socket");
        socket.set_read_timeout(Some(Duration::from_millis(10))).expect("a timeout above 0");
        let addr = socket.local_addr().expect("it is bound");
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (memory, stop) = (Arc::clone(&memory), Arc::clone(&stop));
            move || serve(&socket, &memory, &stop)
        });
        Self { addr, memory, stop, thread: Some(thread) }
    }

    /// Stops, and goes on at another port with the same memory.
    pub(crate) fn moved(self) -> Self {
        let memory = Arc::clone(&self.memory);
        drop(self);
        Self::on((Ipv4Addr::LOCALHOST, 0).into(), memory)
    }

    /// Stops listening: the kernel refuses datagrams. Goes on at the same port with what is returned.
    pub(crate) fn away(self) -> impl FnOnce() -> Self {
        let (addr, memory) = (self.addr, Arc::clone(&self.memory));
        drop(self);
        move || Self::on(addr, memory)
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("the fake has not panicked")
    }

    pub(crate) fn refuse_if(&self, doorkeeper: impl FnMut(&Data<'_>) -> Option<(RejectCode, u32)> + Send + 'static) {
        self.memory().doorkeeper = Box::new(doorkeeper);
    }

    pub(crate) fn set_silent(&self, silent: bool) {
        self.memory().silent = silent;
    }

    /// The records in the order of their seqs, of all sessions.
    pub(crate) fn records(&self) -> Vec<Vec<u8>> {
        let mut taken = self.memory().taken.clone();
        taken.sort_by_key(|taken| (taken.client, taken.epoch, taken.seq));
        taken.into_iter().flat_map(|taken| taken.records).collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the fake has not panicked");
        }
    }
}

fn serve(socket: &UdpSocket, memory: &Mutex<Memory>, stop: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let (len, peer) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(error) => panic!("{error}"),
        };
        let mut memory = memory.lock().expect("the test has not panicked");
        memory.arrived += 1;
        memory.peers.insert(peer);
        if memory.silent {
            continue;
        }
        let reply = memory.answer(&buffer[..len]);
        if let Some(noise) = &memory.noise {
            socket.send_to(noise, peer).expect("loopback takes it");
        }
        drop(memory);
        if let Some(reply) = reply {
            // The client may be gone by now.
            socket.send_to(&reply, peer).ok();
        }
    }
}

impl Memory {
    fn answer(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let datagram = codec::decode(bytes).expect("clients send what the protocol allows");
        match datagram {
            Datagram::Data(data) => Some(self.take(&data, bytes.len())),
            Datagram::Hello(hello) => {
                self.hellos += 1;
                self.last_epoch += 1;
                let epoch = Epoch::new(self.last_epoch).expect("above 0");
                let welcome = Welcome { client: hello.client, epoch, credit: self.window, nonce: hello.nonce };
                Some(encode(&Datagram::Welcome(welcome)))
            }
            Datagram::Ping(ping) => Some(self.ack(ping.client, ping.epoch, bytes.len(), true)),
            other => panic!("clients do not send {other:?}"),
        }
    }

    fn take(&mut self, data: &Data<'_>, request: usize) -> Vec<u8> {
        let refused = (self.doorkeeper)(data);
        let window = u64::from(self.window);
        let (floor, above) = self
            .sessions
            .entry((data.client.0, data.epoch.value()))
            .or_insert_with(|| (data.base().0 - 1, BTreeSet::new()));
        let base = data.base().0;
        assert!(base - 1 <= *floor || data.skip, "the client claims acks that it never had: {data:?}, floor {floor}");
        *floor = (*floor).max(base - 1);
        above.retain(|seq| *seq > *floor);
        while above.remove(&(*floor + 1)) {
            *floor += 1;
        }
        let seq = data.seq.0;
        let duplicate = seq <= *floor || above.contains(&seq);
        let refused = match refused {
            _ if duplicate => None,
            None if seq > *floor + window => Some((RejectCode::BeyondWindow, 0)),
            other => other,
        };
        if let Some((code, retry_after_ms)) = refused {
            return encode(&Datagram::Reject(Reject {
                client: data.client,
                epoch: data.epoch.value(),
                code,
                refused: seq,
                retry_after_ms,
            }));
        }
        if !duplicate {
            above.insert(seq);
            while above.remove(&(*floor + 1)) {
                *floor += 1;
            }
            self.taken.push(Taken {
                client: data.client,
                epoch: data.epoch.value(),
                seq,
                channel: data.channel,
                batch: data.batch,
                records: data.records().map(<[u8]>::to_vec).collect(),
            });
        }
        self.ack(data.client, data.epoch, request, duplicate)
    }

    fn ack(&self, client: ClientId, epoch: Epoch, request: usize, duplicate: bool) -> Vec<u8> {
        let nothing = (0, BTreeSet::new());
        let (floor, above) = self.sessions.get(&(client.0, epoch.value())).unwrap_or(&nothing);
        let mut bitmap = vec![0; ((request - MIN_LEN) / 8 * 8).min(BITMAP_LEN_MAX)];
        let mut complete = true;
        for seq in above {
            let bit = usize::try_from(seq - floor - 1).expect("within the window");
            match bitmap.get_mut(bit / 8) {
                Some(byte) => *byte |= 1 << (bit % 8),
                None => complete = false,
            }
        }
        let words = bitmap.chunks_exact(8).rposition(|word| word != [0; 8]).map_or(0, |last| last + 1);
        encode(&Datagram::Ack(Ack {
            client,
            epoch,
            floor: Seq(*floor),
            credit: self.window,
            durability: Durability::Synced,
            duplicate,
            complete,
            ready: false,
            delay_us: 10,
            bitmap: &bitmap[..words * 8],
        }))
    }
}

fn encode(datagram: &Datagram<'_>) -> Vec<u8> {
    super::wire::bytes_of(datagram)
}
