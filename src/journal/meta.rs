//! What the column family `meta` holds: where recovery starts, and what was given up.
//!
//! | key | record |
//! |---|---|
//! | `s`, client u64, epoch u32 (big-endian) | a session |
//! | `c` | the last checkpoint; there is one from the beginning |
//! | `e`, client u64 (big-endian) | the epochs of a client that speaks in sealed mode |
//! | `n` | the limit of the counter for all that the server seals |
//! | `x`, number u32 (big-endian) | a loss that an operator has accepted |
//!
//! `e` and `n` are never deleted: what they forgot, a recording could bring back (PROTOCOL.md#sealed-epoch).

use duragram_proto::window::DedupWindow;
use duragram_proto::{ClientId, Epoch, Seq};
use rkyv::{Archive, Deserialize, Serialize};

use crate::journal::envelope::{self, Record, RecordError};
use crate::model::{ClientRecord, FormerLanes, LaneMark, Offset, SessionId, SessionRecord};

const SESSION: u8 = b's';
const CHECKPOINT: u8 = b'c';
const LOSS: u8 = b'x';
const CLIENT: u8 = b'e';
const COUNTER: u8 = b'n';

/// The key of the checkpoint.
pub(in crate::journal) const CHECKPOINT_KEY: &[u8] = &[CHECKPOINT];
/// The key of the counter's limit.
pub(in crate::journal) const COUNTER_KEY: &[u8] = &[COUNTER];

/// What recovery starts from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::journal) struct CheckpointState {
    /// The sessions' state includes every entry below.
    pub(in crate::journal) at: Offset,
    /// The lowest entry kept: the first of its block, or the journal's end.
    pub(in crate::journal) low: Offset,
    /// What the block at `low` repeats as the checksum of the block before it. Keeps the chain when nothing is kept.
    pub(in crate::journal) low_previous_checksum: u32,
    pub(in crate::journal) lanes: Vec<LaneMark>,
    pub(in crate::journal) former: Vec<FormerLanes>,
}

/// Something that was damaged, and that an operator chose to go on without.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loss {
    /// The offsets that no entry has any more: the first, and the first in use after them.
    pub entries: Option<(Offset, Offset)>,
    /// When it was accepted, in microseconds since 1970.
    pub accepted_unix_us: u64,
    /// What was found.
    pub what: String,
}

/// Any record of the column family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::journal) enum MetaRecord {
    Session(SessionRecord),
    Client(ClientRecord),
    CounterLimit(u64),
    Checkpoint(CheckpointState),
    Loss(Loss),
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredSession {
    floor: u64,
    above: Vec<u64>,
    last_active_s: u64,
    hello_nonce: Option<u64>,
    sealed: bool,
}

