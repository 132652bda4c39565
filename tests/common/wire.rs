//! A client that has no rules: it sends any bytes and shows what comes back.

use std::io::{ErrorKind, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use duragram_proto::codec::{
    self, AnswerStatus, Data, Datagram, Durability, Hello, OPTION_ASK, Ping, Reject, RejectCode, Take, Welcome,
};
use duragram_proto::{ClientId, Epoch, Seq};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};

use super::PATIENCE;
use super::server::Server;

/// Datagrams that a test sends before it hears of them: more at once may not fit in the kernel's receive buffer on a
/// machine as it comes.
pub(crate) const BURST: usize = 64;

/// One client in one epoch, with a socket of its own.
pub(crate) struct Wire {
    socket: UdpSocket,
    pub(crate) server: SocketAddr,
    pub(crate) client: ClientId,
    pub(crate) epoch: Epoch,
}

/// What the server said, and how long it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reply {
    pub(crate) is: Is,
    pub(crate) len: usize,
}

/// A reply of the server is one of these.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Is {
    Ack(Acked),
    Reject(Reject),
    Welcome(Welcome),
    Answer(Answered),
}

/// An ACK with its bitmap as the seqs that it stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Acked {
    pub(crate) client: ClientId,
    pub(crate) epoch: Epoch,
    pub(crate) floor: u64,
    /// These seqs above the floor are journaled too.
    pub(crate) above: Vec<u64>,
    pub(crate) credit: u16,
    pub(crate) duplicate: bool,
    pub(crate) complete: bool,
    pub(crate) ready: bool,
    pub(crate) durability: Durability,
    pub(crate) delay_us: u32,
}

/// An ANSWER says what became of a message that asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Answered {
    pub(crate) client: ClientId,
    pub(crate) epoch: Epoch,
    pub(crate) seq: u64,
    pub(crate) status: AnswerStatus,
    pub(crate) number: u32,
    pub(crate) body: Vec<u8>,
}

impl Answered {
    /// Its status, and its body as text.
    pub(crate) fn said(&self) -> (AnswerStatus, String) {
        (self.status, String::from_utf8_lossy(&self.body).into_owned())
    }
}

impl Wire {
    /// Epoch 1 of a client.
    pub(crate) fn new(server: &Server, client: u64) -> Self {
        Self::in_epoch(server, client, 1)
    }

    pub(crate) fn in_epoch(server: &Server, client: u64, epoch: u32) -> Self {
        let epoch = Epoch::new(epoch).expect("not 0");
        Self { socket: socket(), server: server.udp, client: ClientId(client), epoch }
    }

    /// Epoch 1 of a client that sends from one address to another.
    pub(crate) fn between(from: SocketAddr, server: SocketAddr, client: u64) -> Self {
        let socket = UdpSocket::bind(from).expect("an address of this machine");
        Self { socket, server, client: ClientId(client), epoch: Epoch::new(1).expect("not 0") }
    }

    /// Goes on from a new port, as after a NAT's reboot. The old socket is returned.
    pub(crate) fn rebind(&mut self) -> UdpSocket {
        std::mem::replace(&mut self.socket, socket())
    }

