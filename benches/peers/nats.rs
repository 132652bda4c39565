//! NATS JetStream: publishes with a reply subject, and the acks that come there
//! (<https://docs.nats.io/reference/reference-protocols/nats-protocol>, the JetStream wire API beside it).

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::protocol::{self, Connect, Connection, Protocol, Reply, Taken};

const STREAM: &str = "bench";
const SUBJECT: &str = "bench.messages";
/// Creating a stream takes no longer.
const SET_UP: Duration = Duration::from_secs(5);

/// What Duragram's sink writes beside a record, for a record of no journal: without its number.
const RECORD: &str = "0123456789abcdef0123456789abcdef";
const WRITER: &str = "3-0123456789abcdef-0123456789abcdef0123456789abcdef";
const SOURCE: &str = "client=00000000000000a1;epoch=3;seq=1234567;channel=0;received_at=2026-01-02T03:04:05.678901Z";
/// How long the stream remembers ids, in nanoseconds: as one that the sink has made.
const WINDOW_NS: u64 = 1_000_000_000;

/// A server that has the stream.
pub(crate) struct Nats {
    chained: bool,
}

impl Nats {
    /// Creates the stream, a file, unless it is there. `chained`: each message gets the headers that Duragram's sink gives it, and
    /// is stored only behind the one before it; so only one connection can publish.
    ///
    /// # Errors
    /// The server cannot be reached or refuses that.
    pub(crate) fn set_up(server: SocketAddr, chained: bool) -> io::Result<Self> {
        let mut reader = greet(server, "_INBOX.setup")?;
        let mut config = json!({
            "name": STREAM, "subjects": [SUBJECT], "storage": "file", "retention": "limits", "num_replicas": 1,
        });
        if chained {
            config["duplicate_window"] = WINDOW_NS.into();
        }
        let config = config.to_string();
        let request = format!("PUB $JS.API.STREAM.CREATE.{STREAM} _INBOX.setup {}\r\n{config}\r\n", config.len());
        reader.get_ref().write_all(request.as_bytes())?;
        loop {
            let line = read_line(&mut reader)?;
            if line.starts_with("INFO ") {
                continue;
            }
            let refused = || io::Error::other(format!("no stream: {line}"));
            let len = line.strip_prefix("MSG ").and_then(|head| head.rsplit(' ').next()?.parse().ok());
            let mut answer = vec![0; len.ok_or_else(refused)?];
            reader.read_exact(&mut answer)?;
            let answer: Value = serde_json::from_slice(&answer)?;
            return match answer.get("error") {
                None => Ok(Self { chained }),
                Some(error) => Err(io::Error::other(format!("no stream: {error}"))),
            };
        }
    }
}

impl Connect for Nats {
    fn connect(&self, server: SocketAddr, window: usize) -> io::Result<Connection> {
        let inbox = format!("_INBOX.{:016x}", rand::random::<u64>());
        let reader = greet(server, &format!("{inbox}.*"))?;
        let input = reader.buffer().to_vec();
        let stream = reader.into_inner();
        stream.set_read_timeout(None)?;
        let head = format!("{} {SUBJECT} {inbox}.", if self.chained { "HPUB" } else { "PUB" });
        let headers = self.chained.then(|| Headers { number: rand::random(), text: Vec::new() });
        Ok(Connection { stream, input, protocol: Box::new(Publisher { head, headers, inbox, window }) })
    }
}

/// Connects and subscribes to the subject, as the official clients do.
fn greet(server: SocketAddr, subject: &str) -> io::Result<BufReader<TcpStream>> {
    let stream = protocol::open(server)?;
    stream.set_read_timeout(Some(SET_UP))?;
    let mut reader = BufReader::new(stream);
    let info = read_line(&mut reader)?;
    if !info.starts_with("INFO ") {
        return Err(io::Error::other(protocol::unexpected(info.as_bytes())));
    }
    let options = json!({
        "verbose": false, "pedantic": false, "tls_required": false, "lang": "rust", "version": "1", "protocol": 1,
        "headers": true, "no_responders": true, "name": "peer_load",
    });
    write!(reader.get_ref(), "CONNECT {options}\r\nSUB {subject} 1\r\nPING\r\n")?;
    loop {
        match read_line(&mut reader)?.as_str() {
            "PONG" => return Ok(reader),
            // The server may tell more about itself at any time.
            more if more.starts_with("INFO ") => {}
            other => return Err(io::Error::other(protocol::unexpected(other.as_bytes()))),
        }
    }
}

