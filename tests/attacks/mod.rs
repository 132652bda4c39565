//! Attacks on sealed mode, by who can do what in PROTOCOL.md#sealed-threats: against the real server ([`server`]), against
//! a client ([`client`]), on asks and answers ([`asks`]), on what the server answers a client ([`silence`]), and with very many datagrams ([`flood`]).

mod asks;
mod client;
mod flood;
mod server;
mod silence;

use std::cell::Cell;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::common::PATIENCE;
use crate::common::server::{Home, Server};
use crate::common::wire::{Is, Reply, bytes_of};
use duragram_proto::codec::{self, Data, Datagram, Hello, OPTION_ASK, Ping, Take};
use duragram_proto::seal::ClientKey;
use duragram_proto::{ClientId, Epoch, Seq};

/// Of the clients 1 and 2, and of one that is revoked.
const KEYS: &str = "\
client 0000000000000001 0101010101010101010101010101010101010101010101010101010101010101
client 0000000000000002 0202020202020202020202020202020202020202020202020202020202020202
";

/// A directory for a server with these keys.
fn home(keys: &str, toml: &str) -> Home {
    let home = Home::new();
    let file = write_keys(&home, keys);
    home.configure(&format!("keys = {:?}\n{toml}", file.display().to_string()));
    home
}

fn write_keys(home: &Home, keys: &str) -> PathBuf {
    let file = home.path().join("keys");
    fs::remove_file(&file).ok();
    let mut new = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&file).expect("a new file");
    new.write_all(keys.as_bytes()).expect("keys are written");
    file
}

fn key(client: u64) -> ClientKey {
    ClientKey::new([u8::try_from(client).expect("a small number"); 32])
}

/// A sealed client without rules, or someone who has what it sent.
struct Sealed {
    socket: UdpSocket,
    server: SocketAddr,
    client: ClientId,
    epoch: Epoch,
    counter: Cell<u64>,
}

impl Sealed {
    fn new(server: &Server, client: u64, epoch: u32) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback socket");
        let epoch = Epoch::new(epoch).expect("not 0");
        Self { socket, server: server.udp, client: ClientId(client), epoch, counter: Cell::new(1) }
    }

    /// As the client would send it now.
    fn seal(&self, datagram: &Datagram<'_>) -> Vec<u8> {
        let epoch = match datagram {
            Datagram::Hello(_) => None,
            Datagram::Ping(ping) => Some(ping.epoch),
            _ => Some(self.epoch),
        };
        let counter = self.counter.replace(self.counter.get() + 1);
        let mut bytes = vec![0; codec::DATAGRAM_LEN_MAX];
        let len = datagram.seal(&key(self.client.0).keys(self.client, epoch), counter, &mut bytes).expect("it fits");
        bytes.truncate(len);
        bytes
    }

    /// A whole message whose base is 1.
    fn data(&self, seq: u64, payload: &[u8]) -> Vec<u8> {
        let span = u16::try_from(seq - 1).expect("a span");
        self.seal(&Datagram::Data(Data::whole(self.client, self.epoch, Seq(seq), span, payload)))
    }

    /// As `data`, of a message whose answer is wanted.
    fn asking(&self, seq: u64, payload: &[u8]) -> Vec<u8> {
        let span = u16::try_from(seq - 1).expect("a span");
        let data = Data::whole(self.client, self.epoch, Seq(seq), span, payload);
        self.seal(&Datagram::Data(Data { options: OPTION_ASK, ..data }))
    }

    /// A TAKE with room for a short body.
    fn take_of(&self, seq: u64, span: u16, wait_ms: u32) -> Take {
        Take { client: self.client, epoch: self.epoch, seq: Seq(seq), span, wait_ms, room: 64 }
    }

    fn take(&self, seq: u64, span: u16, wait_ms: u32) -> Vec<u8> {
        self.seal(&Datagram::Take(self.take_of(seq, span, wait_ms)))
    }

    fn ping(&self) -> Vec<u8> {
        self.seal(&Datagram::Ping(Ping { client: self.client, epoch: self.epoch }))
    }

    fn hello(&self, nonce: u64) -> Vec<u8> {
        self.seal(&Datagram::Hello(Hello { client: self.client, nonce }))
    }

    fn send(&self, bytes: &[u8]) {
        assert_eq!(self.socket.send_to(bytes, self.server).expect("loopback takes it"), bytes.len());
    }

    fn receive(&self, patience: Duration) -> Option<Vec<u8>> {
        self.socket.set_read_timeout(Some(patience)).expect("a timeout above 0");
        let mut buffer = vec![0; 65_536];
        let len = self.socket.recv(&mut buffer).ok()?;
        buffer.truncate(len);
        Some(buffer)
    }

    /// Sends and waits for the answer, which is no longer than what was sent.
    fn ask(&self, bytes: &[u8]) -> Reply {
        self.send(bytes);
        let answer = self.receive(PATIENCE).unwrap_or_else(|| panic!("waited {PATIENCE:?} for a reply"));
        assert!(answer.len() <= bytes.len(), "{} bytes to {}", answer.len(), bytes.len());
        opened(&answer)
    }

    fn ask_ack(&self, bytes: &[u8]) -> u64 {
        match self.ask(bytes).is {
            Is::Ack(ack) => ack.floor,
            other => panic!("not an ACK: {other:?}"),
        }
    }

    /// What has come as answers to all that this socket has sent so far.
    fn settle(&self) -> Vec<Reply> {
        // Answered last of all, since everything before needs no commit or has been through one.
        let barrier = Epoch::new(u32::MAX).expect("not 0");
        self.send(&self.seal(&Datagram::Ping(Ping { client: self.client, epoch: barrier })));
        let mut replies = Vec::new();
        loop {
            let reply = opened(&self.receive(PATIENCE).expect("the barrier's answer"));
            if matches!(&reply.is, Is::Ack(ack) if ack.epoch == barrier) {
                return replies;
            }
            replies.push(reply);
        }
    }
}

/// A reply of the server, whose seal must be good if it has one.
fn opened(bytes: &[u8]) -> Reply {
    if bytes[1] & 8 == 0 {
        return Reply::parse(bytes);
    }
    let head = codec::peek(bytes).expect("a sealed datagram");
    let keys = key(head.client.0).keys(head.client, head.keys.epoch());
    let mut copy = bytes.to_vec();
    let datagram = codec::unseal_reply(&mut copy, &keys).expect("a good seal");
    Reply { len: bytes.len(), ..Reply::parse(&bytes_of(&datagram)) }
}

fn count(server: &Server, outcome: &str) -> f64 {
    server.metric("duragram_datagrams_total", &format!("\"{outcome}\""))
}