    /// A whole message whose base is 1: the client claims no acks. Seqs above 65,536 must set their own span.
    pub(crate) fn data<'a>(&self, seq: u64, payload: &'a [u8]) -> Data<'a> {
        Data::whole(self.client, self.epoch, Seq(seq), u16::try_from(seq.saturating_sub(1)).expect("a span"), payload)
    }

    /// As `data`, of a message whose answer is wanted.
    pub(crate) fn asking<'a>(&self, seq: u64, payload: &'a [u8]) -> Data<'a> {
        Data { options: OPTION_ASK, ..self.data(seq, payload) }
    }

    /// A TAKE that is answered at once and has room for a short body; all asks from `seq - span` on are wanted still.
    pub(crate) fn take(&self, seq: u64, span: u16) -> Take {
        Take { client: self.client, epoch: self.epoch, seq: Seq(seq), span, wait_ms: 0, room: 64 }
    }

    /// As `take`, which the server may hold for as long as it holds any.
    pub(crate) fn held(&self, seq: u64, span: u16) -> Take {
        Take { wait_ms: u32::MAX, ..self.take(seq, span) }
    }

    pub(crate) fn send_take(&self, take: Take) {
        self.send_bytes(&bytes_of(&Datagram::Take(take)));
    }

    /// Sends a TAKE and waits for the ANSWER.
    pub(crate) fn taken(&self, take: Take) -> Answered {
        self.send_take(take);
        self.answer()
    }

    pub(crate) fn send_bytes(&self, bytes: &[u8]) {
        assert_eq!(self.socket.send_to(bytes, self.server).expect("loopback takes it"), bytes.len());
    }

    /// Sends a run of datagrams of `each` bytes (the last may be shorter) in one system call, by UDP GSO.
    pub(crate) fn send_joined(&self, bytes: &[u8], each: u16) {
        let iov = [IoSlice::new(bytes)];
        let control = [ControlMessage::UdpGsoSegments(&each)];
        let to = SockaddrStorage::from(self.server);
        let sent = sendmsg(self.socket.as_raw_fd(), &iov, &control, MsgFlags::empty(), Some(&to));
        assert_eq!(sent, Ok(bytes.len()));
    }

    pub(crate) fn send(&self, data: &Data<'_>) {
        self.send_bytes(&bytes_of(&Datagram::Data(*data)));
    }

    pub(crate) fn hello(&self, nonce: u64) -> Reply {
        self.send_bytes(&bytes_of(&Datagram::Hello(Hello { client: self.client, nonce })));
        self.reply()
    }

    /// Asks for the session's ACK.
    pub(crate) fn ping(&self) -> Acked {
        self.send_bytes(&bytes_of(&Datagram::Ping(Ping { client: self.client, epoch: self.epoch })));
        self.ack()
    }

    /// Sends DATA and waits for the reply to it.
    pub(crate) fn ask(&self, data: &Data<'_>) -> Reply {
        self.send(data);
        self.reply()
    }

    /// Sends DATA and waits for the ACK.
    pub(crate) fn ask_ack(&self, data: &Data<'_>) -> Acked {
        self.send(data);
        self.ack()
    }

    /// Sends DATA and waits for the REJECT.
    pub(crate) fn ask_reject(&self, data: &Data<'_>) -> Reject {
        self.send(data);
        self.reject()
    }

    /// Waits for the next reply of the server.
    pub(crate) fn reply(&self) -> Reply {
        let bytes = self.reply_bytes();
        Reply::parse(&bytes)
    }

    pub(crate) fn ack(&self) -> Acked {
        match self.reply().is {
            Is::Ack(ack) => ack,
            other => panic!("not an ACK: {other:?}"),
        }
    }

    pub(crate) fn reject(&self) -> Reject {
        match self.reply().is {
            Is::Reject(reject) => reject,
            other => panic!("not a REJECT: {other:?}"),
        }
    }

    pub(crate) fn answer(&self) -> Answered {
        match self.reply().is {
            Is::Answer(answer) => answer,
            other => panic!("not an ANSWER: {other:?}"),
        }
    }

    /// The next reply as it came.
    pub(crate) fn reply_bytes(&self) -> Vec<u8> {
        self.receive(PATIENCE).unwrap_or_else(|| panic!("waited {PATIENCE:?} for a reply"))
    }

    /// The replies to all that this socket has sent so far, those that need a commit too: asks for an epoch after it
    /// (for a client of its own), which is answered last of all.
    pub(crate) fn settle(&self) -> Vec<Reply> {
        let client = ClientId(0xba44_1e40_0000_0000);
        self.send_bytes(&bytes_of(&Datagram::Hello(Hello { client, nonce: 1 })));
        let mut replies = Vec::new();
        loop {
            let reply = self.reply();
            if reply.client() == client {
                assert!(matches!(reply.is, Is::Welcome(_)), "{reply:?}");
                return replies;
            }
            replies.push(reply);
        }
    }

    /// Replies until none has come for a short time; for counting what came, never for what must come.
    pub(crate) fn drain(&self) -> Vec<Reply> {
        std::iter::from_fn(|| self.receive(Duration::from_millis(50))).map(|bytes| Reply::parse(&bytes)).collect()
    }

    /// Nothing was answered so far to what this socket has sent: the server answers a PING sent after it (both take the
    /// same way through the server) with no other reply before.
    pub(crate) fn assert_silence_so_far(&self) {
        let client = ClientId(self.client.0 ^ 0xbabb_1e00_0000_0000);
        self.send_bytes(&bytes_of(&Datagram::Ping(Ping { client, epoch: self.epoch })));
        let reply = self.reply();
        assert!(matches!(&reply.is, Is::Ack(ack) if ack.client == client), "not silent: {reply:?}");
    }

    /// As `assert_silence_so_far`, and nothing comes shortly after either.
    pub(crate) fn assert_silence(&self) {
        self.assert_silence_so_far();
        assert_eq!(self.drain(), [], "not silent");
    }

    fn receive(&self, patience: Duration) -> Option<Vec<u8>> {
        self.socket.set_read_timeout(Some(patience)).expect("a timeout above 0");
        let mut buffer = vec![0; 65_536];
        match self.socket.recv_from(&mut buffer) {
            Ok((len, from)) => {
                assert_eq!(from, self.server, "a reply from elsewhere");
                buffer.truncate(len);
                Some(buffer)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => panic!("{error}"),
        }
    }
}

