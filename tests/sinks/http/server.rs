//! An HTTP server that keeps what it was sent and answers as a test says.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A request as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Request {
    /// Its first line holds the method, the path and the version.
    pub(crate) line: String,
    /// Its headers, their names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The number of its connection, from 0.
    pub(crate) connection: u64,
    /// Its number among all requests, from 0.
    pub(crate) nth: usize,
}

impl Request {
    /// A header's value; empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The server answers a request with this.
pub(crate) struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// So many bytes follow the body.
    zeros: u64,
    /// So many bytes are promised and never come: the connection ends.
    missing: u64,
    cut: bool,
}

impl Response {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), zeros: 0, missing: 0, cut: false }
    }

    /// None at all: the connection is closed.
    pub(crate) fn cut() -> Self {
        Self { cut: true, ..Self::status(0) }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// A body that breaks off before so many bytes more.
    pub(crate) fn breaks_off(mut self, missing: u64) -> Self {
        self.missing = missing;
        self
    }

    /// A body that is longer by so many bytes.
    pub(crate) fn zeros(mut self, zeros: u64) -> Self {
        self.zeros = zeros;
        self
    }
}

type Answering = dyn Fn(&Request) -> Response + Send + Sync;

struct Shared {
    answer: Box<Answering>,
    tls: Option<Arc<ServerConfig>>,
    requests: Mutex<Vec<Request>>,
    connections: Mutex<Vec<TcpStream>>,
    /// Bytes of bodies that clients have taken, or their sockets.
    written: AtomicU64,
    ended: AtomicBool,
}

/// Serves until it is dropped.
pub(crate) struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    /// A server on a free port, that answers each request so.
    pub(crate) fn start(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        Self::start_with(None, answer)
    }

    /// Starts a server that speaks TLS alone.
    pub(crate) fn start_tls(tls: ServerConfig, answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        Self::start_with(Some(Arc::new(tls)), answer)
    }

    fn start_with(
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            answer: Box::new(answer),
            tls,
            requests: Mutex::default(),
            connections: Mutex::default(),
            written: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let acceptor = thread::spawn(move || {
            for (connection, stream) in (0..).zip(listener.incoming()) {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                accepting.connections.lock().unwrap().extend(stream.try_clone());
                let serving = Arc::clone(&accepting);
                // Its end is the client's or the test's: an error is none here.
                thread::spawn(move || drop(serve(stream, connection, &serving)));
            }
        });
        Self { shared, address, acceptor: Some(acceptor) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What came so far, in the order in which it was answered.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Bytes of bodies that went out.
    pub(crate) fn written(&self) -> u64 {
        self.shared.written.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().expect("the server did not panic");
        }
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            let _closed_already = connection.shutdown(Shutdown::Both);
        }
    }
}

fn serve(stream: TcpStream, connection: u64, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match &shared.tls {
        None => talk(Plain(stream), connection, shared),
        Some(tls) => {
            let tls = ServerConnection::new(Arc::clone(tls)).map_err(io::Error::other)?;
            talk(StreamOwned::new(tls, stream), connection, shared)
        }
    }
}

/// Writes go to the socket as they are.
struct Plain(TcpStream);

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn talk(stream: impl Read + Write, connection: u64, shared: &Shared) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(64 * 1024, stream);
    while let Some(mut request) = read_request(&mut stream, connection)? {
        {
            let mut requests = shared.requests.lock().unwrap();
            request.nth = requests.len();
            requests.push(request.clone());
        }
        let response = (shared.answer)(&request);
        if response.cut {
            return Ok(());
        }
        let length = response.body.len() as u64 + response.zeros + response.missing;
        let mut bytes = format!("HTTP/1.1 {} Said\r\nContent-Length: {length}\r\n", response.status).into_bytes();
        for (name, value) in &response.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&response.body);
        stream.get_mut().write_all(&bytes)?;
        let mut left = response.zeros;
        while left > 0 {
            let piece = usize::try_from(left.min(64 * 1024)).expect("not more than that");
            stream.get_mut().write_all(&[b'0'; 64 * 1024][..piece])?;
            shared.written.fetch_add(piece as u64, Ordering::SeqCst);
            left -= piece as u64;
        }
        stream.get_mut().flush()?;
        if response.missing > 0 {
            return Ok(());
        }
        if response.headers.iter().any(|(name, value)| *name == "Connection" && value == "close") {
            return Ok(());
        }
    }
    Ok(())
}

/// The next request; `None` at the connection's end.
fn read_request(stream: &mut BufReader<impl Read>, connection: u64) -> io::Result<Option<Request>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let header = |line: &String| {
        let (name, value) = line.split_once(": ").expect("a header");
        (name.to_lowercase(), value.to_owned())
    };
    let headers: Vec<_> = lines.iter().skip(1).map(header).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| value.parse().expect("a number"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(Request { line: lines[0].clone(), headers, body, connection, nth: 0 }))
}
