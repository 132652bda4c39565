//! The task that owns the socket: datagrams in, datagrams out, timers, and another route when this one is silent.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Sleep, sleep_until};

use super::route::{NoWay, Route};
use super::shared::Shared;

/// Datagrams handled under one lock, and between two chances for other tasks to run.
const BURST: usize = 64;
/// Room for one datagram from the server of who never asks: the longest ACK, sealed, is shorter. A longer one is cut, and
/// ignored.
const REPLY_BYTES: usize = 256;
/// Silence after which the server's name is looked up again and another socket opened, in microseconds; doubles up to
/// the second value while the silence lasts.
const SILENCE_FIRST_US: u64 = 5_000_000;
const SILENCE_MOST_US: u64 = 60_000_000;
/// Pause before another route is tried after the socket itself failed (the network is down), in microseconds; doubles up
/// to the second value until something is heard.
const TROUBLE_FIRST_US: u64 = 10_000;
const TROUBLE_MOST_US: u64 = 5_000_000;

/// One of these runs for each client, and nothing else touches its socket.
pub(super) struct Driver {
    shared: Arc<Shared>,
    route: Route,
    /// `None` until the server's name was resolved and the network has let us open one.
    socket: Option<UdpSocket>,
    outbox: Burst,
    inbox: Burst,
    silence: Silence,
    /// When to try another route because the socket failed.
    reroute_at_us: Option<u64>,
    trouble_pause_us: u64,
}

/// Datagrams side by side in one allocation.
struct Burst {
    bytes: Vec<u8>,
    each: usize,
    lens: Vec<usize>,
}

/// Since when nothing was heard although something was asked.
struct Silence {
    since_us: u64,
    patience_us: u64,
}

