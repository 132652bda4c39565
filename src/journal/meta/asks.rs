//! Asks: messages whose senders want an answer; and what was answered with one commit.
//!
//! The answers of a commit are one record: a put and an envelope for each would cost more than all else that an answer costs. A
//! checkpoint puts them into the records of their asks, and deletes the records of answers that these include.

use duragram_proto::Seq;
use rkyv::{Archive, Deserialize, Serialize};

use super::{be, session_id};
use crate::journal::envelope::{self, Record, RecordError};
use crate::model::{AnswerRecord, AnswersRecord, AskId, AskRecord, Offset};

pub(super) const ASK: u8 = b'a';
pub(super) const ANSWERS: u8 = b'r';

/// The length of an ask's key in bytes: none of this column family is longer.
pub(in crate::journal) const ASK_KEY_LEN: usize = 21;

/// Where the keys of answers begin, and where they have ended: they are read behind all blocks.
pub(in crate::journal) const ANSWERS_KEYS: ([u8; 1], [u8; 1]) = ([ANSWERS], [ANSWERS + 1]);

/// No version before format 5 of the data directory has written one.
#[derive(Archive, Serialize, Deserialize)]
struct StoredAsk {
    offset: u64,
    answer: Option<StoredAnswer>,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredAnswer {
    failed: bool,
    body: Vec<u8>,
    answered_s: u64,
}

/// All bodies lie one after the other behind rows of one length, so that a thousand short ones are copied and not linked.
#[derive(Archive, Serialize, Deserialize)]
struct StoredAnswers {
    rows: Vec<StoredRow>,
    bodies: Vec<u8>,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredRow {
    client: u64,
    epoch: u32,
    seq: u64,
    offset: u64,
    failed: bool,
    /// It is no answer: the ask is no more.
    forgotten: bool,
    body_bytes: u32,
    answered_s: u64,
}

impl Record for StoredAsk {
    const VERSION: u32 = 1;
}
impl Record for StoredAnswers {
    const VERSION: u32 = 1;
}

/// The key of an ask.
pub(in crate::journal) fn ask_key(id: AskId) -> [u8; ASK_KEY_LEN] {
    let mut key = [ASK; ASK_KEY_LEN];
    key[1..9].copy_from_slice(&id.session.client.0.to_be_bytes());
    key[9..13].copy_from_slice(&id.session.epoch.value().to_be_bytes());
    key[13..].copy_from_slice(&id.seq.0.to_be_bytes());
    key
}

/// The key of the answers with this number.
pub(in crate::journal) fn answers_key(number: u64) -> [u8; 9] {
    let mut key = [ANSWERS; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

impl AskRecord {
    /// The key and the value to store under it.
    pub(in crate::journal) fn encode(&self) -> ([u8; ASK_KEY_LEN], Vec<u8>) {
        let key = ask_key(self.id);
        let answer = self.answer.as_ref().map(|answer| StoredAnswer {
            failed: answer.failed,
            body: answer.body.to_vec(),
            answered_s: answer.answered_s,
        });
        (key, envelope::encode(&key, &StoredAsk { offset: self.offset.0, answer }))
    }
}

impl AnswersRecord {
    /// The key and the value to store under it.
    pub(in crate::journal) fn encode(&self) -> ([u8; 9], Vec<u8>) {
        let key = answers_key(self.number);
        let body = |ask: &AskRecord| ask.answer.as_ref().map_or(0, |answer| answer.body.len());
        let mut bodies = Vec::with_capacity(self.answers.iter().map(body).sum());
        let rows = self.answers.iter().map(|ask| {
            bodies.extend(ask.answer.iter().flat_map(|answer| answer.body.iter()));
            StoredRow {
                client: ask.id.session.client.0,
                epoch: ask.id.session.epoch.value(),
                seq: ask.id.seq.0,
                offset: ask.offset.0,
                failed: ask.answer.as_ref().is_some_and(|answer| answer.failed),
                forgotten: ask.answer.is_none(),
                // A body comes in one datagram.
                body_bytes: u32::try_from(body(ask)).unwrap_or(u32::MAX),
                answered_s: ask.answer.as_ref().map_or(0, |answer| answer.answered_s),
            }
        });
        let rows = rows.collect();
        (key, envelope::encode(&key, &StoredAnswers { rows, bodies }))
    }

    /// About how many bytes it takes when it is stored.
    pub(in crate::journal) fn size(&self) -> usize {
        let body = |ask: &AskRecord| ask.answer.as_ref().map_or(0, |answer| answer.body.len());
        self.answers.iter().map(|ask| size_of::<ArchivedStoredRow>() + body(ask)).sum()
    }
}

/// The ask under this key, whose kind is known; `id` is the rest of it.
pub(super) fn decode_ask(key: &[u8], id: &[u8], value: &[u8]) -> Result<AskRecord, RecordError> {
    let stored: StoredAsk = envelope::decode(key, value)?;
    let (session, seq) = id.split_at_checked(12).ok_or(RecordError::Short)?;
    let id = AskId { session: session_id(session)?, seq: seq_of(be(seq))? };
    let answer = stored.answer.map(|StoredAnswer { failed, body, answered_s }| AnswerRecord {
        failed,
        body: body.into(),
        answered_s,
    });
    Ok(AskRecord { id, offset: Offset(stored.offset), answer })
}

/// The answers under this key, whose kind is known; `number` is the rest of it.
pub(super) fn decode_answers(key: &[u8], number: &[u8], value: &[u8]) -> Result<AnswersRecord, RecordError> {
    let StoredAnswers { rows, bodies } = envelope::decode(key, value)?;
    let malformed = || RecordError::Malformed("its answers are longer or shorter than what they say".into());
    let (mut answers, mut rest) = (Vec::with_capacity(rows.len()), &bodies[..]);
    for row in rows {
        let (body, behind) = rest.split_at_checked(row.body_bytes as usize).ok_or_else(malformed)?;
        rest = behind;
        let session = [&row.client.to_be_bytes()[..], &row.epoch.to_be_bytes()].concat();
        let id = AskId { session: session_id(&session)?, seq: seq_of(row.seq)? };
        let answer = AnswerRecord { failed: row.failed, body: body.into(), answered_s: row.answered_s };
        let answer = (!row.forgotten).then_some(answer);
        answers.push(AskRecord { id, offset: Offset(row.offset), answer });
    }
    match rest.is_empty() {
        true => Ok(AnswersRecord { number: be(number), answers }),
        false => Err(malformed()),
    }
}

fn seq_of(seq: u64) -> Result<Seq, RecordError> {
    match Seq(seq) {
        Seq::ZERO => Err(RecordError::Malformed("seq 0".into())),
        seq => Ok(seq),
    }
}

#[cfg(test)]
mod tests;
