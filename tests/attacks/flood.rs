//! A flood of forged datagrams, each from another address, while one honest load works.
//!
//! The addresses are those of 127.0.0.0/8, any of which a datagram may claim to come from on this machine.

#![allow(clippy::print_stdout)] // what was measured

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{count, home};
use crate::common::server::{Home, Server, duragram};
use crate::common::wait_for;
use crate::common::wire::{BURST, bytes_of};
use duragram_proto::codec::{self, Data, Datagram, Hello, Ping};
use duragram_proto::seal::{ClientKey, FleetKey};
use duragram_proto::{ClientId, Epoch, Seq};
use nix::libc::{in_addr, in_pktinfo};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

/// An attacker sends so many forged datagrams a second.
const FLOOD_PER_S: u64 = 200_000;

/// A fleet key makes every client one that has a key: the dearest case, since keys are derived for each forgery.
const FLEET: &str = "fleet 0303030303030303030303030303030303030303030303030303030303030303\n";

/// Other tests run beside it, so that it says little of how fast; the long form does.
#[test]
fn an_honest_client_works_on_under_a_flood_of_forged_sources() {
    flood(Duration::from_secs(2), 0.01);
}

/// `scripts/soak flood`.
#[test]
#[ignore = "half a minute, and a machine of its own"]
fn an_honest_client_keeps_half_of_its_throughput_under_a_flood() {
    flood(Duration::from_secs(10), 0.5);
}

/// `share`: of what the honest load does alone, what it must do under the flood.
fn flood(duration: Duration, share: f64) {
    let home = home(FLEET, "");
    let server = serve(&home);
    let quiet = load(&home, &server, duration);
    // The flood is made on this machine too: what that costs is there in both, and only whom it meets differs.
    let elsewhere = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let making = Flood::start(elsewhere.local_addr().expect("bound"));
    let alone = load(&home, &server, duration);
    making.stop();
    let memory = server.metric("process_resident_memory_bytes", "");
    let before = server.metric("duragram_received_bytes_total", "");
    let flooding = Flood::start(server.udp);
    let flooded = load(&home, &server, duration);
    let (sent, seconds) = flooding.stop();
    let memory_after = server.metric("process_resident_memory_bytes", "");
    let dropped: f64 = ["bad_seal", "checksum", "malformed", "limited", "sealed_only"]
        .iter()
        .map(|outcome| count(&server, outcome))
        .sum();
    let rejects = server.metric("duragram_replies_total", "\"reject\"");
    let (alone_per_s, flooded_per_s) = (rate(&alone), rate(&flooded));
    println!(
        "{:.0}/s; while as much is forged for another port {alone_per_s:.0}/s, under {:.0} forged/s {flooded_per_s:.0}/s: {:.2}; {dropped} of {sent} forged reached the \
         server, {rejects} were answered, {} kernel drops, memory {:.0} to {:.0} MiB",
        rate(&quiet),
        sent as f64 / seconds,
        flooded_per_s / alone_per_s,
        server.metric("duragram_kernel_drops_total", ""),
        memory / 1048576.0,
        memory_after / 1048576.0,
    );
    assert!(flooded_per_s >= share * alone_per_s, "the honest load starves");
    assert!(dropped > 10_000.0, "there was no flood to speak of");
    // Nobody false was journaled, and no session opened.
    let sum = |key: &str| {
        [&quiet, &alone, &flooded].iter().map(|report| report[key].as_f64().expect("a number")).sum::<f64>()
    };
    let journaled = count(&server, "journaled");
    assert!(
        (sum("acked")..=sum("acked") + sum("unacked")).contains(&journaled),
        "{journaled} journaled: {quiet} {alone} {flooded}"
    );
    assert_eq!(server.metric("duragram_sessions", ""), 12.0);
    assert!(rejects <= 10_000.0 * (seconds + 2.0), "{rejects} answers to forged sources");
    assert!(server.metric("duragram_received_bytes_total", "") > before);
    assert!(memory_after - memory < 128e6, "{memory} to {memory_after} bytes");
    assert_eq!(server.terminate().code(), Some(0));
}