/// As format 1 of the data directory has it.
#[derive(Archive, Serialize, Deserialize)]
struct StoredSessionV1 {
    floor: u64,
    above: Vec<u64>,
    last_active_s: u64,
    hello_nonce: Option<u64>,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredClient {
    opened: u32,
    given: u32,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredCounter {
    limit: u64,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredCheckpoint {
    at: u64,
    low: u64,
    low_previous_checksum: u32,
    lanes: Vec<StoredLane>,
}

/// While the lanes of today have not passed all that those of an earlier run had.
#[derive(Archive, Serialize, Deserialize)]
struct StoredCheckpointWithFormer {
    checkpoint: StoredCheckpoint,
    /// Watermarks.
    former: Vec<Vec<u64>>,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredLane {
    watermark: u64,
    sink_state: Vec<u8>,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredLoss {
    entries: Option<(u64, u64)>,
    accepted_unix_us: u64,
    what: String,
}

impl Record for StoredSession {
    const VERSION: u32 = 2;
}
impl Record for StoredSessionV1 {
    const VERSION: u32 = 1;
}
impl Record for StoredClient {
    const VERSION: u32 = 1;
}
impl Record for StoredCounter {
    const VERSION: u32 = 1;
}
impl Record for StoredCheckpoint {
    const VERSION: u32 = 1;
}
impl Record for StoredCheckpointWithFormer {
    const VERSION: u32 = 2;
}
impl Record for StoredLoss {
    const VERSION: u32 = 1;
}

/// The key of a session.
pub(in crate::journal) fn session_key(id: SessionId) -> [u8; 13] {
    let mut key = [SESSION; 13];
    key[1..9].copy_from_slice(&id.client.0.to_be_bytes());
    key[9..].copy_from_slice(&id.epoch.value().to_be_bytes());
    key
}

/// The key of a client.
pub(in crate::journal) fn client_key(client: ClientId) -> [u8; 9] {
    let mut key = [CLIENT; 9];
    key[1..].copy_from_slice(&client.0.to_be_bytes());
    key
}

/// The key of the loss with this number.
pub(in crate::journal) fn loss_key(number: u32) -> [u8; 5] {
    let mut key = [LOSS; 5];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

impl SessionRecord {
    /// Key and value.
    pub(in crate::journal) fn encode(&self) -> ([u8; 13], Vec<u8>) {
        let key = session_key(self.id);
        let stored = StoredSession {
            floor: self.floor.0,
            above: self.above.clone(),
            last_active_s: self.last_active_s,
            hello_nonce: self.hello_nonce,
            sealed: self.sealed,
        };
        (key, envelope::encode(&key, &stored))
    }
}

impl ClientRecord {
    /// Key and value.
    pub(in crate::journal) fn encode(&self) -> ([u8; 9], Vec<u8>) {
        let key = client_key(self.client);
        (key, envelope::encode(&key, &StoredClient { opened: self.opened, given: self.given }))
    }
}

/// The value under [`COUNTER_KEY`].
pub(in crate::journal) fn encode_counter_limit(limit: u64) -> Vec<u8> {
    envelope::encode(COUNTER_KEY, &StoredCounter { limit })
}

impl CheckpointState {
    /// The value.
    pub(in crate::journal) fn encode(&self) -> Vec<u8> {
        let lane = |lane: &LaneMark| StoredLane { watermark: lane.watermark.0, sink_state: lane.sink_state.clone() };
        let checkpoint = StoredCheckpoint {
            at: self.at.0,
            low: self.low.0,
            low_previous_checksum: self.low_previous_checksum,
            lanes: self.lanes.iter().map(lane).collect(),
        };
        if self.former.is_empty() {
            return envelope::encode(CHECKPOINT_KEY, &checkpoint);
        }
        let former = self.former.iter().map(|lanes| lanes.0.iter().map(|offset| offset.0).collect()).collect();
        envelope::encode(CHECKPOINT_KEY, &StoredCheckpointWithFormer { checkpoint, former })
    }
}

impl Loss {
    /// The value under the key of `number`.
    pub(in crate::journal) fn encode(&self, number: u32) -> Vec<u8> {
        let stored = StoredLoss {
            entries: self.entries.map(|(from, to)| (from.0, to.0)),
            accepted_unix_us: self.accepted_unix_us,
            what: self.what.clone(),
        };
        envelope::encode(&loss_key(number), &stored)
    }
}

/// Any record of the column family.
pub(in crate::journal) fn decode(key: &[u8], value: &[u8]) -> Result<MetaRecord, RecordError> {
    let malformed = |what: &str| RecordError::Malformed(what.into());
    match key {
        [SESSION, id @ ..] if id.len() == 12 => {
            let (client, epoch) = id.split_at(8);
            let stored = decode_session(key, value)?;
            let (client, epoch) = (be(client), u32::try_from(be(epoch)).ok().and_then(Epoch::new));
            if DedupWindow::from_words(Seq(stored.floor), &stored.above).is_none() {
                return Err(malformed("seqs beyond any window"));
            }
            Ok(MetaRecord::Session(SessionRecord {
                id: SessionId { client: ClientId(client), epoch: epoch.ok_or_else(|| malformed("epoch 0"))? },
                floor: Seq(stored.floor),
                above: stored.above,
                last_active_s: stored.last_active_s,
                hello_nonce: stored.hello_nonce,
                sealed: stored.sealed,
            }))
        }
        [CLIENT, client @ ..] if client.len() == 8 => {
            let stored: StoredClient = envelope::decode(key, value)?;
            let client = ClientId(be(client));
            Ok(MetaRecord::Client(ClientRecord { client, opened: stored.opened, given: stored.given }))
        }
        COUNTER_KEY => {
            let stored: StoredCounter = envelope::decode(key, value)?;
            Ok(MetaRecord::CounterLimit(stored.limit))
        }
        CHECKPOINT_KEY => {
            let (stored, former) = decode_checkpoint(key, value)?;
            let lane = |lane: StoredLane| LaneMark { watermark: Offset(lane.watermark), sink_state: lane.sink_state };
            Ok(MetaRecord::Checkpoint(CheckpointState {
                at: Offset(stored.at),
                low: Offset(stored.low),
                low_previous_checksum: stored.low_previous_checksum,
                lanes: stored.lanes.into_iter().map(lane).collect(),
                former,
            }))
        }
        [LOSS, number @ ..] if number.len() == 4 => {
            let stored: StoredLoss = envelope::decode(key, value)?;
            Ok(MetaRecord::Loss(Loss {
                entries: stored.entries.map(|(from, to)| (Offset(from), Offset(to))),
                accepted_unix_us: stored.accepted_unix_us,
                what: stored.what,
            }))
        }
        _ => Err(malformed("a key of no known kind")),
    }
}

/// A session of this format or of the one before.
fn decode_session(key: &[u8], value: &[u8]) -> Result<StoredSession, RecordError> {
    if envelope::version(value) != Some(StoredSessionV1::VERSION) {
        return envelope::decode(key, value);
    }
    let StoredSessionV1 { floor, above, last_active_s, hello_nonce } = envelope::decode(key, value)?;
    Ok(StoredSession { floor, above, last_active_s, hello_nonce, sealed: false })
}

fn decode_checkpoint(key: &[u8], value: &[u8]) -> Result<(StoredCheckpoint, Vec<FormerLanes>), RecordError> {
    if envelope::version(value) != Some(StoredCheckpointWithFormer::VERSION) {
        return Ok((envelope::decode(key, value)?, Vec::new()));
    }
    let StoredCheckpointWithFormer { checkpoint, former } = envelope::decode(key, value)?;
    let lanes = |watermarks: Vec<u64>| FormerLanes(watermarks.into_iter().map(Offset).collect());
    Ok((checkpoint, former.into_iter().map(lanes).collect()))
}

fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::testing::shared::record;

    fn samples() -> Vec<(Vec<u8>, Vec<u8>, MetaRecord)> {
        let session = record(0xa1, 5);
        let sealed = SessionRecord { sealed: true, ..record(0xa2, 6) };
        let lanes = vec![LaneMark { watermark: Offset(8), sink_state: vec![1, 2] }, LaneMark::default()];
        let former = Vec::new();
        let checkpoint =
            CheckpointState { at: Offset(9), low: Offset(7), low_previous_checksum: 0xdead_beef, lanes, former };
        let loss = Loss { entries: Some((Offset(3), Offset(5))), accepted_unix_us: 42, what: "a hole".into() };
        let client = ClientRecord { client: ClientId(0xa2), opened: 3, given: u32::MAX };
        let session_sample = |session: SessionRecord| {
            let (key, value) = session.encode();
            (key.to_vec(), value, MetaRecord::Session(session))
        };
        vec![
            session_sample(session),
            session_sample(sealed),
            (CHECKPOINT_KEY.to_vec(), checkpoint.encode(), MetaRecord::Checkpoint(checkpoint)),
            (loss_key(1).to_vec(), loss.encode(1), MetaRecord::Loss(loss)),
            (client.encode().0.to_vec(), client.encode().1, MetaRecord::Client(client)),
            (COUNTER_KEY.to_vec(), encode_counter_limit(1 << 61), MetaRecord::CounterLimit(1 << 61)),
        ]
    }

    #[test]
    fn records_come_back_as_they_were_stored() {
        for (key, value, stored) in samples() {
            assert_eq!(decode(&key, &value), Ok(stored));
        }
    }

    #[test]
    fn a_checkpoint_keeps_how_far_lanes_of_another_number_had_come() {
        let former = vec![FormerLanes(vec![Offset(3), Offset(8)]), FormerLanes(vec![Offset(5)])];
        let checkpoint = CheckpointState { at: Offset(9), former, ..CheckpointState::default() };
        let value = checkpoint.encode();
        assert_eq!(decode(CHECKPOINT_KEY, &value), Ok(MetaRecord::Checkpoint(checkpoint)));
        for at in 0..value.len() {
            let mut bad = value.clone();
            bad[at] ^= 1;
            assert!(decode(CHECKPOINT_KEY, &bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_change_of_any_byte_of_key_or_value_is_detected() {
        for (key, value, _) in samples() {
            let key_len = key.len();
            let whole = [key, value].concat();
            for at in 0..whole.len() {
                for bit in 0..8 {
                    let mut bad = whole.clone();
                    bad[at] ^= 1 << bit;
                    let (key, value) = bad.split_at(key_len);
                    assert!(decode(key, value).is_err(), "bit {bit} of byte {at}");
                }
            }
            for at in key_len..whole.len() {
                assert!(decode(&whole[..key_len], &whole[key_len..at]).is_err(), "cut to {at} bytes");
            }
        }
    }

    /// The format on disk: whoever changes these bytes must raise the record's version.
    #[test]
    fn the_format_is_that_of_the_golden_records() {
        let values: Vec<_> = samples().into_iter().flat_map(|(_, value, _)| value).collect();
        assert_eq!(values, include_bytes!("testdata/meta_v2.bin"));
    }

    /// Session, checkpoint and loss, as version 0.1.0 wrote them: what a directory of format 1 holds.
    #[test]
    fn records_of_format_1_are_read() {
        let golden = include_bytes!("testdata/meta_v1.bin");
        let samples = samples();
        let (checkpoint, loss) = (&samples[2], &samples[3]);
        let (rest, golden_loss) = golden.split_at(golden.len() - loss.1.len());
        let (golden_session, golden_checkpoint) = rest.split_at(rest.len() - checkpoint.1.len());
        assert_eq!(decode(&samples[0].0, golden_session).as_ref(), Ok(&samples[0].2));
        assert_eq!(decode(&checkpoint.0, golden_checkpoint).as_ref(), Ok(&checkpoint.2));
        assert_eq!(decode(&loss.0, golden_loss).as_ref(), Ok(&loss.2));
    }
}
