//! The stream: that it is there and fit, and how far it has come.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, RawMessageErrorKind, RetentionPolicy, StorageType, Stream};
use async_nats::jetstream::{Context, ErrorCode, context::GetStreamErrorKind};

use super::message::Said;
use super::trouble;
use crate::limits;
use crate::model::{JournalId, NatsTarget};
use crate::sink::position::{EntryId, Known};

/// What a stream says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Found {
    /// The number of its last message; 0 before the first.
    pub(super) sequence: u64,
    /// The last record in it, dead letters that were retried left aside.
    pub(super) last: Option<EntryId>,
    /// What the message of that record says, if it is still there.
    pub(super) said: Option<Said>,
    /// The dead letter that was retried last, if nothing was written after it.
    pub(super) retried: Option<EntryId>,
    /// Bytes of a message, headers included, that it takes at most.
    pub(super) message_max: Option<usize>,
    /// Whether several servers keep it.
    pub(super) is_replicated: bool,
}

/// Finds the stream that is ours alone, or makes it, and reads how far it has come.
pub(super) async fn find_own(
    context: &Context,
    target: &NatsTarget,
    (journal, known): (JournalId, &Known),
) -> Result<Found, String> {
    let stream = match context.get_stream(&target.stream).await {
        Ok(stream) => stream,
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(said) if said.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                if known.must_be_there() {
                    // Not made anew: what was written would be lost without a word.
                    return Ok(Found::default());
                }
                let config = Config {
                    name: target.stream.clone(),
                    subjects: vec![target.subject.clone()],
                    storage: StorageType::File,
                    duplicate_window: Duration::from_secs(limits::SINK_NATS_OWN_WINDOW_S),
                    ..Config::default()
                };
                context.create_stream(config).await.map_err(|error| trouble::of_making(&error))?
            }
            _ => return Err(trouble::of_getting(&error)),
        },
    };
    let config = &stream.cached_info().config;
    is_fit(config, target)?;
    if config.retention != RetentionPolicy::Limits {
        return Err(format!(
            "the stream {} drops what was consumed, and with it how far it has come: give it the retention \"limits\", or set \
             exclusive = false",
            target.stream
        ));
    }
    let (message_max, is_replicated) = (message_max(config), config.num_replicas > 1);
    if is_replicated && !config.allow_atomic_publish {
        return Err(format!(
            "the stream {} has replicas and does not allow atomic publishing: switch it on (allow_atomic; NATS 2.12 or later), or \
             set exclusive = false",
            target.stream
        ));
    }
    let found = read_back(&stream, stream.cached_info().state.last_sequence, (journal, known)).await?;
    Ok(Found { message_max, is_replicated, ..found })
}

/// Sees that the stream that others write to as well is there, and returns how long its messages may be.
pub(super) async fn find_shared(context: &Context, target: &NatsTarget) -> Result<Option<usize>, String> {
    let stream = context.get_stream(&target.stream).await.map_err(|error| trouble::of_getting(&error))?;
    let config = &stream.cached_info().config;
    is_fit(config, target)?;
    Ok(message_max(config))
}

fn is_fit(config: &Config, target: &NatsTarget) -> Result<(), String> {
    match config.subjects.iter().any(|pattern| covers(pattern, &target.subject)) {
        true => Ok(()),
        false => Err(format!("the stream {} does not take the subject {}: add it", target.stream, target.subject)),
    }
}

fn message_max(config: &Config) -> Option<usize> {
    usize::try_from(config.max_message_size).ok().filter(|&bytes| bytes > 0)
}

/// Whether a subject with wildcards (`*` for a token, `>` for all that follow) stands for this one.
fn covers(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// Reads the last message that tells how far the stream has come.
async fn read_back(stream: &Stream, last: u64, (journal, known): (JournalId, &Known)) -> Result<Found, String> {
    let mut found = Found { sequence: last, ..Found::default() };
    for sequence in (1..=last).rev().take(limits::SINK_NATS_READ_BACK) {
        let message = match stream.get_raw_message(sequence).await {
            Ok(message) => message,
            // Deleted, or too old: it is known all the same, if nothing came after it.
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => break,
            Err(error) => return Err(error.to_string()),
        };
        let said = Said::read(&message.headers).filter(|said| said.is_of(journal));
        let said = said.ok_or_else(|| {
            format!(
                "message {sequence} of the stream is not this journal's: somebody else writes to it; configure another stream, or \
                 set exclusive = false"
            )
        })?;
        if said.retried {
            found.retried = found.retried.or(Some(said.id));
            continue;
        }
        found.last = Some(said.id);
        found.said = Some(said);
        return Ok(found);
    }
    if last == 0 || known.sequence == last {
        found.last = if last == 0 { None } else { known.written };
        return Ok(found);
    }
    Err(format!(
        "the last messages of the stream (up to {last}) were deleted, and nobody can tell which records they were: publish a \
         message with the header Duragram-Record: {journal}-OFFSET-INDEX of the last record that was there, or configure another \
         stream"
    ))
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_subject_is_taken_by_itself_and_by_wildcards() {
        for (pattern, expected) in [
            ("a.b.c", true),
            ("a.*.c", true),
            ("a.>", true),
            (">", true),
            ("a.b.c.>", false),
            ("a.b", false),
            ("a.*", false),
            ("a.b.c.d", false),
            ("a.b.x", false),
        ] {
            assert_eq!(covers(pattern, "a.b.c"), expected, "{pattern}");
        }
    }
}
