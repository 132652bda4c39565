//! `mode = "record"`: each record is a request. One after the other, or several at a time where order does not matter.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use super::client::Client;
use super::request::Requests;
use super::verdict::{Fault, Verdict};
use crate::limits;
use crate::model::Record;
use crate::process::handler::Outcomes;

/// What became of a record.
enum Sent {
    /// With the body of the response, where somebody waits for it; of one that is too long a part.
    Taken(Vec<u8>),
    Refused(String),
    Fault(Fault),
}

/// Sends records for a while, up to `in_flight` at a time. Returns the fault for which it has stopped.
pub(super) fn present(
    client: &Client,
    requests: &Requests,
    in_flight: usize,
    records: &[Record<'_>],
    outcomes: &mut Outcomes,
) -> Option<Fault> {
    let until = Instant::now() + Duration::from_millis(limits::HTTP_CALL_MS);
    if in_flight > 1 {
        return at_a_time(client, requests, in_flight.min(records.len()), (records, until), outcomes);
    }
    for (i, record) in records.iter().enumerate() {
        if i > 0 && Instant::now() >= until {
            break;
        }
        match send(client, requests, record, outcomes.awaits(i)) {
            // What it has responded is the answer for who has asked, who need not wait for the requests of others.
            Sent::Taken(answer) => {
                outcomes.done_with_what_fits(i, &answer);
                outcomes.tell_done();
            }
            // A dead letter is durable before anything that came after it is sent.
            Sent::Refused(reason) => {
                outcomes.give_up(i, reason);
                break;
            }
            Sent::Fault(fault) => return Some(fault),
        }
    }
    None
}

/// The same by so many threads, this one included, which end before it returns. After a fault none begins another record.
fn at_a_time(
    client: &Client,
    requests: &Requests,
    threads: usize,
    (records, until): (&[Record<'_>], Instant),
    outcomes: &mut Outcomes,
) -> Option<Fault> {
    let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    let told = Mutex::new((outcomes, None::<Fault>));
    let lock = || told.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        while !stopped.load(Ordering::Relaxed) {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(record) = records.get(i) else { break };
            if i > 0 && Instant::now() >= until {
                break;
            }
            let awaits = lock().0.awaits(i);
            let sent = send(client, requests, record, awaits);
            let (outcomes, first) = &mut *lock();
            match sent {
                Sent::Taken(answer) => {
                    outcomes.done_with_what_fits(i, &answer);
                    outcomes.tell_done();
                }
                Sent::Refused(reason) => outcomes.give_up(i, reason),
                Sent::Fault(fault) => {
                    stopped.store(true, Ordering::Relaxed);
                    // The one that asks for the longest pause is obeyed.
                    if first.as_ref().is_none_or(|first| first.pause < fault.pause) {
                        *first = Some(fault);
                    }
                }
            }
        }
    };
    thread::scope(|scope| {
        // Where the system gives no further thread, fewer do it.
        let start = |_| Builder::new().name("http-sink".to_owned()).spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..threads).map_while(start).collect();
        work();
        for other in others {
            other.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
    told.into_inner().unwrap_or_else(PoisonError::into_inner).1
}

/// Sends one record. Somebody may wait for an answer of up to so many bytes.
fn send(client: &Client, requests: &Requests, record: &Record<'_>, awaits: Option<usize>) -> Sent {
    let (request, body) = match requests.record(record) {
        Ok(made) => made,
        Err(error) => return Sent::Fault(Fault::new(format!("compressing a record failed: {error}"))),
    };
    match client.send(request, &body, limits::HTTP_REPLY_BYTES) {
        Verdict::Taken(mut reply) => match awaits {
            None => Sent::Taken(Vec::new()),
            Some(bytes_max) if !reply.complete && reply.body.len() <= bytes_max => Sent::Fault(Fault::new(format!(
                "{} answered {}, and its response, for which somebody waits, broke off: the same comes again",
                client.origin(),
                reply.status
            ))),
            Some(bytes_max) => {
                // Many may be kept until all have been sent.
                reply.body.truncate(bytes_max + 1);
                reply.body.shrink_to_fit();
                Sent::Taken(reply.body)
            }
        },
        Verdict::Refused { reason, .. } => Sent::Refused(reason),
        Verdict::Fault(fault) => Sent::Fault(fault),
    }
}
