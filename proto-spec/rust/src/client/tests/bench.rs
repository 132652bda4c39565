//! A client driven by hand, datagram by datagram.

use std::vec;
use std::vec::Vec;

use super::super::{Client, ClientConfig, Event, Ignored, MessageId, Outgoing, Slot};
use super::model_server::encode;
use crate::codec::{self, Ack, Data, Datagram, Durability, Hello, Reject, RejectCode, Welcome};
use crate::{ClientId, Epoch, Seq};

pub(super) const CLIENT: ClientId = ClientId(0xa1);
pub(super) const SECOND: u64 = 1_000_000;

pub(super) struct Bench {
    pub(super) client: Client<Vec<Slot>, Vec<u8>>,
    pub(super) now_us: u64,
}

impl Bench {
    /// Makes a client with 16 slots that has this epoch, or asks for one.
    pub(super) fn new(epoch: Option<u32>) -> Self {
        Self::with(ClientConfig::new(CLIENT, epoch.and_then(Epoch::new)), 16)
    }

    pub(super) fn with(config: ClientConfig, slots: usize) -> Self {
        Self { client: Client::new(config, vec![Slot::EMPTY; slots], vec![0; slots * 128], 1), now_us: 0 }
    }

    /// A client whose first `count` messages are in flight, as seqs 1 to `count`, each with 64 bytes.
    pub(super) fn in_flight(count: u64) -> Self {
        let mut bench = Self::new(Some(7));
        for _ in 0..count {
            bench.send();
        }
        assert_eq!(bench.sent_seqs(), (1..=count).collect::<Vec<_>>());
        bench
    }

    pub(super) fn send(&mut self) -> MessageId {
        self.client.send(self.now_us, Outgoing { channel: 0, batch: false, payload: &[0xab; 64] }).expect("room")
    }

    /// The datagrams that the client wants to send now.
    pub(super) fn transmit(&mut self) -> Vec<Vec<u8>> {
        let mut out = [0; 1_200];
        let mut all = Vec::new();
        while let Some(len) = self.client.poll_transmit(self.now_us, &mut out) {
            all.push(out[..len].to_vec());
        }
        all
    }

    pub(super) fn sent_seqs(&mut self) -> Vec<u64> {
        self.transmit().iter().map(|bytes| data(bytes).seq.0).collect()
    }

    pub(super) fn hello(&mut self) -> Option<Hello> {
        let sent = self.transmit();
        assert!(sent.len() <= 1, "a HELLO is sent alone");
        let Datagram::Hello(hello) = codec::decode(sent.first()?).unwrap() else { panic!("not a HELLO") };
        Some(hello)
    }

    pub(super) fn is_ping(&mut self) -> bool {
        let sent = self.transmit();
        sent.len() == 1 && matches!(codec::decode(&sent[0]), Ok(Datagram::Ping(_)))
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        core::iter::from_fn(|| self.client.poll_event()).collect()
    }

    pub(super) fn receive(&mut self, datagram: &Datagram<'_>) -> Result<(), Ignored> {
        self.client.handle_datagram(self.now_us, &mut encode(datagram))
    }

    /// An ACK of the client's epoch with the bits of `above` set.
    pub(super) fn ack(&mut self, floor: u64, above: &[u64], credit: u16) -> Result<(), Ignored> {
        let epoch = self.client.epoch().unwrap_or(ACK.epoch);
        let mut bitmap = [0; 128];
        let mut len = 0;
        for seq in above {
            let bit = usize::try_from(seq - floor - 1).unwrap();
            bitmap[bit / 8] |= 1 << (bit % 8);
            len = len.max(bit / 64 * 8 + 8);
        }
        self.receive(&Datagram::Ack(Ack { epoch, floor: Seq(floor), credit, bitmap: &bitmap[..len], ..ACK }))
    }

    pub(super) fn reject(&mut self, refused: u64, code: RejectCode, retry_after_ms: u32) -> Result<(), Ignored> {
        let epoch = self.client.epoch().map_or(0, Epoch::value);
        self.receive(&Datagram::Reject(Reject { client: CLIENT, epoch, code, refused, retry_after_ms }))
    }

    pub(super) fn welcome(&mut self, nonce: u64, epoch: u32) -> Result<(), Ignored> {
        let epoch = Epoch::new(epoch).unwrap();
        self.receive(&Datagram::Welcome(Welcome { client: CLIENT, epoch, credit: 64, nonce }))
    }

    pub(super) fn wait(&mut self, us: u64) {
        self.now_us += us;
    }

    /// Moves on to the timeout and handles it. Returns how long it took.
    pub(super) fn time_out(&mut self) -> u64 {
        let at = self.client.poll_timeout().expect("a timer");
        let waited = at - self.now_us;
        self.now_us = at;
        self.client.handle_timeout(at);
        waited
    }
}

/// An ACK of nothing in epoch 7.
pub(super) const ACK: Ack<'static> = Ack {
    client: CLIENT,
    epoch: match Epoch::new(7) {
        Some(epoch) => epoch,
        None => unreachable!(),
    },
    floor: Seq::ZERO,
    credit: 64,
    durability: Durability::Synced,
    duplicate: false,
    complete: false,
    ready: false,
    delay_us: 0,
    bitmap: &[],
};

pub(super) fn data(bytes: &[u8]) -> Data<'_> {
    match codec::decode(bytes) {
        Ok(Datagram::Data(data)) => data,
        other => panic!("not DATA: {other:?}"),
    }
}

pub(super) fn acked(events: &[Event]) -> Vec<u64> {
    let seq = |event: &Event| match event {
        Event::Acked { seq, .. } => seq.0,
        other => panic!("not acked: {other:?}"),
    };
    events.iter().map(seq).collect()
}