/// As many as an ordinary fleet, three times what the server's cache of keys once held: each is heard under the flood,
/// though it has said nothing since before.
#[test]
fn none_of_fifty_thousand_sessions_at_work_is_locked_out_by_a_flood() {
    const SESSIONS: u64 = 50_000;
    let home = home(FLEET, "");
    let server = serve(&home);
    let fleet = FleetKey::new([3; 32]);
    let keys: Vec<_> =
        (1..=SESSIONS).map(|client| fleet.client_key(ClientId(client)).keys(ClientId(client), Some(EPOCH))).collect();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    // Sends something in each session's name, and returns those that were not answered within a few tries.
    let silent = |tries: usize, what: &dyn Fn(ClientId) -> Datagram<'static>| {
        let mut left: BTreeSet<u64> = (1..=SESSIONS).collect();
        let mut counter = 0;
        for _ in 0..tries {
            for burst in Vec::from_iter(left.iter().copied()).chunks(BURST) {
                let mut waiting = burst.len();
                for &client in burst {
                    counter += 1;
                    let mut bytes = [0; 100];
                    let keys = &keys[usize::try_from(client - 1).expect("an index")];
                    let len = what(ClientId(client)).seal(keys, counter, &mut bytes).expect("it fits");
                    socket.send_to(&bytes[..len], server.udp).expect("loopback takes it");
                }
                socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout above 0");
                let mut buffer = [0; 2048];
                while waiting > 0
                    && let Ok(len) = socket.recv(&mut buffer)
                {
                    let head = codec::peek(&buffer[..len]).expect("a sealed reply");
                    waiting -= usize::from(left.remove(&head.client.0));
                }
            }
        }
        left.len()
    };
    let data = |client| Datagram::Data(Data::whole(client, EPOCH, Seq(1), 0, b"at work"));
    assert_eq!(silent(5, &data), 0);
    let stop = Arc::new(AtomicBool::new(false));
    let flooding = thread::spawn({
        let (stop, to) = (Arc::clone(&stop), server.udp);
        move || forge_keys(&stop, to)
    });
    wait_for("the flood to be more than the server looks at", || (count(&server, "limited") > 10_000.0).then_some(()));
    let silent = silent(2, &|client| Datagram::Ping(Ping { client, epoch: EPOCH }));
    stop.store(true, Ordering::Relaxed);
    flooding.join().expect("it has no cause to panic");
    // A datagram may be lost for want of room in the socket's buffer, twice in a row hardly ever.
    assert!(silent < 500, "{silent} of {SESSIONS} sessions were not heard");
}

/// Some 200,000 datagrams a second, each of a session that the server does not know, 64 a system call.
fn forge_keys(stop: &AtomicBool, to: SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let false_keys = ClientKey::new([0x55; 32]).keys(ClientId(1), Some(EPOCH));
    let mut forged = [0; 100];
    let ping = Datagram::Ping(Ping { client: ClientId(1 << 40), epoch: EPOCH });
    let len = ping.seal(&false_keys, 1, &mut forged).expect("it fits");
    let to = SockaddrStorage::from(to);
    let each = u16::try_from(len).expect("a small one");
    let (began, mut n) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        #[allow(clippy::cast_possible_truncation)] // far below
        if n >= (began.elapsed().as_micros() as u64) / 5 {
            thread::sleep(Duration::from_micros(300));
            continue;
        }
        let mut joined = forged[..len].repeat(64);
        for one in joined.chunks_mut(len) {
            n += 1;
            one[8..16].copy_from_slice(&((1u64 << 40) + n).to_le_bytes());
        }
        let (iov, control) = ([IoSlice::new(&joined)], [ControlMessage::UdpGsoSegments(&each)]);
        sendmsg(socket.as_raw_fd(), &iov, &control, MsgFlags::MSG_DONTWAIT, Some(&to)).ok();
    }
}

