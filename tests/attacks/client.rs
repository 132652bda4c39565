//! Attacks on a client: someone on the path holds back what the server says, and says something else.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{KEYS, home, key};
use crate::common::PATIENCE;
use crate::common::server::Server;
use crate::common::wire::bytes_of;
use duragram::client::Client;
use duragram_proto::codec::{Ack, Datagram, Durability, Reject, RejectCode, Welcome};
use duragram_proto::{ClientId, Epoch, Seq};

/// Between client and server, in both directions.
struct OnPath {
    addr: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    /// Its thread ends with it.
    _alive: Arc<()>,
}

#[derive(Default)]
struct Shared {
    /// What the server says is passed on.
    passes: bool,
    /// What the server has said.
    said: Vec<Vec<u8>>,
    /// What the client has said.
    asked: Vec<Vec<u8>>,
}

/// What the one on the path sends to the client in place of the server's words: made of what both have said.
type Forge = fn(&Shared) -> Vec<Vec<u8>>;

impl OnPath {
    fn start(server: &Server, forge: Forge) -> Self {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback socket");
        let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback socket");
        back.connect(server.udp).expect("loopback");
        for socket in [&front, &back] {
            socket.set_read_timeout(Some(Duration::from_millis(5))).expect("a timeout above 0");
        }
        let (shared, owner) = (Arc::new(Mutex::new(Shared::default())), Arc::new(()));
        let alive = Arc::downgrade(&owner);
        let on_path = Self { addr: front.local_addr().expect("bound"), shared: Arc::clone(&shared), _alive: owner };
        std::thread::spawn(move || {
            let mut client = None;
            let mut buffer = [0; 2048];
            while alive.strong_count() > 0 {
                if let Ok((len, from)) = front.recv_from(&mut buffer) {
                    client = Some(from);
                    back.send(&buffer[..len]).ok();
                    shared.lock().unwrap().asked.push(buffer[..len].to_vec());
                }
                let (Ok(len), Some(client)) = (back.recv(&mut buffer), client) else { continue };
                let mut shared = shared.lock().unwrap();
                shared.said.push(buffer[..len].to_vec());
                let forged = if shared.passes { vec![buffer[..len].to_vec()] } else { forge(&shared) };
                for datagram in forged {
                    front.send_to(&datagram, client).ok();
                }
            }
        });
        on_path
    }

    fn pass(&self) {
        self.shared.lock().unwrap().passes = true;
    }

    fn forges_again(&self) {
        self.shared.lock().unwrap().passes = false;
    }

    fn said(&self) -> usize {
        self.shared.lock().unwrap().said.len()
    }
}

/// Each byte of the server's last word changed, and it cut at each length.
fn mutated(shared: &Shared) -> Vec<Vec<u8>> {
    let Some(last) = shared.said.last() else { return Vec::new() };
    let mut forged: Vec<_> = (0..last.len()).map(|len| last[..len].to_vec()).collect();
    for at in 0..last.len() {
        for bits in [0x01, 0x08, 0xff] {
            let mut bad = last.clone();
            bad[at] ^= bits;
            forged.push(bad);
        }
    }
    forged
}