impl Reply {
    /// Returns the client to which the server sends it.
    pub(crate) fn client(&self) -> ClientId {
        match &self.is {
            Is::Ack(ack) => ack.client,
            Is::Reject(reject) => reject.client,
            Is::Welcome(welcome) => welcome.client,
            Is::Answer(answer) => answer.client,
        }
    }

    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let is = match codec::decode(bytes).unwrap_or_else(|error| panic!("{error:?}: {bytes:02x?}")) {
            Datagram::Ack(ack) => {
                let bits = ack.bitmap.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
                let above: Vec<u64> =
                    bits.zip(ack.floor.0 + 1..).filter_map(|(journaled, seq)| journaled.then_some(seq)).collect();
                assert_ne!(above.first(), Some(&(ack.floor.0 + 1)), "the floor is not the highest possible");
                assert!(ack.bitmap.is_empty() || !above.is_empty(), "a bitmap without a bit");
                Is::Ack(Acked {
                    client: ack.client,
                    epoch: ack.epoch,
                    floor: ack.floor.0,
                    above,
                    credit: ack.credit,
                    duplicate: ack.duplicate,
                    complete: ack.complete,
                    ready: ack.ready,
                    durability: ack.durability,
                    delay_us: ack.delay_us,
                })
            }
            Datagram::Reject(reject) => Is::Reject(reject),
            Datagram::Welcome(welcome) => Is::Welcome(welcome),
            Datagram::Answer(answer) => Is::Answer(Answered {
                client: answer.client,
                epoch: answer.epoch,
                seq: answer.seq.0,
                status: answer.status,
                number: answer.number,
                body: answer.body.to_vec(),
            }),
            other => panic!("not a server's datagram: {other:?}"),
        };
        Self { is, len: bytes.len() }
    }
}

/// Code and refused seq of a REJECT.
pub(crate) fn refusal(reject: &Reject) -> (RejectCode, u64) {
    (reject.code, reject.refused)
}

/// A datagram's bytes with a valid trailer.
pub(crate) fn bytes_of(datagram: &Datagram<'_>) -> Vec<u8> {
    let mut bytes = vec![0; codec::DATAGRAM_LEN_MAX];
    let len = datagram.encode(&mut bytes).expect("it fits");
    bytes.truncate(len);
    bytes
}

/// Puts a valid trailer on altered bytes.
pub(crate) fn fix_crc(bytes: &mut [u8]) {
    let at = bytes.len() - codec::CRC_LEN;
    let crc = crc32fast::hash(&bytes[..at]);
    bytes[at..].copy_from_slice(&crc.to_le_bytes());
}

/// Makes a batch's payload, with a length before each record.
pub(crate) fn batch_of(records: &[&[u8]]) -> Vec<u8> {
    let mut payload = Vec::new();
    for record in records {
        payload.extend_from_slice(&u16::try_from(record.len()).expect("a record's length").to_le_bytes());
        payload.extend_from_slice(record);
    }
    payload
}

fn socket() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback socket")
}
