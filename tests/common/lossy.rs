//! A bad network between clients and a server: loss, duplicates and reordering both ways, and a NAT that can forget.
//!
//! Part of the tests, and on its own the program of `scripts/demo` (`lossy_path.rs`). It knows nothing of the protocol.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::net::UdpSocket;
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;

/// What happens to datagrams, each way. Probabilities from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) loss: f64,
    pub(crate) duplicate: f64,
    /// Held back for a random time of up to `hold_max`, so that later ones overtake.
    pub(crate) reorder: f64,
    pub(crate) hold_max: Duration,
}

impl Weather {
    /// Everything arrives once and in order.
    pub(crate) const CLEAR: Self = Self { loss: 0.0, duplicate: 0.0, reorder: 0.0, hold_max: Duration::ZERO };

    /// The weather of the demo and of the crash tests.
    pub(crate) const FOUL: Self =
        Self { loss: 0.10, duplicate: 0.03, reorder: 0.10, hold_max: Duration::from_millis(5) };
}

/// Datagrams so far, both ways together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) arrived: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) held_back: u64,
}

/// Sees every datagram that the server sends, in order, before the weather does.
pub(crate) type Tap = Box<dyn Fn(&[u8]) + Send + Sync>;

/// The path. Closes when dropped.
pub(crate) struct LossyPath {
    front: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    state: Mutex<State>,
    /// Grows with every `rebind`.
    binding: AtomicU64,
    tap: Option<Tap>,
}

struct State {
    weather: Weather,
    server: SocketAddr,
    random: SmallRng,
    counts: Counts,
}

impl LossyPath {
    /// Carries what comes to `listen` to `server`, and the answers back. The same seed draws the same fates in the order
    /// of arrival.
    pub(crate) fn open(
        listen: SocketAddr,
        server: SocketAddr,
        weather: Weather,
        seed: u64,
        tap: Option<Tap>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let state = State { weather, server, random: SmallRng::seed_from_u64(seed), counts: Counts::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), binding: AtomicU64::new(0), tap });
        // Not `tokio::net`'s bind, which would have to be awaited: tests open paths within a runtime too.
        let socket = std::net::UdpSocket::bind(listen)?;
        socket.set_nonblocking(true)?;
        let front = socket.local_addr()?;
        let socket = {
            let _runtime = runtime.enter();
            Arc::new(UdpSocket::from_std(socket)?)
        };
        runtime.spawn(carry_to_server(socket, Arc::clone(&shared)));
        Ok(Self { front, shared, runtime: Some(runtime) })
    }

    /// A path on a loopback port of its own.
    pub(crate) fn to(server: SocketAddr, weather: Weather, seed: u64) -> Self {
        Self::open((Ipv4Addr::LOCALHOST, 0).into(), server, weather, seed, None).expect("a loopback socket")
    }

    /// Clients send to this address instead of the server's.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.front
    }

    /// From now on the server is there.
    pub(crate) fn set_server(&self, server: SocketAddr) {
        self.shared.state().server = server;
    }

    /// From now on the weather is this.
    pub(crate) fn set_weather(&self, weather: Weather) {
        self.shared.state().weather = weather;
    }

    /// A NAT's reboot: every client comes to the server from a new port, and what is sent to an old one is gone.
    pub(crate) fn rebind(&self) {
        self.shared.binding.fetch_add(1, Ordering::Relaxed);
    }

    /// What has happened so far.
    pub(crate) fn counts(&self) -> Counts {
        self.shared.state().counts
    }
}

impl Drop for LossyPath {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Also when dropped within another runtime, where waiting would be refused.
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long to hold each copy of the next datagram; no copy when it is lost.
    fn fate(&self) -> Vec<Duration> {
        let State { weather, random, counts, .. } = &mut *self.state();
        counts.arrived += 1;
        if random.random_bool(weather.loss) {
            counts.lost += 1;
            return Vec::new();
        }
        let copies = if random.random_bool(weather.duplicate) { 2 } else { 1 };
        counts.duplicated += copies - 1;
        (0..copies)
            .map(|_| {
                if !random.random_bool(weather.reorder) {
                    return Duration::ZERO;
                }
                counts.held_back += 1;
                weather.hold_max.mul_f64(random.random::<f64>())
            })
            .collect()
    }
}

async fn carry_to_server(front: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut ways: HashMap<SocketAddr, (Arc<UdpSocket>, AbortHandle)> = HashMap::new();
    let mut binding = 0;
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((len, client)) = front.recv_from(&mut buffer).await else { continue };
        let server = shared.state().server;
        let now = shared.binding.load(Ordering::Relaxed);
        if now != binding {
            binding = now;
            ways.drain().for_each(|(_, (_, reader))| reader.abort());
        }
        let way = match ways.entry(client) {
            Entry::Occupied(way) => way.into_mut(),
            Entry::Vacant(place) => {
                let any: SocketAddr = match server {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let Ok(socket) = UdpSocket::bind(any).await else { continue };
                let socket = Arc::new(socket);
                let back = carry_to_client(Arc::clone(&socket), Arc::clone(&front), client, Arc::clone(&shared));
                place.insert((socket, tokio::spawn(back).abort_handle()))
            }
        };
        carry(&buffer[..len], &way.0, server, &shared).await;
    }
}

async fn carry_to_client(way: Arc<UdpSocket>, front: Arc<UdpSocket>, client: SocketAddr, shared: Arc<Shared>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((len, _)) = way.recv_from(&mut buffer).await else { continue };
        if let Some(tap) = &shared.tap {
            tap(&buffer[..len]);
        }
        carry(&buffer[..len], &front, client, &shared).await;
    }
}

async fn carry(bytes: &[u8], socket: &Arc<UdpSocket>, to: SocketAddr, shared: &Shared) {
    for hold in shared.fate() {
        if hold.is_zero() {
            // A network does not report what it could not deliver.
            socket.send_to(bytes, to).await.ok();
            continue;
        }
        let (socket, bytes) = (Arc::clone(socket), bytes.to_vec());
        tokio::spawn(async move {
            tokio::time::sleep(hold).await;
            socket.send_to(&bytes, to).await.ok();
        });
    }
}