/// Names, epoch and nonce are in clear, so who is on the path knows them.
fn plain(shared: &Shared) -> Vec<Vec<u8>> {
    let Some(last) = shared.asked.last() else { return Vec::new() };
    let u32_at = |at: usize| u32::from_le_bytes(last[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(last[at..at + 8].try_into().unwrap());
    let (client, long) = (ClientId(u64_at(8)), u64_at(16));
    let epoch = Epoch::new(u32_at(4)).unwrap_or(Epoch::new(9).unwrap());
    let ack = |floor: u64, bitmap| Ack {
        client,
        epoch,
        floor: Seq(floor),
        credit: 1000,
        durability: Durability::Synced,
        duplicate: false,
        complete: false,
        ready: false,
        delay_us: 0,
        bitmap,
    };
    let reject = |code| Reject { client, epoch: u32_at(4), code, refused: long, retry_after_ms: 0 };
    vec![
        bytes_of(&Datagram::Ack(ack(long, &[]))),
        bytes_of(&Datagram::Ack(ack(0, &[0xff; 8]))),
        bytes_of(&Datagram::Welcome(Welcome { client, epoch, credit: 1000, nonce: long })),
        bytes_of(&Datagram::Reject(reject(RejectCode::Version))),
        bytes_of(&Datagram::Reject(reject(RejectCode::SealedOnly))),
        bytes_of(&Datagram::Reject(reject(RejectCode::StaleEpoch))),
        bytes_of(&Datagram::Reject(reject(RejectCode::Channel))),
    ]
}

/// What the client itself has sent, and all that the server said before its last word: to other epochs, to other HELLOs.
fn reflected_and_recorded(shared: &Shared) -> Vec<Vec<u8>> {
    let mut forged: Vec<Vec<u8>> = shared.asked.clone();
    // Turned round: an ACK has the layout of a PING.
    forged.extend(shared.asked.iter().map(|bytes| [&[0x12], &bytes[1..]].concat()));
    // But for the answers to what it asks now: those are the truth, held back.
    let answers =
        |said: &[u8], asked: &[u8]| said[4..16] == asked[4..16] || said[0] == 0x15 && said[16..24] == asked[16..24];
    let true_now = |said: &Vec<u8>| shared.asked.last().is_some_and(|asked| answers(said, asked));
    forged.extend(shared.said.iter().filter(|said| !true_now(said)).cloned());
    forged
}

fn all(shared: &Shared) -> Vec<Vec<u8>> {
    [mutated(shared), plain(shared), reflected_and_recorded(shared)].concat()
}

fn client(on_path: &OnPath, epoch: Option<u32>) -> duragram::client::Builder {
    let builder = Client::builder(on_path.addr.to_string()).client_id(1).key(key(1));
    match epoch {
        Some(epoch) => builder.epoch(Epoch::new(epoch).unwrap()),
        None => builder,
    }
    .retry_interval_max(Duration::from_millis(200))
}

async fn wait_said(on_path: &OnPath, more: usize) {
    let enough = on_path.said() + more;
    crate::common::wait_for_async("the server's words", || (on_path.said() >= enough).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_forged_ack_is_believed() {
    let home = home(KEYS, "");
    let server = home.serve();
    let on_path = OnPath::start(&server, all);
    // An epoch whose acks are recorded, as far as the same seqs go.
    on_path.pass();
    let before = client(&on_path, Some(5)).connect().await.unwrap();
    for _ in 0..3 {
        tokio::time::timeout(PATIENCE, before.send(b"before").await.unwrap()).await.unwrap().unwrap();
    }
    before.close(None).await.unwrap();
    on_path.forges_again();

    let attacked = client(&on_path, Some(6)).connect().await.unwrap();
    let mut pending = attacked.send(b"attacked").await.unwrap();
    // The server has acked it several times; the client has heard hundreds of forgeries in their place.
    tokio::select! {
        receipt = &mut pending => panic!("it believes a forgery: {receipt:?}"),
        () = wait_said(&on_path, 4) => {}
    }
    assert_eq!(attacked.stats().acked, 0);
    on_path.pass();
    let receipt = tokio::time::timeout(PATIENCE, pending).await.unwrap().unwrap();
    assert_eq!((receipt.epoch.value(), receipt.seq), (6, Seq(1)), "nothing has led it astray");
    let payloads: Vec<_> = home.wait_lines(4).iter().map(|line| line.payload()).collect();
    assert_eq!(payloads.last().unwrap(), b"attacked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_forged_welcome_is_believed() {
    let home = home(KEYS, "");
    let server = home.serve();
    let on_path = OnPath::start(&server, all);
    // A WELCOME is recorded, with the acks of its epoch.
    on_path.pass();
    let before = client(&on_path, None).connect().await.unwrap();
    let pending = before.send(b"before").await.unwrap();
    let first = tokio::time::timeout(PATIENCE, pending).await.unwrap().unwrap();
    before.close(None).await.unwrap();
    on_path.forges_again();
    on_path.shared.lock().unwrap().asked.clear();

    let attacked = client(&on_path, None).connect().await.unwrap();
    let mut pending = attacked.send(b"attacked").await.unwrap();
    tokio::select! {
        receipt = &mut pending => panic!("it believes a forgery: {receipt:?}"),
        () = wait_said(&on_path, 4) => {}
    }
    let asked = on_path.shared.lock().unwrap().asked.clone();
    assert!(asked.iter().all(|bytes| bytes[0] == 0x14), "it is in no epoch, so sends HELLO alone");
    on_path.pass();
    let receipt = tokio::time::timeout(PATIENCE, pending).await.unwrap().unwrap();
    assert!(receipt.epoch > first.epoch, "an epoch of its own");
}
