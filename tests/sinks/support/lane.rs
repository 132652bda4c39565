//! Presents records to a handler as a lane does, without a journal.

use std::thread;
use std::time::{Duration, Instant};

use duragram::model::{
    BacklogConfig, BatchConfig, Instance, JournalId, Lane, LaneMark, Offset, SessionId, SinkConfig, SinkId, SinkStart,
    SinkTarget,
};
use duragram::process::{Content, Handler, LaneStart, Outcome, Outcomes, Record};
use duragram::proto::{ClientId, Epoch, Seq};
use duragram::sink;

use super::proxy::Proxy;

/// A message, from which a record is made.
pub(crate) struct Message {
    pub(crate) offset: u64,
    pub(crate) index: u16,
    pub(crate) channel: u16,
    pub(crate) payload: Vec<u8>,
}

impl Message {
    /// The record as a handler sees it: sent by client 0xa1 in its third epoch.
    pub(crate) fn record(&self) -> Record<'_> {
        Record {
            offset: Offset(self.offset),
            index: self.index,
            session: SessionId { client: ClientId(0xa1), epoch: Epoch::new(3).expect("not 0") },
            seq: Seq(self.offset + 1),
            channel: self.channel,
            received_unix_us: 1_767_323_045_678_901 + self.offset,
            asks: false,
            content: Content::Payload(&self.payload),
        }
    }
}

/// Messages of one record an entry, from this offset on.
pub(crate) fn messages(from: u64, count: u64) -> Vec<Message> {
    let message = |offset| Message { offset, index: 0, channel: 7, payload: format!("message {offset}").into_bytes() };
    (from..from + count).map(message).collect()
}

/// Their records, in order.
pub(crate) fn records(messages: &[Message]) -> Vec<Record<'_>> {
    messages.iter().map(Message::record).collect()
}

/// A journal's name that is the same in every test that names it by the same number.
pub(crate) fn journal(number: u128) -> JournalId {
    JournalId::parse(&format!("{number:032x}")).expect("32 digits")
}

/// What a handler is started with, at a mark.
pub(crate) fn start(journal: JournalId, instance: u64, mark: &LaneMark) -> LaneStart<'_> {
    LaneStart {
        journal: Some(journal),
        instance: Some(Instance { number: instance, nonce: 0x5eed }),
        sink: SinkId(0x51),
        lane: Lane(0),
        marks: std::slice::from_ref(mark),
        durable_end: Offset(u64::MAX),
        left: &[],
    }
}

/// A sink with batches of a thousand records, and no bound of what it holds.
pub(crate) fn config(name: &str, target: SinkTarget, timeout: Duration) -> SinkConfig {
    SinkConfig {
        name: name.into(),
        target,
        channels: Vec::new(),
        start: SinkStart::Oldest,
        timeout,
        batch: BatchConfig { records_max: 1000, bytes_max: 1 << 20, delay_max: Duration::ZERO },
        attempts_max: 0,
        backlog: BacklogConfig::default(),
    }
}

/// The handler of a start of journal 0xa, which goes on from a state and whose journal ends at `end`.
pub(crate) fn handler(config: &SinkConfig, instance: u64, state: &[u8], end: u64) -> Box<dyn Handler> {
    handler_of(SinkId(0x51), config, instance, state, end)
}

/// The same of a sink that the journal knows by this id.
pub(crate) fn handler_of(sink: SinkId, config: &SinkConfig, instance: u64, state: &[u8], end: u64) -> Box<dyn Handler> {
    let mark = LaneMark { watermark: Offset(0), sink_state: state.to_vec() };
    let mut start = start(journal(0xa), instance, &mark);
    (start.sink, start.durable_end) = (sink, Offset(end));
    sink::handler(config, &start).expect("it connects to nothing yet")
}

