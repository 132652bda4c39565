//! Sealed mode in the simulation: who has which key, and the eyes of the oracle, which knows all keys.

use duragram::dialect::duragram::AdmissionConfig;
use duragram::keys::{KeyRing, Keys};
use duragram::proto::codec::{self, DecodeError, SealedHead, Side};
use duragram::proto::seal::ClientKey;

use crate::plan::Plan;

/// How a seed's server takes its traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Plain,
    Sealed,
    /// Both: every other client is sealed.
    Mixed,
}

impl Mode {
    /// Seeds keep what they made of a run before there was a choice.
    pub(crate) fn of(seed: u64) -> Self {
        match seed % 8 {
            1 | 3 => Self::Sealed,
            5 => Self::Mixed,
            _ => Self::Plain,
        }
    }

    pub(crate) fn has_keys(self) -> bool {
        self != Self::Plain
    }

    /// Whether a client sends sealed; clients are numbered from 1.
    pub(crate) fn seals(self, client: u64) -> bool {
        match self {
            Self::Plain => false,
            Self::Sealed => true,
            Self::Mixed => client % 2 == 1,
        }
    }
}

/// The key of a client.
pub(crate) fn key(client: u64) -> ClientKey {
    ClientKey::new(bytes(client))
}

fn bytes(client: u64) -> [u8; 32] {
    std::array::from_fn(|at| client.to_le_bytes()[at % 8] ^ 0x5a)
}

/// What the server lets in.
pub(crate) fn admission(plan: &Plan) -> AdmissionConfig {
    let plain = AdmissionConfig::plain(plan.datagram_max);
    if !plan.mode.has_keys() {
        return plain;
    }
    let line = |client: u64| {
        let digits: String = bytes(client).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("client {client:016x} {digits}\n")
    };
    let file: String = (1..=plan.clients.len() as u64).filter(|&id| plan.mode.seals(id)).map(line).collect();
    let keys = KeyRing::of(Keys::parse(file.as_bytes()).expect("a key file"));
    AdmissionConfig { keys, allow_plain: plan.mode == Mode::Mixed, ..plain }
}

/// A datagram as who has all keys reads it: plain ones as they are, sealed ones as the plain ones that say the same, with
/// their counter. `None` for what is not well sealed.
pub(crate) fn read(datagram: &[u8]) -> Option<(Vec<u8>, Option<u64>)> {
    let SealedHead { client, keys, counter, sender } = match codec::peek(datagram) {
        Err(DecodeError::NotSealed) => return Some((datagram.to_vec(), None)),
        Err(_) => return None,
        Ok(head) => head,
    };
    let keys = key(client.0).keys(client, keys.epoch());
    let mut copy = datagram.to_vec();
    let opened = match sender {
        Side::Client => codec::unseal_request(&mut copy, &keys),
        Side::Server => codec::unseal_reply(&mut copy, &keys),
    };
    let mut plain = vec![0; datagram.len()];
    let len = opened.ok()?.encode(&mut plain).expect("it was longer");
    plain.truncate(len);
    Some((plain, Some(counter)))
}
