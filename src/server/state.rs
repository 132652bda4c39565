//! What the admin interface sees of the server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crossbeam_channel::TryRecvError;
use prometheus_client::registry::Registry;

use crate::admin::{
    AdminState, AsksAnswer, KeysStatus, LaneStatus, Offsets, Phase, Retried, RetryAnswer, SinkAnswer, SinkChange,
    SinkRefused, SinkState, SinkView, Status,
};
use crate::commit::{AskControl, StatusReader};
use crate::journal::{DeadLetter, DeadLetters, ReadJournal};
use crate::keys::KeyRing;
use crate::model::{AskTotals, AsksRequest, Lane, Offset, SinkId};
use crate::process::{Cursors, LaneControl, NotAsked, RetryError, SinkControl, SinkControlError, SinkStatus};
use crate::server::Error;
use crate::server::waiting::Waiting;

/// The handles on the running parts, from which everything that is asked is read.
pub(super) struct ServerState {
    phase: Mutex<(Phase, Option<String>)>,
    started: Instant,
    udp: Vec<SocketAddr>,
    registry: Registry,
    ingest: StatusReader,
    asks: AskControl,
    cursors: Arc<Cursors>,
    reader: Arc<dyn ReadJournal>,
    dead: Arc<dyn DeadLetters>,
    lanes: LaneControl,
    /// What operators ask of the configured sinks.
    pub(super) sinks: SinkControl,
    keys: KeyRing,
    waiting: Arc<Waiting>,
}

impl ServerState {
    #[allow(clippy::too_many_arguments)] // each a handle on another part
    pub(super) fn new(
        udp: Vec<SocketAddr>,
        started: Instant,
        registry: Registry,
        ingest: StatusReader,
        asks: AskControl,
        cursors: Arc<Cursors>,
        reader: Arc<dyn ReadJournal>,
        dead: Arc<dyn DeadLetters>,
        lanes: LaneControl,
        sinks: SinkControl,
        keys: KeyRing,
        waiting: Arc<Waiting>,
    ) -> Self {
        let phase = Mutex::new((Phase::Running, None));
        Self { phase, started, udp, registry, ingest, asks, cursors, reader, dead, lanes, sinks, keys, waiting }
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner).0 = phase;
    }

    pub(super) fn fail(&self, error: &Error) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = (Phase::Failed, Some(error.to_string()));
    }

    /// A sink as operators see it.
    fn view(&self, sink: SinkStatus) -> SinkView {
        let SinkStatus { record, configured, held_bytes, backlog, blocks, is_up, since_unix_s, .. } = sink;
        let state = match (configured, record.paused, record.holds, is_up) {
            (false, ..) => SinkState::NotConfigured,
            (true, true, ..) => SinkState::Paused,
            (true, false, false, _) => SinkState::Detached,
            (true, false, true, false) => SinkState::Down,
            (true, false, true, true) => SinkState::Up,
        };
        let waits_for = || {
            let told = self.waiting.of_sink(&record.name);
            told.unwrap_or_else(|| "there is no room for its dead letters (dead_letters_max, reserve_bytes)".to_owned())
        };
        let reason = (configured && !is_up).then(waits_for);
        SinkView { state, since_unix_s, reason, held_bytes, backlog, blocks, record }
    }

    fn phase(&self) -> Phase {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}

