//! `mode = "batch"`: many records in one request, a line each. A refused batch is halved down to the record that is to blame.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::answers;
use super::client::Client;
use super::reply::Reply;
use super::request::Requests;
use super::verdict::{Fault, Verdict};
use crate::limits;
use crate::model::Record;
use crate::process::handler::{Outcome, Outcomes};
use crate::record_json::Formatter;

/// It puts records together to requests, with memory that is used again.
pub(super) struct Batches {
    formatter: Formatter,
    /// The lines of the request that is under way.
    lines: Vec<u8>,
    /// What was sent last and not answered: the very same comes again before anything newer.
    doubt: Option<Doubt>,
    /// Bytes of lines from which on a request gets no further record: less when the server finds that too large,
    bytes_max: usize,
    /// which is forgotten after a while, since its limit may have been raised.
    learned: Option<Instant>,
}

/// Records of which nobody knows whether the server has them.
struct Doubt {
    first: (u64, u16),
    records: usize,
    key: String,
}

fn name(record: &Record<'_>) -> (u64, u16) {
    (record.offset.0, record.index)
}

impl Batches {
    pub(super) fn new() -> Self {
        let bytes_max = limits::SINK_LINES_BYTES;
        Self { formatter: Formatter::default(), lines: Vec::new(), doubt: None, bytes_max, learned: None }
    }

    /// Sends records for a while. Returns the fault for which it has stopped.
    pub(super) fn present(
        &mut self,
        client: &Client,
        requests: &Requests,
        records: &[Record<'_>],
        outcomes: &mut Outcomes,
    ) -> Option<Fault> {
        let until = Instant::now() + Duration::from_millis(limits::HTTP_CALL_MS);
        if self.learned.is_some_and(|at| at.elapsed() >= limits::SINK_CONNECTION_AGE) {
            (self.bytes_max, self.learned) = (limits::SINK_LINES_BYTES, None);
        }
        let whole = 0..records.len();
        let mut open = vec![whole];
        // In doubt, and sent as it was, however many bytes it has.
        let mut again = self.in_doubt(requests, records);
        if let Some(again) = &again {
            open = vec![again.end..records.len(), 0..again.start, again.clone()];
        }
        let mut answered = false;
        while let Some(mut piece) = open.pop() {
            if piece.is_empty() {
                continue;
            }
            if answered && Instant::now() >= until {
                break;
            }
            let bytes_max = if again.take().is_some() { usize::MAX } else { self.bytes_max };
            let end = piece.start + self.write(&records[piece.clone()], bytes_max);
            if end < piece.end {
                open.push(end..piece.end);
                piece.end = end;
            }
            let shown = &records[piece.clone()];
            let key = requests.key(shown);
            let fault = match self.send(client, requests, &key) {
                Verdict::Taken(reply) => settle(client, &reply, &piece, shown, outcomes),
                Verdict::Refused { reason, .. } if shown.len() == 1 => {
                    outcomes.give_up(piece.start, reason);
                    None
                }
                Verdict::Refused { too_large, .. } => {
                    if too_large {
                        self.bytes_max = (self.lines.len() / 2).max(limits::HTTP_BATCH_BYTES_LEAST);
                        self.learned = Some(Instant::now());
                    }
                    let middle = piece.start + shown.len() / 2;
                    open.extend([middle..piece.end, piece.start..middle]);
                    continue;
                }
                Verdict::Fault(fault) => Some(fault),
            };
            if let Some(fault) = fault {
                self.doubt = Some(Doubt { first: name(&shown[0]), records: shown.len(), key });
                return Some(fault);
            }
            // The server has these; the next request may take it long.
            outcomes.tell_done();
            answered = true;
        }
        None
    }

    /// Where among the records the very ones are that are in doubt.
    fn in_doubt(&mut self, requests: &Requests, records: &[Record<'_>]) -> Option<Range<usize>> {
        let doubt = self.doubt.take()?;
        let start = records.binary_search_by_key(&doubt.first, name).ok()?;
        let range = start..start + doubt.records;
        (requests.key(records.get(range.clone())?) == doubt.key).then_some(range)
    }

    /// Writes lines up to so many bytes, one at least; returns how many.
    fn write(&mut self, records: &[Record<'_>], bytes_max: usize) -> usize {
        self.lines.clear();
        for (i, record) in records.iter().enumerate() {
            let before = self.lines.len();
            self.formatter.line(record, &mut self.lines);
            if i > 0 && self.lines.len() > bytes_max {
                self.lines.truncate(before);
                return i;
            }
        }
        records.len()
    }

    fn send(&self, client: &Client, requests: &Requests, key: &str) -> Verdict {
        match requests.batch(key, &self.lines) {
            Ok((request, body)) => client.send(request, &body, limits::HTTP_ANSWERS_BYTES),
            Err(error) => Verdict::Fault(Fault::new(format!("compressing a batch failed: {error}"))),
        }
    }
}

/// Answers for the records of a batch that the server has taken: for each as it says, or for all.
fn settle(
    client: &Client,
    reply: &Reply,
    piece: &Range<usize>,
    records: &[Record<'_>],
    outcomes: &mut Outcomes,
) -> Option<Fault> {
    let origin = client.origin();
    let content_type = reply.content_type.as_deref();
    if !reply.complete && answers::may_be_in(content_type) {
        return Some(Fault::new(format!(
            "{origin} answered {}, and what it said of the records could not be read: it broke off, or is longer than {} bytes; the \
             same comes again",
            reply.status,
            limits::HTTP_ANSWERS_BYTES
        )));
    }
    let answers = match answers::read(content_type, &reply.body) {
        Ok(Some(answers)) => answers,
        Ok(None) => {
            piece.clone().for_each(|i| outcomes.done(i));
            return None;
        }
        Err(error) => {
            return Some(Fault::new(format!(
                "{origin} answers for records in a way that is not understood: {}; the same comes again",
                client.printable(&error)
            )));
        }
    };
    // None is taken before all are understood.
    let place = |answered: &answers::Judged| records.binary_search_by_key(&answered.name, name).ok();
    if let Some(stranger) = answers.iter().find(|answered| place(answered).is_none()) {
        let (offset, index) = stranger.name;
        return Some(Fault::new(format!(
            "{origin} answers for offset {offset}, index {index}, which was not in its batch; the same comes again"
        )));
    }
    if answers.is_empty() {
        return Some(Fault::new(format!("{origin} answers for none of the batch's records; the same comes again")));
    }
    for answered in answers {
        let Some(at) = place(&answered) else { continue };
        match answered.outcome {
            Outcome::Retry(reason) => outcomes.retry(piece.start + at, client.printable(&reason)),
            Outcome::GiveUp(reason) => outcomes.give_up(piece.start + at, client.printable(&reason)),
            Outcome::Done | Outcome::Unanswered => {
                outcomes.done_with_what_fits(piece.start + at, answered.body.as_deref().unwrap_or_default());
            }
        }
    }
    None
}