/// What one call says: how many records are done, and why it went no further.
pub(crate) fn once(handler: &mut dyn Handler, records: &[Record<'_>]) -> (usize, Option<String>) {
    let mut outcomes = Outcomes::new(records.len());
    handler.process(records, &mut outcomes);
    let done = (0..records.len()).filter(|&i| *outcomes.outcome(i) == Outcome::Done).count();
    (done, outcomes.unavailable_reason().map(str::to_owned))
}

/// Why the handler takes none of these records.
///
/// # Panics
/// It takes one.
pub(crate) fn reason(handler: &mut dyn Handler, records: &[Record<'_>]) -> String {
    let (done, reason) = once(handler, records);
    assert_eq!(done, 0, "{reason:?}");
    reason.expect("it is not available")
}

/// Presents 5,000 records on a network that loses answers, cuts the connection in the middle of batches, each time `later` by so
/// many bytes, and freezes. What fails fails within one timeout, and says so.
pub(crate) fn drive_through_a_bad_network(
    handler: &mut dyn Handler,
    proxy: &Proxy,
    records: &[Record<'_>],
    later: u64,
    patience: Duration,
) {
    drive(handler, &records[..100], 100, patience);
    proxy.lose_replies(true);
    let before = Instant::now();
    let said = reason(handler, &records[100..1100]);
    assert!(said.contains("did not answer in time"), "{said}");
    assert!(before.elapsed() < Duration::from_secs(5), "one timeout, not one for each answer");
    proxy.lose_replies(false);
    drive(handler, &records[100..1100], 1000, patience);
    for (i, batch) in records[1100..4100].chunks(1000).enumerate() {
        proxy.cut_after(50_000 + later * i as u64);
        drive(handler, batch, 1000, patience);
    }
    proxy.freeze(true);
    let said = reason(handler, &records[4100..]);
    assert!(said.contains("did not answer in time"), "{said}");
    proxy.freeze(false);
    drive(handler, &records[4100..], 1000, patience);
}

/// What became of records: which were given up and why.
pub(crate) type DeadLetters = Vec<((u64, u16), String)>;

/// Presents the records in calls of at most `batch` until each is done or given up, and flushes. A record that is to be
/// retried comes again, three times at most.
///
/// # Panics
/// It takes longer than `patience`: the reason that the handler gave last is in the message.
pub(crate) fn drive(
    handler: &mut dyn Handler,
    records: &[Record<'_>],
    batch: usize,
    patience: Duration,
) -> DeadLetters {
    let deadline = Instant::now() + patience;
    let mut dead = DeadLetters::new();
    for batch in records.chunks(batch) {
        let mut open: Vec<(Record<'_>, u32)> = batch.iter().map(|record| (*record, 0)).collect();
        while !open.is_empty() {
            let shown: Vec<Record<'_>> = open.iter().map(|(record, _)| *record).collect();
            let mut outcomes = Outcomes::new(shown.len());
            handler.process(&shown, &mut outcomes);
            let mut said = outcomes.unavailable_reason().map(str::to_owned);
            let mut left = Vec::new();
            for (i, (record, attempts)) in open.into_iter().enumerate() {
                let name = (record.offset.0, record.index);
                match outcomes.outcome(i) {
                    Outcome::Done => {}
                    Outcome::Unanswered => left.push((record, attempts)),
                    Outcome::GiveUp(reason) => dead.push((name, reason.clone())),
                    Outcome::Retry(reason) if attempts + 1 == 3 => dead.push((name, reason.clone())),
                    Outcome::Retry(reason) => {
                        said = Some(reason.clone());
                        left.push((record, attempts + 1));
                    }
                }
            }
            open = left;
            if let Some(reason) = said {
                assert!(Instant::now() < deadline, "{} records are open: {reason}", open.len());
                thread::sleep(Duration::from_millis(20));
            }
            assert!(Instant::now() < deadline, "{} records are open", open.len());
        }
    }
    while let Err(error) = handler.flush() {
        assert!(Instant::now() < deadline, "flushing: {error}");
        thread::sleep(Duration::from_millis(20));
    }
    dead
}
