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
    outcome: u8,
    body_bytes: u32,
    answered_s: u64,
}

/// What became of an ask, as a row has it. One that is forgotten has neither a body nor a time.
const DONE: u8 = 0;
const FAILED: u8 = 1;
const FORGOTTEN: u8 = 2;

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
    /// The key and the value to store under it. An ask without its answer is forgotten.
    pub(in crate::journal) fn encode(&self) -> ([u8; 9], Vec<u8>) {
        let key = answers_key(self.number);
        let answered = self.answers.iter().filter_map(|ask| ask.answer.as_ref());
        let mut bodies = Vec::with_capacity(answered.map(|answer| answer.body.len()).sum());
        let rows = self.answers.iter().map(|ask| {
            let (outcome, body, answered_s) = match &ask.answer {
                Some(answer) => (if answer.failed { FAILED } else { DONE }, &answer.body[..], answer.answered_s),
                None => (FORGOTTEN, &[][..], 0),
            };
            bodies.extend_from_slice(body);
            StoredRow {
                client: ask.id.session.client.0,
                epoch: ask.id.session.epoch.value(),
                seq: ask.id.seq.0,
                offset: ask.offset.0,
                outcome,
                // A body comes in one datagram.
                body_bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
                answered_s,
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
        let answer = match row.outcome {
            outcome @ (DONE | FAILED) => {
                Some(AnswerRecord { failed: outcome == FAILED, body: body.into(), answered_s: row.answered_s })
            }
            FORGOTTEN if body.is_empty() => None,
            outcome => return Err(RecordError::Malformed(format!("an ask with the outcome {outcome}"))),
        };
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
