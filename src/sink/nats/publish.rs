//! Publishing: a chain of which a beginning is stored, or messages one by one with several answers under way.

use std::collections::VecDeque;

use async_nats::header::{
    HeaderValue, NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE,
    NATS_EXPECTED_LAST_MESSAGE_ID, NATS_EXPECTED_LAST_SEQUENCE,
};
use async_nats::jetstream::{Context, publish::PublishAck, response::Response};
use async_nats::{Client, Subject};

use super::message::Message;
use super::trouble::{self, Refused};
use crate::limits;

/// Where a chain goes, and behind which message.
#[derive(Clone, Debug)]
pub(super) struct Behind {
    pub(super) subject: Subject,
    /// The number of the stream's last message.
    pub(super) sequence: u64,
    /// The name of an atomic batch that takes the place of the chain: all of it is stored, or nothing. The server stores it several
    /// times slower.
    pub(super) batch: Option<String>,
}

/// Stores these messages directly behind the one that is expected to be the last, each directly behind the one before it, or a
/// beginning of them. Returns the number of the last one, whose answer is the only one: where it is there, so are all.
///
/// Each but the last needs an id. What comes behind another message than the one that was before it here is refused, whatever has
/// become of that one: so it does no harm when a part of a chain arrives long after its connection was given up.
pub(super) async fn chain(
    client: &Client,
    behind: &Behind,
    messages: impl ExactSizeIterator<Item = Message>,
) -> Result<u64, Refused> {
    let count = messages.len();
    let mut before: Option<HeaderValue> = None;
    for (number, Message { mut headers, id, payload }) in (1..).zip(messages) {
        if number == 1 {
            headers.insert(NATS_EXPECTED_LAST_SEQUENCE, behind.sequence.to_string());
        }
        if let Some(id) = before.take() {
            headers.insert(NATS_EXPECTED_LAST_MESSAGE_ID, id);
        }
        let batch = behind.batch.as_ref().filter(|_| count > 1);
        if let Some(batch) = batch {
            headers.insert(NATS_BATCH_ID, batch.as_str());
            headers.insert(NATS_BATCH_SEQUENCE, number.to_string());
        }
        if number < count {
            before = id.filter(|_| batch.is_none());
            let sent = client.publish_with_headers(behind.subject.clone(), headers, payload.into()).await;
            sent.map_err(|error| Refused::Other(error.to_string()))?;
            if number % limits::SINK_NATS_WRITTEN_AT_ONCE == 0 {
                // The connection writes them while the next are made.
                tokio::task::yield_now().await;
            }
            continue;
        }
        if batch.is_some() {
            headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
        }
        let answer = client.request_with_headers(behind.subject.clone(), headers, payload.into()).await;
        return stored(&answer.map_err(|error| trouble::of_request(&error))?);
    }
    Ok(behind.sequence)
}

fn stored(answer: &async_nats::Message) -> Result<u64, Refused> {
    match serde_json::from_slice::<Response<PublishAck>>(&answer.payload) {
        Ok(Response::Ok(ack)) => Ok(ack.sequence),
        Ok(Response::Err { error }) => Err(trouble::refused(&error)),
        Err(error) => Err(Refused::Other(format!("a strange answer to a message: {error}"))),
    }
}

/// Publishes messages in order, a bounded number of answers under way, and stops at the first that is refused. Calls `done` with
/// the index of each that is stored.
pub(super) async fn one_by_one(
    context: &Context,
    subject: &Subject,
    messages: impl Iterator<Item = Message>,
    mut done: impl FnMut(usize),
) -> Result<(), (usize, Refused)> {
    let mut answers = VecDeque::new();
    let mut failed = None;
    for (i, message) in messages.enumerate() {
        if answers.len() >= limits::SINK_NATS_IN_FLIGHT
            && let Some((i, answer)) = answers.pop_front()
        {
            settle(i, answer.await, &mut done, &mut failed);
        }
        if failed.is_some() {
            break;
        }
        match context.publish_with_headers(subject.clone(), message.headers, message.payload.into()).await {
            Ok(answer) => answers.push_back((i, answer.into_future())),
            Err(error) => {
                failed = Some((i, trouble::of_publishing(&error)));
                break;
            }
        }
    }
    // What is under way may be stored all the same.
    while let Some((i, answer)) = answers.pop_front() {
        let first = failed.take();
        settle(i, answer.await, &mut done, &mut failed);
        failed = first.filter(|(first, _)| failed.as_ref().is_none_or(|(i, _)| first < i)).or(failed);
    }
    failed.map_or(Ok(()), Err)
}

fn settle(
    i: usize,
    answer: Result<PublishAck, async_nats::jetstream::context::PublishError>,
    done: &mut impl FnMut(usize),
    failed: &mut Option<(usize, Refused)>,
) {
    match answer {
        Ok(_) => done(i),
        Err(error) => *failed = Some((i, trouble::of_publishing(&error))),
    }
}
