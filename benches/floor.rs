//! The floor under the work: the least that any server must do which syncs before it acks. Receive what waits, append it to
//! one file, fdatasync, ack. No sessions, no duplicates, no checksums verified, no database, nothing can be read
//! back: a measure to hold the real server against, driven by `duragram load` in the same way.
//!
//! It acks the highest seq that came from each client, so what the kernel drops counts as received: give it windows
//! that fit its socket's buffer.
//!
//! `floor --dir DIR [--listen ADDR] [--laid-out MIB]` prints `floor ready udp=ADDR` and runs until it is killed. With
//! `--laid-out` the file is written full of zeros beforehand and written round, so that a sync need not change the
//! file's size: what a database reaches that uses its log files again.
#![allow(clippy::print_stdout)] // where it listens

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use clap::Parser;
use duragram_proto::codec::{Ack, Datagram, Durability};
use duragram_proto::{ClientId, Epoch, Seq};
use hashbrown::HashMap;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, setsockopt, sockopt,
};

const MESSAGES: usize = 64;
/// Not a power of two, so that the first bytes of all messages do not fall into the same sets of the caches.
const STRIDE: usize = 65_536 + 192;
/// Bytes after which it syncs though more may wait.
const SYNC_BYTES: usize = 8 << 20;
const ROUNDS: usize = 64;

/// The least that a server must do which syncs before it acks.
#[derive(Parser)]
struct Args {
    /// Where the file lies; it is made anew
    #[arg(long)]
    dir: PathBuf,
    /// UDP address
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Size of a file that is written round; without, the file grows
    #[arg(long, value_name = "MIB")]
    laid_out: Option<u64>,
}

/// What came from a client since the last sync.
struct Heard {
    from: SockaddrStorage,
    epoch: u32,
    highest: u64,
}

struct Log {
    file: File,
    at: u64,
    /// Where the file is written from its beginning again.
    round: u64,
}

impl Log {
    fn make(args: &Args) -> io::Result<Self> {
        let path = args.dir.join("floor.log");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
        let zeros = vec![0; 1 << 20];
        for _ in 0..args.laid_out.unwrap_or(0) {
            file.write_all(&zeros)?;
        }
        file.sync_all()?;
        Ok(Self { file, at: 0, round: args.laid_out.map_or(u64::MAX, |mib| mib << 20) })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.at + bytes.len() as u64 > self.round {
            self.at = 0;
        }
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        self.file.sync_data()
    }
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let mut log = Log::make(&args)?;
    let socket = UdpSocket::bind(args.listen)?;
    if setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20)).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &(64 << 20))?;
    }
    setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
    println!("floor ready udp={}", socket.local_addr()?);
    io::stdout().flush()?;

    let mut slab = vec![0; MESSAGES * STRIDE];
    let mut unsynced = Vec::with_capacity(SYNC_BYTES * 2);
    let mut heard = HashMap::new();
    loop {
        let mut flags = MsgFlags::MSG_WAITFORONE;
        for _ in 0..ROUNDS {
            let full = receive(&socket, &mut slab, flags, &mut unsynced, &mut heard)?;
            flags = MsgFlags::MSG_DONTWAIT;
            if !full || unsynced.len() >= SYNC_BYTES {
                break;
            }
        }
        log.append(&unsynced)?;
        unsynced.clear();
        ack(&socket, &heard)?;
        heard.clear();
    }
}

/// One system call's worth. Returns whether more probably waits.
fn receive(
    socket: &UdpSocket,
    slab: &mut [u8],
    flags: MsgFlags,
    unsynced: &mut Vec<u8>,
    heard: &mut HashMap<u64, Heard>,
) -> io::Result<bool> {
    let mut messages = [(None, 0, 0); MESSAGES];
    let mut count = 0;
    {
        // Made anew for each call: see `net::receive`.
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(MESSAGES, Some(cmsg_space!(i32)));
        let mut places = slab.chunks_exact_mut(STRIDE);
        let mut slices: [[IoSliceMut<'_>; 1]; MESSAGES] =
            std::array::from_fn(|_| [IoSliceMut::new(places.next().map_or(&mut [][..], |place| &mut place[..65_535]))]);
        match recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None) {
            Ok(received) => {
                for message in received {
                    let segment = message.cmsgs()?.find_map(|control| match control {
                        ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
                        _ => None,
                    });
                    messages[count] = (message.address, message.bytes, segment.unwrap_or(message.bytes).max(1));
                    count += 1;
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    for ((from, len, segment), place) in messages[..count].iter().zip(slab.chunks_exact(STRIDE)) {
        let Some(from) = from else { continue };
        unsynced.extend_from_slice(&place[..*len]);
        for datagram in place[..*len].chunks(*segment) {
            let Some(fields) = datagram.get(4..24) else { continue };
            let field = |at: usize| u64::from_le_bytes(fields[at..at + 8].try_into().expect("8 bytes"));
            let epoch = u32::from_le_bytes(fields[..4].try_into().expect("4 bytes"));
            let client = heard.entry(field(4)).or_insert(Heard { from: *from, epoch, highest: 0 });
            client.from = *from;
            client.highest = client.highest.max(field(12));
        }
    }
    Ok(count == MESSAGES)
}

fn ack(socket: &UdpSocket, heard: &HashMap<u64, Heard>) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(heard.len() * 32);
    let mut addresses = Vec::with_capacity(heard.len());
    for (client, Heard { from, epoch, highest }) in heard {
        let Some(epoch) = Epoch::new(*epoch) else { continue };
        let ack = Ack {
            client: ClientId(*client),
            epoch,
            floor: Seq(*highest),
            credit: u16::MAX,
            durability: Durability::Synced,
            duplicate: false,
            complete: false,
            ready: false,
            delay_us: 0,
            bitmap: &[],
        };
        let mut buffer = [0; 64];
        let len = Datagram::Ack(ack).encode(&mut buffer).expect("an ack without a bitmap is 32 bytes");
        bytes.extend_from_slice(&buffer[..len]);
        addresses.push(Some(*from));
    }
    for (replies, addresses) in bytes.chunks(32 * 256).zip(addresses.chunks(256)) {
        let slices: Vec<_> = replies.chunks(32).map(|reply| [IoSlice::new(reply)]).collect();
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(slices.len(), None);
        let mut done = 0;
        while done < slices.len() {
            match sendmmsg(socket.as_raw_fd(), &mut headers, &slices[done..], &addresses[done..], [], MsgFlags::empty())
            {
                Ok(sent) => done += sent.count().max(1),
                Err(Errno::EINTR) => {}
                Err(_) => done += 1,
            }
        }
    }
    Ok(())
}
