//! What the column family `meta` holds: where recovery starts, and what was given up.
//!
//! Numbers in keys are big-endian. Values are records in an [`envelope`], of the version that the table says; fields that an earlier
//! version of the record has not are marked with the version that brought them.
//!
//! | key | record | version | fields |
//! |---|---|---|---|
//! | `s`, client u64, epoch u32 | a session | 2 | floor u64, seqs above it as words of u64, last activity u64, nonce of its HELLO (optional u64), sealed (2) |
//! | `c` | the last checkpoint; there is one from the beginning | 4 | see below |
//! | `e`, client u64 | the epochs of a client that speaks in sealed mode | 1 | highest opened u32, highest given u32 |
//! | `n` | the limit of the counter for all that the server seals | 1 | limit u64 |
//! | `x`, number u32 | a loss that an operator has accepted | 1 | offsets from and to (optional), when u64, what, as text |
//! | `a`, client u64, epoch u32, seq u64 | an ask: a message whose sender wants an answer, until that is had | 1 | offset of its entry u64; once answered: failed, body, when u64 |
//! | `r`, number u64 | what was answered with one commit, until a checkpoint has it in the asks' records | 1 | a row for each: client u64, epoch u32, seq u64, offset of its entry u64, done (0), failed (1) or forgotten (2), length of its body u32, when u64; then all bodies |
//! | `k`, dialect u8, key u128 | a key by which a dialect knows a message again | 1 | offset of its entry u64, when it expires u64 |
//!
//! `e` and `n` are never deleted: what they forgot, a recording could bring back (PROTOCOL.md#sealed-epoch). `a` is written since
//! format 5 of the data directory, which has brought `r`. No version has written `k` so far: its format is fixed, so that recent keys
//! of dialect 0 do not change the directory's format. This version keeps such records as they are. A record of any other kind is
//! damage.
//!
//! An ask whose entry the checkpoint does not include may have no record yet: the entry says that it asks.
//!
//! The checkpoint:
//!
//! | field | | |
//! |---|---|---|
//! | at | u64 | the sessions' records include every entry below |
//! | low, low_previous_checksum | u64, u32 | the lowest entry kept, and what its block repeats as the checksum of the one before it |
//! | lanes | list | how far each lane of the embedded handler has come, in lane order: its watermark u64 and its sink's state, bytes |
//! | former | lists of u64 | the watermarks of lanes of another number, until those of today have come as far (2) |
//! | sinks | list | the configured sinks, and those that were configured once and not removed (4) |
//!
//! A sink. No two have the same id or the same name:
//!
//! | field | | |
//! |---|---|---|
//! | id | u128 | drawn at random when the name was first configured; never 0, which is the embedded handler |
//! | name | text | what the configuration calls it: printable, 1 to 255 bytes |
//! | identity | u64 | a hash of where it writes to and what it takes |
//! | watermark | u64 | every entry below is processed, and the sink has made that durable |
//! | state | bytes | what the sink needs after a crash; opaque here |
//! | instance | u64 | the start of the journal in which the mark was last moved |
//! | holds | bool | trimming stops at its watermark; else it has been detached |
//! | paused | bool | an operator has stopped it for a while |
//! | losses | list | what it will never see, the oldest first: offsets from and to, how many entries of these, when; u64 each |
//! | untold | option | of these the entries, offsets from and to, of which its handler has not been told |
//! | former | list | of the lanes that it goes on from, as in the checkpoint of format 3: their watermarks, a list for each run |
//!
//! A checkpoint of version 3 had a mark in place of a lane, with fields for shards, batches and filters. No version has written anything
//! into these: where they are set, it is damage.

use duragram_proto::{ClientId, Epoch, Seq};
use rkyv::{Archive, Deserialize, Serialize};

use crate::journal::envelope::{self, Record, RecordError};
use crate::model::{AnswersRecord, AskRecord, ClientRecord, DialectId, Offset, SessionId, SessionRecord};

mod asks;
mod checkpoint;
mod sinks;

use asks::{ANSWERS, ASK, decode_answers, decode_ask};
pub(in crate::journal) use asks::{ANSWERS_KEYS, ASK_KEY_LEN, answers_key, ask_key};
pub(in crate::journal) use checkpoint::CheckpointState;
use checkpoint::decode_checkpoint;
pub(in crate::journal) use sinks::verify_sinks;

const SESSION: u8 = b's';
const CHECKPOINT: u8 = b'c';
const LOSS: u8 = b'x';
const CLIENT: u8 = b'e';
const COUNTER: u8 = b'n';
const RECENT: u8 = b'k';

/// The key of the checkpoint.
pub(in crate::journal) const CHECKPOINT_KEY: &[u8] = &[CHECKPOINT];
/// The key of the counter's limit.
pub(in crate::journal) const COUNTER_KEY: &[u8] = &[COUNTER];

