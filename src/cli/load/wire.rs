//! How the datagrams of a load are protected: by a checksum, or each client's by its own seal.

use duragram_proto::codec::{self, Ack, Answer, Datagram, KeysOf, Reject};
use duragram_proto::seal::{ClientKey, FleetKey};
use duragram_proto::{ClientId, Epoch};

use crate::keys::SessionKeys;

use super::flow::Flow;

/// The protection of all flows' datagrams.
pub(super) enum Wire {
    Plain,
    /// The seals of the flows, in their order.
    Sealed(Vec<Seal>),
}

/// Keys and counter of a client in its epoch.
pub(super) struct Seal {
    key: ClientKey,
    epoch: Epoch,
    keys: SessionKeys,
    /// Of the next transmission. Begins at a random number, so never wraps.
    counter: u64,
}

/// What a server says to a client.
pub(super) enum Reply<'a> {
    Ack(Ack<'a>),
    Reject(Reject),
    Answer(Answer<'a>),
}

impl Wire {
    /// `random` gives 64 random bits for each client, by the operating system's randomness.
    pub(super) fn new(fleet: Option<&FleetKey>, flows: &[Flow], mut random: impl FnMut() -> u64) -> Self {
        let Some(fleet) = fleet else { return Self::Plain };
        let seal = |flow: &Flow| {
            let key = fleet.client_key(flow.client);
            let keys = key.keys_with(flow.client, Some(flow.epoch));
            // PROTOCOL.md#sealed-counter: below 2⁶³.
            Seal { key, epoch: flow.epoch, keys, counter: random() >> 1 }
        };
        Self::Sealed(flows.iter().map(seal).collect())
    }

    /// Bytes of a datagram with `payload` bytes of payload.
    pub(super) fn datagram_len(sealed: bool, payload: usize) -> usize {
        (if sealed { codec::SEALED_MIN_LEN } else { codec::MIN_LEN }).saturating_add(payload)
    }

    /// Writes a datagram of a flow.
    pub(super) fn encode(&mut self, at: usize, flow: &Flow, datagram: &Datagram<'_>, out: &mut [u8]) -> usize {
        let written = match self {
            Self::Plain => datagram.encode(out),
            Self::Sealed(seals) => {
                let seal = &mut seals[at];
                seal.follow(flow);
                seal.counter += 1;
                datagram.seal(&seal.keys, seal.counter, out)
            }
        };
        written.expect("a burst has room for a message")
    }

    /// What a reply says, and to which flow; `None` when it is not from the server.
    pub(super) fn decode<'a>(
        &self,
        datagram: &'a mut [u8],
        flow_of: impl Fn(ClientId) -> Option<usize>,
    ) -> Option<(usize, Reply<'a>)> {
        let reply = match self {
            Self::Plain => match codec::decode(datagram) {
                Ok(reply) => reply,
                Err(_) => Datagram::Reject(codec::decode_version_refusal(datagram)?),
            },
            Self::Sealed(seals) => {
                let head = codec::peek(datagram).ok()?;
                let seal = &seals[flow_of(head.client)?];
                if head.keys != KeysOf::Session(seal.epoch) {
                    return None;
                }
                codec::unseal_reply(datagram, &seal.keys).ok()?
            }
        };
        match reply {
            Datagram::Ack(ack) => Some((flow_of(ack.client)?, Reply::Ack(ack))),
            Datagram::Reject(reject) => Some((flow_of(reject.client)?, Reply::Reject(reject))),
            Datagram::Answer(answer) => Some((flow_of(answer.client)?, Reply::Answer(answer))),
            _ => None,
        }
    }
}

impl Seal {
    /// A new epoch has new keys, under which every counter is unused.
    fn follow(&mut self, flow: &Flow) {
        if self.epoch != flow.epoch {
            self.epoch = flow.epoch;
            self.keys = self.key.keys_with(flow.client, Some(flow.epoch));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use duragram_proto::Seq;
    use duragram_proto::codec::{Durability, Ping};

    use super::*;

    const FLEET: [u8; 32] = [7; 32];

    fn flow(client: u64, epoch: u32) -> Flow {
        Flow::new(ClientId(client), Epoch::new(epoch).unwrap(), 4, 1)
    }

    fn sealed_ack(client: u64, epoch: u32, fleet: [u8; 32]) -> Vec<u8> {
        let (client, epoch) = (ClientId(client), Epoch::new(epoch).unwrap());
        let ack = Ack {
            client,
            epoch,
            floor: Seq(1),
            credit: 1,
            durability: Durability::Synced,
            duplicate: false,
            complete: false,
            ready: false,
            delay_us: 0,
            bitmap: &[],
        };
        let mut out = vec![0; 100];
        let keys = FleetKey::new(fleet).client_key(client).keys(client, Some(epoch));
        let len = ack.seal(&keys, 1, &mut out).unwrap();
        out.truncate(len);
        out
    }

    #[test]
    fn each_client_seals_with_its_own_key_and_no_counter_twice_also_across_epochs() {
        let fleet = FleetKey::new(FLEET);
        let mut flows = [flow(10, 5), flow(11, 5)];
        let mut wire = Wire::new(Some(&fleet), &flows, || u64::MAX);
        let mut seen = BTreeSet::new();
        for epoch in [5, 6] {
            for (at, flow) in flows.iter_mut().enumerate() {
                flow.epoch = Epoch::new(epoch).unwrap();
                for _ in 0..3 {
                    let (client, epoch) = (flow.client, flow.epoch);
                    let mut out = [0; 100];
                    let len = wire.encode(at, flow, &Datagram::Ping(Ping { client, epoch }), &mut out);
                    let head = codec::peek(&out[..len]).unwrap();
                    assert_eq!((head.client, head.keys), (client, KeysOf::Session(epoch)));
                    let keys = fleet.client_key(client).keys(client, Some(epoch));
                    codec::unseal_request(&mut out[..len], &keys).unwrap();
                    assert!(seen.insert((client, epoch, head.counter)), "a counter came twice");
                }
            }
        }
    }

    #[test]
    fn only_answers_sealed_for_the_clients_present_epoch_are_heard() {
        let flows = [flow(10, 5), flow(11, 5)];
        let wire = Wire::new(Some(&FleetKey::new(FLEET)), &flows, || 1);
        let heard = |bytes: &[u8]| {
            wire.decode(&mut bytes.to_vec(), |client| flows.iter().position(|flow| flow.client == client))
                .map(|(at, _)| at)
        };
        assert_eq!(heard(&sealed_ack(11, 5, FLEET)), Some(1));
        assert_eq!(heard(&sealed_ack(11, 6, FLEET)), None);
        assert_eq!(heard(&sealed_ack(12, 5, FLEET)), None);
        assert_eq!(heard(&sealed_ack(11, 5, [8; 32])), None);
        let mut plain = [0; 100];
        let reject = Reject {
            client: ClientId(11),
            epoch: 5,
            refused: Seq(1).0,
            code: codec::RejectCode::SealedOnly,
            retry_after_ms: 0,
        };
        let len = reject.encode(&mut plain).unwrap();
        assert_eq!(heard(&plain[..len]), None);
    }
}
