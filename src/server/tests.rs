//! Tests of a whole server from within.

mod in_memory;
mod sinks;

use std::time::Instant;

use duragram_proto::{ClientId, Epoch, Seq};
use tempfile::TempDir;

use super::*;
use crate::config::Threading;
use crate::journal::{DeadLetter, DeadLetterId};
use crate::limits;
use crate::model::{Offset, Record, SessionId, SinkId};
use crate::process::Outcomes;

/// Takes everything and keeps nothing.
struct Willing;

impl Handler for Willing {
    fn process(&mut self, _: &[Record<'_>], outcomes: &mut Outcomes) {
        outcomes.done_all();
    }

    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        Ok(Vec::new())
    }
}

fn letter(offset: u64) -> DeadLetter {
    DeadLetter {
        id: DeadLetterId { offset: Offset(offset), index: 0, sink: SinkId::EMBEDDED },
        session: SessionId { client: ClientId(0xa1), epoch: Epoch::new(3).unwrap() },
        seq: Seq(9),
        channel: 0,
        received_unix_us: 1,
        payload: b"text".to_vec(),
        gap_from: None,
        error: "no paper".into(),
        attempts: 10,
        since_unix_us: 2,
        told_failed: false,
    }
}

#[test]
fn an_idle_committer_does_at_once_what_a_lane_asks_it_for() {
    const LETTERS: u32 = 40;
    for threading in [Threading::Single, Threading::Pipeline] {
        // In memory where there is such a thing: the disk's time is of no interest here.
        let dir = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        let listen = vec!["127.0.0.1:0".parse().unwrap()];
        let config = Config { data: dir.path().join("data"), listen, admin: None, threading, ..Config::default() };
        let server = Server::start(config, |_| Ok(Box::new(Willing) as Box<dyn Handler>)).unwrap();
        let letters: Vec<_> = (0..LETTERS).map(|n| letter(n.into())).collect();
        letters.iter().for_each(|letter| server.state.dead_letters().put(letter).unwrap());
        let started = Instant::now();
        for letter in &letters {
            // It is answered when a checkpoint has deleted the letter, and the lane asks the committer for one.
            let answer = server.lanes.retry_dead(letter).unwrap();
            assert_eq!(answer.recv_timeout(Duration::from_secs(30)), Ok(Ok(())));
        }
        let took = started.elapsed();
        // Unless it is woken, each waits until the committer has waited for a datagram.
        let unwoken = LETTERS * Duration::from_millis(limits::RECEIVE_WAIT_MS.into());
        assert!(took < unwoken / 2, "{took:?} for {LETTERS} checkpoints, {threading:?}");
        server.handle().stop();
        server.wait().unwrap();
    }
}