impl AdminState for ServerState {
    fn failure(&self) -> Option<String> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        match self.phase() {
            Phase::Running => {}
            Phase::Recovering => reasons.push("recovering".to_owned()),
            Phase::Draining => reasons.push("draining".to_owned()),
            Phase::Failed => reasons.push("failed".to_owned()),
        }
        if self.ingest.read().storage_short {
            reasons.push("free space is below reserve_bytes".to_owned());
        }
        let blocking = self.sinks.list().into_iter().filter(|sink| sink.blocks);
        reasons
            .extend(blocking.map(|sink| format!("sink {} holds as much of the journal as it may", sink.record.name)));
        reasons
    }

    fn waiting(&self) -> Vec<String> {
        let mut reasons = self.waiting.reasons(|name| self.cursors.named(name).is_some());
        reasons.extend(self.sinks.list().iter().filter_map(at_rest));
        reasons.extend(near_their_bound(self.ingest.read().asks));
        reasons
    }

    fn status(&self) -> Status {
        let ingest = self.ingest.read();
        let end = self.cursors.durable_end();
        let of_all = self
            .cursors
            .groups()
            .iter()
            .flat_map(|group| (0..group.lanes()).map(move |lane| group.watermark(Lane(lane))));
        let lane =
            |(lane, watermark): (u16, Offset)| LaneStatus { lane, watermark: watermark.0, lag: end.since(watermark) };
        Status {
            phase: self.phase(),
            uptime_s: self.started.elapsed().as_secs(),
            udp: self.udp.clone(),
            sessions: ingest.sessions as u64,
            asks: ingest.asks.into(),
            offsets: Offsets { low: self.cursors.lowest_watermark().0, checkpoint: ingest.checkpoint.0, end: end.0 },
            lanes: (0..).zip(of_all).map(lane).collect(),
            backlog_bytes: ingest.backlog_bytes,
            free_bytes: ingest.free_bytes,
            dead_letters: self.dead.count(),
            keys: KeysStatus::of(&self.keys),
        }
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn journal(&self) -> &dyn ReadJournal {
        &*self.reader
    }

    fn end(&self) -> Offset {
        self.cursors.durable_end()
    }

    fn dead_letters(&self) -> &dyn DeadLetters {
        &*self.dead
    }

    fn sinks(&self) -> Vec<SinkView> {
        self.sinks.list().into_iter().map(|sink| self.view(sink)).collect()
    }

    fn change_sink(&self, name: &str, change: SinkChange) -> Result<SinkAnswer, SinkRefused> {
        let asked = match change {
            SinkChange::Pause => self.sinks.pause(name),
            SinkChange::Resume => self.sinks.resume(name),
            SinkChange::Seek(to) => self.sinks.seek(name, to),
            SinkChange::Remove => self.sinks.remove(name),
        };
        let answer = asked.map_err(|error| match error {
            SinkControlError::Unknown { .. } => SinkRefused::Unknown(error.to_string()),
            SinkControlError::NotConfigured(_) => SinkRefused::NotConfigured(error.to_string()),
            SinkControlError::NotAsked(_) => SinkRefused::Busy(error.to_string()),
        })?;
        Ok(Box::new(move || match answer.try_recv() {
            Ok(()) => Some(Ok(())),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(Err("the server stops: `duragram sink list` shows after the next start what was done".to_owned()))
            }
        }))
    }

    fn ask_about_asks(&self, request: AsksRequest) -> Result<AsksAnswer, String> {
        let answer = self.asks.ask(request).map_err(|error| error.to_string())?;
        Ok(Box::new(move || match answer.try_recv() {
            Ok(report) => Some(Ok(report)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(Err("the server stops: `duragram ask-status` shows after the next start what was done".to_owned()))
            }
        }))
    }

    fn sink_has_stopped(&self, sink: SinkId) -> bool {
        self.sinks.has_stopped(sink)
    }

    fn retry_dead(&self, letter: &DeadLetter) -> RetryAnswer {
        match self.lanes.retry_dead(letter) {
            Ok(answer) => Box::new(move || match answer.try_recv() {
                Ok(Ok(())) => Some(Retried::Done),
                Ok(Err(RetryError::Gone)) => Some(Retried::Gone),
                Ok(Err(RetryError::Failed(reason))) => Some(Retried::Failed(reason)),
                Ok(Err(busy @ RetryError::Busy(_))) => Some(Retried::Unanswered(busy.to_string())),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => {
                    Some(Retried::Unanswered("its lane has ended: the server stops".into()))
                }
            }),
            Err(busy @ NotAsked::Busy(_)) => Box::new(move || Some(Retried::Unanswered(busy.to_string()))),
            Err(never @ (NotAsked::NoSuchSink(_) | NotAsked::OfAllSinks)) => {
                Box::new(move || Some(Retried::Impossible(never.to_string())))
            }
        }
    }
}

/// Asks that come near to as many as there may be: what asks is then refused, though nothing else is.
fn near_their_bound(asks: AskTotals) -> Option<String> {
    let AskTotals { open, answered, plain, asks_max, plain_max, .. } = asks;
    let (count, max) = match (asks.are_near(), asks.plain_are_near()) {
        (true, _) => (format!("{}", open + answered), format!("{asks_max} (asks_max)")),
        (false, true) => (format!("{plain} plain"), format!("{plain_max} that may be plain (half of asks_max)")),
        (false, false) => return None,
    };
    Some(format!(
        "asks: {count} of {max} are remembered, {open} of all of them not processed; what would be one more is refused; \
         `duragram ask-status` shows whose they are"
    ))
}

/// Why a sink does nothing although its target may be there.
fn at_rest(sink: &SinkStatus) -> Option<String> {
    let SinkStatus { record, configured, is_near, .. } = sink;
    let (name, at) = (&record.name, record.mark.watermark);
    match (configured, record.paused) {
        (false, _) if !record.holds => Some(format!(
            "sink {name}: not configured any more, and detached at entry {at}; what is trimmed before it is configured again is \
             lost to it; `duragram sink remove {name}` forgets it"
        )),
        (false, _) => Some(format!(
            "sink {name}: not configured any more; it holds entry {at} and all after it until it is configured again or \
             `duragram sink remove {name}` forgets it"
        )),
        (true, true) => Some(format!("sink {name}: paused at entry {at} until `duragram sink resume {name}`")),
        (true, false) if !record.holds => {
            Some(format!("sink {name}: detached at entry {at}; what is trimmed before it comes back is lost to it"))
        }
        (true, false) if *is_near => {
            Some(format!("sink {name}: it will soon hold as much of the journal as it may (backlog.bytes_max)"))
        }
        (true, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_are_reported_from_nine_tenths_of_their_bound_on_and_plain_ones_from_those_of_theirs() {
        let totals = AskTotals { open: 3, answered: 5, plain: 4, asks_max: 10, plain_max: 5, held_takes: 0 };
        assert_eq!(near_their_bound(totals), None);
        let told = near_their_bound(AskTotals { answered: 6, ..totals }).unwrap();
        assert!(told.starts_with("asks: 9 of 10 (asks_max) are remembered, 3 "), "{told}");
        let told = near_their_bound(AskTotals { plain: 5, ..totals }).unwrap();
        assert!(told.starts_with("asks: 5 plain of 5 that may be plain"), "{told}");
        assert_eq!(near_their_bound(AskTotals::default()), None, "nobody may ask");
    }
}
