//! A TCP proxy between a sink and its target, that does what networks do: it delays, freezes, cuts, and loses replies.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Forwards connections to a target, as it is told to. Ends when it is dropped, and its connections with it.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    target: SocketAddr,
    /// Nothing is forwarded in either direction, and nothing is closed.
    frozen: AtomicBool,
    /// What the target answers is thrown away.
    mute: AtomicBool,
    /// New connections are closed at once.
    refuses: AtomicBool,
    delay_us: AtomicU64,
    /// Bytes towards the target after which the connection is cut; `u64::MAX`: never.
    cut_after: AtomicU64,
    accepted: AtomicU64,
    ended: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// A proxy on a free port of the loopback address.
    pub(crate) fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            target,
            frozen: AtomicBool::new(false),
            mute: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            delay_us: AtomicU64::new(0),
            cut_after: AtomicU64::new(u64::MAX),
            accepted: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        let acceptor = thread::spawn(move || accept(&listener, &accepting));
        Self { shared, address, acceptor: Some(acceptor) }
    }

    /// Where the sink is to connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that were taken so far, those that were closed at once included.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Holds back every byte in both directions, also of new connections, until it is told otherwise.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.shared.frozen.store(frozen, Ordering::SeqCst);
    }

    /// Requests arrive, and their answers are thrown away: the sink cannot know what became of them.
    pub(crate) fn lose_replies(&self, mute: bool) {
        self.shared.mute.store(mute, Ordering::SeqCst);
    }

    /// Holds every piece back for so long, in both directions.
    pub(crate) fn delay(&self, delay: Duration) {
        self.shared.delay_us.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Cuts the next connection that has sent so many bytes to the target, once.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.shared.cut_after.store(bytes, Ordering::SeqCst);
    }

    /// Closes every connection. While `refuses`, new ones are closed at once.
    pub(crate) fn cut(&self, refuses: bool) {
        self.shared.refuses.store(refuses, Ordering::SeqCst);
        for connection in self.shared.connections.lock().expect("no panic holds it").drain(..) {
            // It may be closed already.
            let _closed_already = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.cut(true);
        // Wakes the acceptor.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().expect("the proxy did not panic");
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let Ok(client) = client else { continue };
        if shared.refuses.load(Ordering::SeqCst) {
            continue;
        }
        // Nobody listens there: the client sees its connection closed.
        let Ok(server) = TcpStream::connect(shared.target) else { continue };
        let copies = [client.try_clone(), server.try_clone(), client.try_clone(), server.try_clone()];
        let [Ok(client_out), Ok(server_out), Ok(client_kept), Ok(server_kept)] = copies else { continue };
        shared.connections.lock().expect("no panic holds it").extend([client_kept, server_kept]);
        let (up, down) = (Arc::clone(shared), Arc::clone(shared));
        thread::spawn(move || forward(client, server_out, &up, true));
        thread::spawn(move || forward(server, client_out, &down, false));
    }
}

/// Copies what comes from one end to the other until one of them closes.
fn forward(mut from: TcpStream, mut to: TcpStream, shared: &Shared, to_target: bool) {
    let copied = copy(&mut from, &mut to, shared, to_target);
    let how = if copied.is_ok() { Shutdown::Write } else { Shutdown::Both };
    let _closed_already = to.shutdown(how);
    if copied.is_err() {
        let _closed_already = from.shutdown(Shutdown::Both);
    }
}

fn copy(from: &mut TcpStream, to: &mut TcpStream, shared: &Shared, to_target: bool) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        thread::sleep(Duration::from_micros(shared.delay_us.load(Ordering::SeqCst)));
        while shared.frozen.load(Ordering::SeqCst) {
            if shared.ended.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        if !to_target && shared.mute.load(Ordering::SeqCst) {
            continue;
        }
        let left = shared.cut_after.load(Ordering::SeqCst);
        if to_target && left != u64::MAX {
            if read as u64 >= left {
                to.write_all(&buffer[..usize::try_from(left).expect("below what was read")])?;
                shared.cut_after.store(u64::MAX, Ordering::SeqCst);
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            shared.cut_after.store(left - read as u64, Ordering::SeqCst);
        }
        to.write_all(&buffer[..read])?;
    }
}
