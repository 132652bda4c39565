//! A path that loses a share of some datagrams in a row, for `scripts/bench burst`: stands between one client of any
//! language and a server.
//!
//! `burst_path SERVER AFTER LENGTH SHARE [first|all|answers] [SEED]` prints `path ADDR`. Of the client's messages, each counted
//! when it is sent first, AFTER pass, and of the next LENGTH the share (in per cent) is lost; what is sent again passes. With `all`
//! every datagram counts, and of LENGTH in a row the share is lost, those that make losses good among them; with `answers` the
//! server's answers are lost that come while so many first transmissions pass. It ends when its standard input does, and prints
//! what passed and what did not.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use nix::sys::socket::{setsockopt, sockopt};

/// More than any window: the path itself must lose nothing else.
const RECEIVE_BUFFER_BYTES: usize = 64 << 20;

/// DATA of version 1, and the bits of its flags that count its transmissions.
const DATA: u8 = 0x11;
const ATTEMPT: u8 = 0b111;

struct Burst {
    within: std::ops::Range<u64>,
    share_percent: u64,
    loses: Loses,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Loses {
    First,
    All,
    Answers,
}

#[derive(Default)]
struct Counts {
    /// Of the client, and of these what counts for the burst.
    datagrams: AtomicU64,
    counted: AtomicU64,
    answers: AtomicU64,
    lost: AtomicU64,
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = || io::Error::other("usage: burst_path SERVER AFTER LENGTH SHARE [first|all|answers] [SEED]");
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<u64>().ok());
    let (Some(server), Some(after), Some(len), Some(share_percent)) =
        (arguments.first(), number(1), number(2), number(3))
    else {
        return Err(usage());
    };
    let loses = match arguments.get(4).map(String::as_str) {
        None | Some("first") => Loses::First,
        Some("all") => Loses::All,
        Some("answers") => Loses::Answers,
        Some(_) => return Err(usage()),
    };
    let burst = Arc::new(Burst { within: after..after + len, share_percent, loses });
    let seed = number(5).unwrap_or(1);

    let (front, back) = (socket()?, socket()?);
    back.connect(server)?;
    {
        let mut out = io::stdout().lock();
        writeln!(out, "path {}", front.local_addr()?)?;
        out.flush()?;
    }
    let counts = Arc::new(Counts::default());
    let client: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
    {
        let (front, back, burst) = (front.try_clone()?, back.try_clone()?, Arc::clone(&burst));
        let (counts, client) = (Arc::clone(&counts), Arc::clone(&client));
        std::thread::spawn(move || forward_datagrams(&front, &back, &burst, &counts, &client, seed));
    }
    {
        let counts = Arc::clone(&counts);
        std::thread::spawn(move || forward_answers(&front, &back, &burst, &counts, &client, seed));
    }
    io::stdin().read_to_end(&mut Vec::new())?;
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (datagrams, answers, lost) = (of(&counts.datagrams), of(&counts.answers), of(&counts.lost));
    writeln!(io::stdout(), "{{\"datagrams\": {datagrams}, \"answers\": {answers}, \"lost\": {lost}}}")
}

fn forward_datagrams(
    front: &UdpSocket,
    back: &UdpSocket,
    burst: &Burst,
    counts: &Counts,
    client: &Mutex<Option<SocketAddr>>,
    seed: u64,
) {
    let (mut dice, mut buffer, mut known) = (Dice(seed), vec![0; 65_536], None);
    loop {
        let Ok((len, from)) = front.recv_from(&mut buffer) else { continue };
        if known != Some(from) {
            known = Some(from);
            *client.lock().expect("no thread panics") = known;
        }
        counts.datagrams.fetch_add(1, Ordering::Relaxed);
        let is_first = len >= 2 && buffer[0] == DATA && buffer[1] & ATTEMPT == 0;
        if is_first || burst.loses == Loses::All {
            let number = counts.counted.fetch_add(1, Ordering::Relaxed);
            let is_lost = burst.loses != Loses::Answers && burst.within.contains(&number);
            if is_lost && dice.percent() < burst.share_percent {
                counts.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
        }
        // A server that is away: as good as lost.
        back.send(&buffer[..len]).ok();
    }
}

fn forward_answers(
    front: &UdpSocket,
    back: &UdpSocket,
    burst: &Burst,
    counts: &Counts,
    client: &Mutex<Option<SocketAddr>>,
    seed: u64,
) {
    let (mut dice, mut buffer) = (Dice(seed), vec![0; 65_536]);
    loop {
        let Ok(len) = back.recv(&mut buffer) else { continue };
        counts.answers.fetch_add(1, Ordering::Relaxed);
        let number = counts.counted.load(Ordering::Relaxed);
        if burst.loses == Loses::Answers && burst.within.contains(&number) && dice.percent() < burst.share_percent {
            counts.lost.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let to = *client.lock().expect("no thread panics");
        if let Some(to) = to {
            front.send_to(&buffer[..len], to).ok();
        }
    }
}

fn socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES)?;
    }
    Ok(socket)
}

struct Dice(u64);

impl Dice {
    fn percent(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % 100
    }
}