/// Something that was damaged, and that an operator chose to go on without.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loss {
    /// The offsets that no entry has any more: the first, and the first in use after them.
    pub entries: Option<(Offset, Offset)>,
    /// When it was accepted, in microseconds since 1970.
    pub accepted_unix_us: u64,
    /// What was found, in words.
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
    Ask(AskRecord),
    Answers(AnswersRecord),
    Recent(RecentRecord),
}

/// What a dialect without numbers of its own knows a message by that came before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::journal) struct RecentRecord {
    pub(in crate::journal) dialect: DialectId,
    pub(in crate::journal) key: u128,
    /// The offset of the message's entry.
    pub(in crate::journal) offset: Offset,
    /// From when on the key counts for nothing, in seconds of service.
    pub(in crate::journal) expires_s: u64,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredSession {
    floor: u64,
    above: Vec<u64>,
    last_active_s: u64,
    hello_nonce: Option<u64>,
    sealed: bool,
}

/// A session as format 1 of the data directory has it.
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
struct StoredLoss {
    entries: Option<(u64, u64)>,
    accepted_unix_us: u64,
    what: String,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredRecent {
    offset: u64,
    expires_s: u64,
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
impl Record for StoredLoss {
    const VERSION: u32 = 1;
}
impl Record for StoredRecent {
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
    /// The key and the value to store under it.
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
    /// The key and the value to store under it.
    pub(in crate::journal) fn encode(&self) -> ([u8; 9], Vec<u8>) {
        let key = client_key(self.client);
        (key, envelope::encode(&key, &StoredClient { opened: self.opened, given: self.given }))
    }
}

/// Makes the value that stands under [`COUNTER_KEY`].
pub(in crate::journal) fn encode_counter_limit(limit: u64) -> Vec<u8> {
    envelope::encode(COUNTER_KEY, &StoredCounter { limit })
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

impl RecentRecord {
    /// The key and the value to store under it.
    pub(in crate::journal) fn encode(&self) -> ([u8; 18], Vec<u8>) {
        let mut key = [RECENT; 18];
        key[1] = self.dialect.0;
        key[2..].copy_from_slice(&self.key.to_be_bytes());
        (key, envelope::encode(&key, &StoredRecent { offset: self.offset.0, expires_s: self.expires_s }))
    }
}

/// Any record of the column family.
pub(in crate::journal) fn decode(key: &[u8], value: &[u8]) -> Result<MetaRecord, RecordError> {
    let malformed = |what: &str| RecordError::Malformed(what.into());
    match key {
        [SESSION, id @ ..] if id.len() == 12 => {
            let stored = decode_session(key, value)?;
            let session = SessionRecord {
                id: session_id(id)?,
                floor: Seq(stored.floor),
                above: stored.above,
                last_active_s: stored.last_active_s,
                hello_nonce: stored.hello_nonce,
                sealed: stored.sealed,
            };
            match session.fits_a_window() {
                true => Ok(MetaRecord::Session(session)),
                false => Err(malformed("seqs beyond any window")),
            }
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
        CHECKPOINT_KEY => Ok(MetaRecord::Checkpoint(decode_checkpoint(value)?)),
        [LOSS, number @ ..] if number.len() == 4 => {
            let stored: StoredLoss = envelope::decode(key, value)?;
            Ok(MetaRecord::Loss(Loss {
                entries: stored.entries.map(|(from, to)| (Offset(from), Offset(to))),
                accepted_unix_us: stored.accepted_unix_us,
                what: stored.what,
            }))
        }
        [ASK, id @ ..] if id.len() == ASK_KEY_LEN - 1 => Ok(MetaRecord::Ask(decode_ask(key, id, value)?)),
        [ANSWERS, number @ ..] if number.len() == 8 => Ok(MetaRecord::Answers(decode_answers(key, number, value)?)),
        [RECENT, dialect, id @ ..] if id.len() == 16 => {
            let stored: StoredRecent = envelope::decode(key, value)?;
            let dialect = Some(DialectId(*dialect)).filter(|dialect| dialect.is_known());
            let dialect = dialect.ok_or_else(|| malformed("a dialect that this program does not know"))?;
            let key = id.iter().fold(0, |number, &byte| number << 8 | u128::from(byte));
            let (offset, expires_s) = (Offset(stored.offset), stored.expires_s);
            Ok(MetaRecord::Recent(RecentRecord { dialect, key, offset, expires_s }))
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

/// What the keys of sessions and of asks name: a client, u64, and its epoch, u32.
fn session_id(id: &[u8]) -> Result<SessionId, RecordError> {
    let (client, epoch) = id.split_at_checked(8).ok_or(RecordError::Short)?;
    let epoch = u32::try_from(be(epoch)).ok().and_then(Epoch::new);
    let epoch = epoch.ok_or_else(|| RecordError::Malformed("epoch 0".into()))?;
    Ok(SessionId { client: ClientId(be(client)), epoch })
}

fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests;
