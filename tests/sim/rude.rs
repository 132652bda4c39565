//! Those who do not keep to the protocol: garbage, floods of sessions, forged addresses, replays, absurd numbers.

use std::collections::VecDeque;
use std::net::SocketAddr;

use duragram::proto::codec::{Ack, Answer, AnswerStatus, Data, Datagram, Durability, Hello, OPTION_ASK, Ping, Take};
use duragram::proto::{ClientId, Epoch, Seq};

use crate::client::SimClient;
use crate::oracle::RUDE;
use crate::rng::Rng;

pub(crate) struct Rude {
    rng: Rng,
    seq: u64,
}

impl Rude {
    pub(crate) fn new(rng: Rng) -> Self {
        Self { rng, seq: 0 }
    }

    /// What can be made of recordings without a key: played back, changed, or put under another name.
    pub(crate) fn sealed(&mut self, recorded: &[Vec<u8>], clients: &[SimClient]) -> (SocketAddr, Vec<u8>) {
        let rng = &mut self.rng;
        let own = SocketAddr::from(([10, 0, 0, 2], u16::try_from(60_000 + rng.below(8)).expect("a port")));
        let from = if rng.one_in(3) { clients[rng.index(clients.len())].address() } else { own };
        if recorded.is_empty() {
            return (from, vec![0x11; 60]);
        }
        let mut datagram = recorded[rng.index(recorded.len())].clone();
        match rng.below(4) {
            0 => {
                let at = rng.index(datagram.len());
                datagram[at] ^= 1 << rng.below(8);
            }
            1 => {
                // Epoch, client, seq, counter: one of them is another's.
                let other = &recorded[rng.index(recorded.len())];
                let (at, len) = [(4, 4), (8, 8), (16, 8), (28, 8)][rng.index(4)];
                if datagram.len() >= at + len && other.len() >= at + len {
                    datagram[at..at + len].copy_from_slice(&other[at..at + len]);
                }
            }
            _ => {}
        }
        (from, datagram)
    }

    /// A TAKE in some client's name, or an ask of somebody who never takes.
    pub(crate) fn about_asks(&mut self, clients: &[SimClient]) -> (SocketAddr, Vec<u8>) {
        let rng = &mut self.rng;
        let port = u16::try_from(60_000 + rng.below(8)).expect("a port");
        let victim = &clients[rng.index(clients.len())];
        let from = if rng.one_in(3) { victim.address() } else { SocketAddr::from(([10, 0, 0, 2], port)) };
        let (name, epoch) = if rng.one_in(2) { victim.name() } else { (RUDE + rng.below(64), 1) };
        let client = ClientId(name);
        let epoch = Epoch::new(epoch.max(1)).expect("not 0");
        let seq = rng.within(1, 64);
        let payload = [7; 8];
        let datagram = if name >= RUDE && rng.one_in(2) {
            self.seq += 1;
            let seq = Seq(self.seq);
            Datagram::Data(Data { options: OPTION_ASK, ..Data::whole(client, epoch, seq, 0, &payload) })
        } else {
            let span = u16::try_from(rng.below(seq)).expect("small");
            let wait_ms = [0, 500, 20_000, u32::MAX][rng.index(4)];
            Datagram::Take(Take { client, epoch, seq: Seq(seq), span, wait_ms, room: rng.index(300) })
        };
        let mut buffer = [0; 1500];
        let len = datagram.encode(&mut buffer).expect("short");
        (from, buffer[..len].to_vec())
    }

    /// An ANSWER that no server has sent: in plain to a client that seals, or of another epoch than the client's.
    pub(crate) fn answer(&mut self, clients: &[SimClient]) -> (SocketAddr, Vec<u8>) {
        let rng = &mut self.rng;
        let victim = &clients[rng.index(clients.len())];
        let (name, epoch) = victim.name();
        let epoch = if victim.is_sealed() { epoch.max(1) } else { epoch ^ 1 << 31 };
        let status = [AnswerStatus::Done, AnswerStatus::Failed, AnswerStatus::Gone][rng.index(3)];
        let epoch = Epoch::new(epoch).expect("not 0");
        let answer =
            Answer { client: ClientId(name), epoch, seq: Seq(rng.within(1, 32)), status, number: 0, body: &[] };
        let mut buffer = [0; 100];
        let len = Datagram::Answer(answer).encode(&mut buffer).expect("short");
        (victim.address(), buffer[..len].to_vec())
    }

    /// A datagram, and where it claims to come from.
    pub(crate) fn datagram(&mut self, captured: &VecDeque<Vec<u8>>, clients: &[SimClient]) -> (SocketAddr, Vec<u8>) {
        let rng = &mut self.rng;
        let port = u16::try_from(60_000 + rng.below(8)).expect("a port");
        let own = SocketAddr::from(([10, 0, 0, 2], port));
        // A sender's address can be forged.
        let from = if rng.one_in(3) { clients[rng.index(clients.len())].address() } else { own };
        let client = ClientId(RUDE + rng.below(64));
        let epoch = Epoch::new(u32::try_from(rng.within(1, 3)).expect("small")).expect("not 0");
        let payload = vec![7; rng.index(64)];
        let datagram = match rng.below(10) {
            0 => return (from, (0..rng.below(100)).map(|_| rng.next().to_le_bytes()[0]).collect()),
            1 | 2 if !captured.is_empty() => return (from, captured[rng.index(captured.len())].clone()),
            3 => Datagram::Hello(Hello { client, nonce: rng.next() }),
            4 => Datagram::Ping(Ping { client, epoch }),
            5 => {
                let bitmap = &[2, 0, 0, 0, 0, 0, 0, 0];
                Datagram::Ack(Ack {
                    client,
                    epoch,
                    floor: Seq(rng.below(100)),
                    credit: 1,
                    durability: Durability::Synced,
                    duplicate: false,
                    complete: false,
                    ready: false,
                    delay_us: 0,
                    bitmap,
                })
            }
            kind => {
                self.seq += rng.below(20);
                let seq = if rng.one_in(6) { rng.next() | 1 << 20 } else { self.seq % 4096 + 1 };
                let wide = 1 << rng.below(16);
                let span = rng.below(seq.min(wide));
                Datagram::Data(Data {
                    client,
                    epoch,
                    seq: Seq(seq),
                    span: u16::try_from(span).expect("16 bits"),
                    attempt: 0,
                    begin: kind != 6 || rng.one_in(2),
                    end: true,
                    batch: false,
                    skip: rng.one_in(2),
                    channel: 0,
                    options: 0,
                    payload: &payload,
                })
            }
        };
        let mut buffer = [0; 1500];
        let len = datagram.encode(&mut buffer).expect("short");
        (from, buffer[..len].to_vec())
    }
}
