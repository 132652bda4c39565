//! Drives all connections in one thread: wait for replies, take them, refill the windows that they freed.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::protocol::{Connect, Connection, Protocol, Reply, Taken};
use crate::tally::Tally;

/// Bytes read at once at most: the replies of a large window.
const READ_BYTES: usize = 256 * 1024;
/// Connections that are served before the next wait.
const EVENTS: usize = 512;
/// With nothing to do it looks at the clock this often.
const WAIT_MS: u16 = 10;
/// Payloads are cut from a random run of bytes at so many places.
const PAYLOADS: usize = 4_096;

/// What is to be done.
pub(crate) struct Plan {
    pub(crate) server: SocketAddr,
    pub(crate) clients: usize,
    pub(crate) window: usize,
    pub(crate) size: usize,
    pub(crate) sending: Duration,
    pub(crate) draining: Duration,
}

/// A load returns this when it has ended.
pub(crate) struct Done {
    pub(crate) tally: Tally,
    /// Acked while new ones were sent, and how long that was.
    pub(crate) acked_in_time: u64,
    pub(crate) seconds: f64,
    /// Refused, or without a reply in the end.
    pub(crate) unacked: u64,
}

/// Runs the plan to its end.
///
/// # Errors
/// A connection failed, or the peer broke its protocol.
pub(crate) fn run(plan: &Plan, connect: &dyn Connect) -> io::Result<Done> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut clients = Vec::with_capacity(plan.clients);
    for at in 0..plan.clients {
        let client = Client::new(connect.connect(plan.server, plan.window)?, plan.window)?;
        epoll.add(&client.stream, EpollEvent::new(EpollFlags::EPOLLIN, at as u64))?;
        clients.push(client);
    }
    let noise: Vec<u8> = (0..PAYLOADS + plan.size).map(|_| rand::random()).collect();
    let mut run = Run { noise, size: plan.size, start: Instant::now(), sending: true, tally: Tally::new() };
    let mut input = vec![0; READ_BYTES];
    for (at, client) in clients.iter_mut().enumerate() {
        client.refill(&mut run);
        client.flush(&epoll, at)?;
    }
    let mut events = vec![EpollEvent::empty(); EVENTS];
    let mut ended: Option<(Duration, u64)> = None;
    loop {
        let elapsed = run.start.elapsed();
        if elapsed >= plan.sending && ended.is_none() {
            ended = Some((elapsed, run.tally.acked));
            run.sending = false;
        }
        if let Some((seconds, acked_in_time)) = ended {
            let in_flight = run.tally.started - run.tally.acked - run.tally.refused;
            if in_flight == 0 || elapsed >= plan.sending + plan.draining {
                let unacked = in_flight + run.tally.refused;
                return Ok(Done { tally: run.tally, acked_in_time, seconds: seconds.as_secs_f64(), unacked });
            }
        }
        let count = match epoll.wait(&mut events, EpollTimeout::from(WAIT_MS)) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..count] {
            let at = usize::try_from(event.data()).expect("an index");
            let client = &mut clients[at];
            // Everything but "writable" is found out by reading, errors too.
            if event.events() != EpollFlags::EPOLLOUT {
                client.receive(&mut input, &mut run)?;
            }
            client.flush(&epoll, at)?;
        }
    }
}

/// All connections of a load share this.
struct Run {
    noise: Vec<u8>,
    size: usize,
    start: Instant,
    sending: bool,
    tally: Tally,
}

impl Run {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A client of the server under load: one connection.
struct Client {
    stream: TcpStream,
    protocol: Box<dyn Protocol>,
    /// The part of a reply that has come.
    rest: Vec<u8>,
    out: Vec<u8>,
    /// Bytes of `out` that are written.
    written: usize,
    /// Told epoll that it waits for the socket to take more.
    waits_to_write: bool,
    free: VecDeque<usize>,
    /// When the request in each slot was made; `None` where there is none.
    begun_ns: Vec<Option<u64>>,
}

impl Client {
    fn new(connection: Connection, window: usize) -> io::Result<Self> {
        connection.stream.set_nonblocking(true)?;
        Ok(Self {
            stream: connection.stream,
            protocol: connection.protocol,
            rest: connection.input,
            out: Vec::new(),
            written: 0,
            waits_to_write: false,
            free: (0..window).collect(),
            begun_ns: vec![None; window],
        })
    }

    /// Makes requests until the window is full.
    fn refill(&mut self, run: &mut Run) {
        if !run.sending || self.free.is_empty() {
            return;
        }
        let now_ns = run.now_ns();
        while let Some(slot) = self.free.pop_front() {
            let from = usize::try_from(run.tally.started).unwrap_or(0) % PAYLOADS;
            self.protocol.write_request(slot, &run.noise[from..from + run.size], &mut self.out);
            self.begun_ns[slot] = Some(now_ns);
            run.tally.started += 1;
        }
    }

    /// Reads and takes the replies that have come, and refills the window.
    fn receive(&mut self, input: &mut [u8], run: &mut Run) -> io::Result<()> {
        loop {
            let kept = self.rest.len();
            input[..kept].copy_from_slice(&self.rest);
            let len = match self.stream.read(&mut input[kept..]) {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection")),
                Ok(len) => kept + len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let taken = self.take(&input[..len], run)?;
            self.rest.clear();
            self.rest.extend_from_slice(&input[taken..len]);
            if self.rest.len() == input.len() {
                return Err(io::Error::other("a reply without end"));
            }
            self.refill(run);
            if len < input.len() {
                return Ok(());
            }
        }
    }

    /// Takes whole replies; returns their bytes.
    fn take(&mut self, input: &[u8], run: &mut Run) -> io::Result<usize> {
        let now_ns = run.now_ns();
        let mut at = 0;
        while let Some(Taken { len, reply }) =
            self.protocol.take_reply(&input[at..], &mut self.out).map_err(io::Error::other)?
        {
            at += len;
            match reply {
                Reply::Stored { slot } => {
                    let begun_ns = self.release(slot)?;
                    run.tally.acked(now_ns - begun_ns);
                }
                Reply::Refused { slot, why } => {
                    self.release(slot)?;
                    run.tally.refused(why);
                }
                Reply::Nothing => {}
            }
        }
        Ok(at)
    }

    /// Frees a slot; returns when its request was made.
    fn release(&mut self, slot: usize) -> io::Result<u64> {
        let begun_ns = self.begun_ns[slot].take();
        let begun_ns = begun_ns.ok_or_else(|| io::Error::other("a reply to no request"))?;
        self.free.push_back(slot);
        Ok(begun_ns)
    }

    /// Writes what the socket takes now; epoll tells when it takes more.
    fn flush(&mut self, epoll: &Epoll, at: usize) -> io::Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(len) => self.written += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let waits_to_write = self.written < self.out.len();
        if !waits_to_write {
            self.out.clear();
            self.written = 0;
        }
        if waits_to_write != self.waits_to_write {
            self.waits_to_write = waits_to_write;
            let mut flags = EpollFlags::EPOLLIN;
            flags.set(EpollFlags::EPOLLOUT, waits_to_write);
            epoll.modify(&self.stream, &mut EpollEvent::new(flags, at as u64))?;
        }
        Ok(())
    }
}
