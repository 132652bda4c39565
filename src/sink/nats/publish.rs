//! Publishing: messages in order, with many answers under way.

use std::collections::VecDeque;

use async_nats::jetstream::{Context, publish::PublishAck};
use async_nats::{HeaderMap, Subject};

use super::message::payload;
use super::trouble::{self, Refused};
use crate::limits;
use crate::model::Record;

/// Publishes messages in order, a bounded number of answers under way, and stops at the first that is refused. Calls `done` with
/// the index of each that is stored.
pub(super) async fn one_by_one(
    context: &Context,
    subject: &Subject,
    records: &[Record<'_>],
    mut headers: impl FnMut(usize, &Record<'_>) -> HeaderMap,
    mut done: impl FnMut(usize),
) -> Result<(), (usize, Refused)> {
    let mut answers = VecDeque::new();
    let mut failed = None;
    for (i, record) in records.iter().enumerate() {
        if answers.len() >= limits::SINK_NATS_IN_FLIGHT
            && let Some((i, answer)) = answers.pop_front()
        {
            settle(i, answer.await, &mut done, &mut failed);
        }
        if failed.is_some() {
            break;
        }
        match context.publish_with_headers(subject.clone(), headers(i, record), payload(record).into()).await {
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