fn read_line(reader: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

struct Publisher {
    /// Of a publish, up to the slot.
    head: String,
    headers: Option<Headers>,
    inbox: String,
    window: usize,
}

/// What JetStream answers to a publish.
#[derive(Deserialize)]
struct PubAck<'a> {
    stream: Option<&'a str>,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<Value>,
}

/// The headers of one message after the other.
struct Headers {
    /// How many there were, from a random number on: a stream may know earlier ones.
    number: u32,
    text: Vec<u8>,
}

impl Headers {
    fn next(&mut self) -> &[u8] {
        let is_first = self.text.is_empty();
        let (number, next) = (self.number, self.number.wrapping_add(1));
        self.text.clear();
        let before =
            if is_first { String::new() } else { format!("Nats-Expected-Last-Msg-Id: {WRITER}-{number}-0\r\n") };
        let _infallible = write!(
            self.text,
            "NATS/1.0\r\nDuragram-Record: {RECORD}-{next}-0\r\nDuragram-Source: {SOURCE}\r\nNats-Msg-Id: {WRITER}-{next}-0\r\n{before}\r\n"
        );
        self.number = next;
        &self.text
    }
}

impl Protocol for Publisher {
    fn write_request(&mut self, slot: usize, payload: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(self.head.as_bytes());
        let headers = self.headers.as_mut().map_or(&[][..], Headers::next);
        // Writing to a vector cannot fail.
        let _infallible = match headers.len() {
            0 => write!(out, "{slot} {}\r\n", payload.len()),
            len => write!(out, "{slot} {len} {}\r\n", len + payload.len()),
        };
        out.extend_from_slice(headers);
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    fn take_reply(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<Taken>, String> {
        let Some((head, head_len)) = protocol::line(input) else { return Ok(None) };
        let reply = |reply| Ok(Some(Taken { len: head_len, reply }));
        match head {
            b"PING" => {
                out.extend_from_slice(b"PONG\r\n");
                reply(Reply::Nothing)
            }
            b"PONG" | b"+OK" => reply(Reply::Nothing),
            _ if head.starts_with(b"INFO ") => reply(Reply::Nothing),
            _ if head.starts_with(b"MSG ") => self.take_message(head, &input[head_len..], head_len),
            // With headers, JetStream tells that it does not listen.
            _ if head.starts_with(b"HMSG ") => self.take_message(head, &input[head_len..], head_len),
            _ => Err(protocol::unexpected(head)),
        }
    }
}

impl Publisher {
    /// `MSG subject sid length`, `HMSG subject sid length-of-headers length`; then that many bytes, and CRLF.
    fn take_message(&self, head: &[u8], rest: &[u8], head_len: usize) -> Result<Option<Taken>, String> {
        let text = std::str::from_utf8(head).map_err(|_| protocol::unexpected(head))?;
        let mut words = text.split_ascii_whitespace();
        let kind = words.next();
        let slot = words.next().and_then(|subject| self.slot_of(subject)).ok_or_else(|| protocol::unexpected(head))?;
        let len: Option<usize> = words.next_back().and_then(|len| len.parse().ok());
        let len = len.ok_or_else(|| protocol::unexpected(head))?;
        let Some(body) = rest.get(..len + 2) else { return Ok(None) };
        let body = &body[..len];
        let taken = |reply| Ok(Some(Taken { len: head_len + len + 2, reply }));
        let refused = || Reply::Refused { slot, why: String::from_utf8_lossy(body).trim().to_owned() };
        if kind == Some("HMSG") {
            return taken(refused());
        }
        let ack: PubAck<'_> = serde_json::from_slice(body).map_err(|_| protocol::unexpected(body))?;
        if ack.error.is_some() {
            return taken(refused());
        }
        if ack.stream != Some(STREAM) || ack.seq == 0 || ack.duplicate {
            return Err(protocol::unexpected(body));
        }
        taken(Reply::Stored { slot })
    }

    fn slot_of(&self, subject: &str) -> Option<usize> {
        let slot = subject.strip_prefix(self.inbox.as_str())?.strip_prefix('.')?.parse().ok()?;
        (slot < self.window).then_some(slot)
    }
}