/// What the driver does next.
struct Next {
    /// There was more to send than fits in a burst.
    more: bool,
    wake_us: Option<u64>,
    moved_to: Option<String>,
    /// What is sent now says that nothing is waited for any more.
    farewell: bool,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, route: Route, datagram_bytes_max: usize) -> Self {
        Self {
            shared,
            route,
            socket: None,
            outbox: Burst::new(datagram_bytes_max),
            inbox: Burst::new(REPLY_BYTES),
            silence: Silence { since_us: 0, patience_us: SILENCE_FIRST_US },
            // The first one is opened like any other.
            reroute_at_us: Some(0),
            trouble_pause_us: TROUBLE_FIRST_US,
        }
    }

    /// Never returns: the task ends when it is aborted.
    pub(super) async fn run(mut self) {
        let mut timer = pin!(sleep_until(tokio::time::Instant::now()));
        loop {
            let drained = self.receive();
            let next = self.step();
            if let Some(server) = next.moved_to {
                self.route.set_server(server);
                self.reroute(true).await;
                continue;
            }
            self.send().await;
            if next.farewell {
                self.shared.tell_news();
            }
            if self.is_reroute_due() {
                self.reroute(false).await;
                continue;
            }
            if next.more || !drained {
                tokio::task::yield_now().await;
                continue;
            }
            self.wait(timer.as_mut(), next.wake_us).await;
        }
    }

    async fn wait(&self, mut timer: Pin<&mut Sleep>, wake_us: Option<u64>) {
        let silence = self.silence.ends_us();
        let wake_us = [wake_us, silence, self.reroute_at_us].into_iter().flatten().min();
        if let Some(at) = wake_us {
            timer.as_mut().reset(self.shared.instant(at).into());
        }
        // By hand, since `select!` would have five crates compiled for it.
        let mut work = pin!(self.shared.work.notified());
        let mut readable = pin!(readable(self.socket.as_ref()));
        poll_fn(|cx| {
            let woken = work.as_mut().poll(cx).is_ready()
                || readable.as_mut().poll(cx).is_ready()
                || wake_us.is_some() && timer.as_mut().poll(cx).is_ready();
            if woken { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Takes what has come into the inbox; `false` when there may be more.
    fn receive(&mut self) -> bool {
        self.inbox.lens.clear();
        let Some(socket) = &self.socket else { return true };
        while let Some(space) = self.inbox.space() {
            match socket.try_recv(space) {
                Ok(len) => self.inbox.lens.push(len),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.note(&error);
                    return false;
                }
            }
        }
        false
    }

    /// The core's turn: the inbox goes in, outcomes are reported, the outbox is filled.
    fn step(&mut self) -> Next {
        let now_us = self.shared.now_us();
        let mut state = self.shared.state();
        let mut heard = false;
        for datagram in self.inbox.iter_mut() {
            heard |= state.core.receive(now_us, datagram);
        }
        let news = state.core.advance(now_us);
        if state.core.has_asked() && self.inbox.each < self.outbox.each {
            self.inbox = Burst::new(self.outbox.each);
        }
        let owes = state.core.owes_farewell();
        self.outbox.lens.clear();
        // Without a socket nothing is taken from the core, which would count it as transmitted.
        let mut more = self.socket.is_some();
        while let Some(space) = self.outbox.space().filter(|_| more) {
            let Some(len) = state.core.transmit(now_us, space) else {
                more = false;
                break;
            };
            self.outbox.lens.push(len);
        }
        if heard {
            self.trouble_pause_us = TROUBLE_FIRST_US;
            state.trouble = None;
        }
        let is_quiet = !state.core.is_unheard();
        if heard || is_quiet {
            self.silence.over(now_us, is_quiet);
        } else {
            self.silence.begins(now_us);
        }
        let farewell = owes && !state.core.owes_farewell();
        let next = Next { more, wake_us: state.core.wake_us(), moved_to: state.moved_to.take(), farewell };
        drop(state);
        if news {
            self.shared.tell_news();
        }
        next
    }

    async fn send(&mut self) {
        let Some(socket) = &self.socket else { return };
        let mut failure = None;
        for at in 0..self.outbox.lens.len() {
            loop {
                match socket.try_send(self.outbox.datagram(at)) {
                    Ok(_) => break,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        if socket.writable().await.is_err() {
                            break;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => {
                        // What was not sent counts as lost on the way.
                        failure = Some(error);
                        break;
                    }
                }
            }
        }
        if let Some(error) = failure {
            self.note(&error);
        }
    }

    /// An error of the socket. Nobody listening is ordinary while the server restarts, and concerns only this address;
    /// all others mean that this socket's way is gone.
    fn note(&mut self, error: &io::Error) {
        let address =
            self.route.address().map_or_else(|| self.route.server().to_owned(), |address| address.to_string());
        self.shared.state().trouble = Some(match error.kind() {
            ErrorKind::ConnectionRefused => format!("nobody listens at {address}"),
            _ => format!("cannot send to {address}: {error}"),
        });
        if self.reroute_at_us.is_some()
            || error.kind() == ErrorKind::ConnectionRefused && !self.route.has_alternatives()
        {
            return;
        }
        tracing::debug!(%error, "the way to the server is broken");
        self.reroute_later();
    }

    fn reroute_later(&mut self) {
        self.reroute_at_us = Some(self.shared.now_us() + self.trouble_pause_us);
        self.trouble_pause_us = (self.trouble_pause_us * 2).min(TROUBLE_MOST_US);
    }

    fn is_reroute_due(&self) -> bool {
        let now_us = self.shared.now_us();
        self.reroute_at_us.is_some_and(|at| at <= now_us) || self.silence.ends_us().is_some_and(|at| at <= now_us)
    }

    /// Another socket, perhaps towards another address. When that fails too, the old one stays and the next try follows.
    async fn reroute(&mut self, moved: bool) {
        let broken = self.reroute_at_us.take().is_some();
        let before = self.route.address();
        let first = self.socket.is_none();
        // A resolver that hangs must not keep the client from hearing a server that answers after all.
        let opened = tokio::time::timeout(Duration::from_secs(5), self.route.next()).await;
        let now_us = self.shared.now_us();
        self.silence.again(now_us, first);
        let late = || NoWay(format!("cannot resolve {:?}: the resolver does not answer", self.route.server()));
        match opened.unwrap_or_else(|_| Err(late())) {
            Ok((socket, another)) => {
                tracing::debug!(?before, now = ?self.route.address(), "another socket");
                self.socket = Some(socket);
                let mut state = self.shared.state();
                state.reroutes += u64::from(!first);
                if first {
                    state.trouble = None;
                }
                if moved || another || broken {
                    state.core.path_changed(now_us);
                }
            }
            Err(NoWay(problem)) => {
                tracing::warn!(problem, "no way to the server");
                self.shared.state().trouble = Some(problem);
                self.reroute_later();
            }
        }
    }
}

async fn readable(socket: Option<&UdpSocket>) {
    match socket {
        // An error shows when it is read.
        Some(socket) => drop(socket.readable().await),
        None => std::future::pending().await,
    }
}

impl Drop for Driver {
    /// However the task ends (its runtime may be shut down under the client): nobody waits forever.
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Silence {
    /// Something was heard, or nothing is asked.
    fn over(&mut self, now_us: u64, idle: bool) {
        self.since_us = if idle { u64::MAX } else { now_us };
        self.patience_us = SILENCE_FIRST_US;
    }

    /// Something is asked; the silence may have begun before.
    fn begins(&mut self, now_us: u64) {
        self.since_us = self.since_us.min(now_us);
    }

    /// Another route was tried: twice the patience, unless it was the first.
    fn again(&mut self, now_us: u64, first: bool) {
        self.since_us = now_us;
        if !first {
            self.patience_us = (self.patience_us * 2).min(SILENCE_MOST_US);
        }
    }

    /// `None` while nothing is asked.
    fn ends_us(&self) -> Option<u64> {
        self.since_us.checked_add(self.patience_us)
    }
}

impl Burst {
    fn new(each: usize) -> Self {
        Self { bytes: vec![0; BURST * each], each, lens: Vec::with_capacity(BURST) }
    }

    /// The next place; `None` when all are taken.
    fn space(&mut self) -> Option<&mut [u8]> {
        self.bytes.chunks_exact_mut(self.each).nth(self.lens.len())
    }

    fn datagram(&self, at: usize) -> &[u8] {
        &self.bytes[at * self.each..][..self.lens[at]]
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.bytes.chunks_exact_mut(self.each).zip(&self.lens).map(|(space, &len)| &mut space[..len])
    }
}
