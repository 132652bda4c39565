//! `rude --server ADDR --rate N --seconds S`: clients that keep to no rule, for `scripts/bench overload`.
//!
//! Sends as many datagrams a second, in turn: the first datagram of ever new sessions; one session that never waits for
//! an ack and goes far beyond its credit; seqs that jump by a billion, with SKIP and without; datagrams whose checksum is wrong.
//! Replies are never read. Prints how many were sent.

use std::io::{self, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use duragram_proto::codec::{Data, Datagram};
use duragram_proto::{ClientId, Epoch, Seq};

#[derive(Parser)]
struct Args {
    #[arg(long)]
    server: SocketAddr,
    /// Datagrams to send in each second
    #[arg(long)]
    rate: u32,
    #[arg(long)]
    seconds: f64,
}

const PAYLOAD: [u8; 100] = [7; 100];
const JUMP: u64 = 1_000_000_000;

fn main() -> io::Result<()> {
    let args = Args::parse();
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(args.server)?;
    let begin = Instant::now();
    let mut buffer = [0; 256];
    let mut sent: u64 = 0;
    while begin.elapsed().as_secs_f64() < args.seconds {
        let due = (begin.elapsed().as_secs_f64() * f64::from(args.rate)).floor();
        while (sent as f64) < due {
            let len = datagram(sent).encode(&mut buffer).expect("there is room");
            if sent % 4 == 3 {
                buffer[len - 1] ^= 1;
            }
            // A full buffer loses the datagram, as a network would.
            drop(socket.send(&buffer[..len]));
            sent += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    writeln!(io::stdout(), "{sent}")?;
    Ok(())
}

/// The `n`-th.
fn datagram(n: u64) -> Datagram<'static> {
    let turn = n / 4;
    let (client, seq, span, skip) = match n % 4 {
        0 => (0xbad0_0000_0000 + turn, 1, 0, false),
        1 => (0xbad1, turn + 1, 0, false),
        2 => (0xbad2, turn * JUMP + 1, 0, turn.is_multiple_of(2)),
        _ => (0xbad3, turn + 1, 0, false),
    };
    Datagram::Data(Data {
        skip,
        ..Data::whole(ClientId(client), Epoch::new(1).expect("1 is not 0"), Seq(seq), span, &PAYLOAD)
    })
}