const EPOCH: Epoch = Epoch::new(1).expect("not 0");

fn serve(home: &Home) -> Server {
    let mut command = duragram();
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--sink", "null"]);
    command.arg("--keys").arg(home.path().join("keys")).arg("--data").arg(home.data());
    Server::try_start(home, command).expect("it starts")
}

/// As fast as acks come, sealed.
fn load(home: &Home, server: &Server, duration: Duration) -> Value {
    let mut command = duragram();
    command.args(["load", "--clients", "4", "--window", "256", "--json", "--server", &server.udp.to_string()]);
    command.args(["--seconds", &duration.as_secs().to_string(), "--key-file"]).arg(home.path().join("keys"));
    let output = command.output().expect("the binary");
    // 1: some were not acked in time, which is for the caller to judge.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn rate(report: &Value) -> f64 {
    report["acked_per_s"].as_f64().expect("a number")
}

struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: thread::JoinHandle<()>,
    began: Instant,
}

impl Flood {
    fn start(server: SocketAddr) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = thread::spawn({
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            move || {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
                let forged = forgeries();
                let (to, began) = (SockaddrStorage::from(server), Instant::now());
                let mut n = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    #[allow(clippy::cast_possible_truncation)] // far below
                    let due = (began.elapsed().as_micros() as u64) * FLOOD_PER_S / 1_000_000;
                    if n >= due {
                        thread::sleep(Duration::from_micros(200));
                        continue;
                    }
                    let next = due.min(n + 1_000);
                    while n < next {
                        // 127.1.0.0 and on: not the one that servers trust to be their own.
                        let from = u32::from(Ipv4Addr::new(127, 1, 0, 0))
                            .wrapping_add(u32::try_from(n % (14 << 20)).expect("below 2^24"));
                        let source = in_pktinfo {
                            ipi_ifindex: 0,
                            ipi_spec_dst: in_addr { s_addr: from.to_be() },
                            ipi_addr: in_addr { s_addr: 0 },
                        };
                        let iov = [IoSlice::new(&forged[usize::try_from(n).expect("far below") % forged.len()])];
                        let control = [ControlMessage::Ipv4PacketInfo(&source)];
                        sendmsg(socket.as_raw_fd(), &iov, &control, MsgFlags::MSG_DONTWAIT, Some(&to)).ok();
                        n += 1;
                    }
                    sent.store(n, Ordering::Relaxed);
                }
            }
        });
        Self { stop, sent, thread, began: Instant::now() }
    }

    /// How many were sent, and in how many seconds.
    fn stop(self) -> (u64, f64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it has no cause to panic");
        (self.sent.load(Ordering::Relaxed), self.began.elapsed().as_secs_f64())
    }
}

/// Of every kind, for many clients: sealed by other keys, plain with a good checksum, garbled.
fn forgeries() -> Vec<Vec<u8>> {
    let mut rng = SmallRng::seed_from_u64(3);
    let false_key = ClientKey::new([0x55; 32]);
    let forge = |n: u64| {
        let client = ClientId(rng.random_range(0..1 << 20));
        let epoch = Epoch::new(rng.random_range(1..u32::MAX)).expect("not 0");
        let payload = vec![b'x'; rng.random_range(0..200)];
        let datagram = match n % 8 {
            0 => Datagram::Hello(Hello { client, nonce: n }),
            1 => Datagram::Ping(Ping { client, epoch }),
            _ => Datagram::Data(Data::whole(client, epoch, Seq(rng.random_range(1..1 << 40)), 0, &payload)),
        };
        match n % 3 {
            0 => bytes_of(&datagram),
            _ => {
                let mut bytes = vec![0; 1500];
                let epoch = (!n.is_multiple_of(8)).then_some(epoch);
                let len = datagram.seal(&false_key.keys(client, epoch), n, &mut bytes).expect("it fits");
                bytes.truncate(len);
                if n % 24 == 5 {
                    bytes[1] ^= 8;
                }
                bytes
            }
        }
    };
    (0..4096).map(forge).collect()
}
