//! One life of the server's process: its real parts, stepped by the simulation.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use duragram::commit::{Committer, Recovery};
use duragram::dialect::Arrivals;
use duragram::dialect::duragram::{Admission, AdmissionConfig, Duragram};
use duragram::journal::testing::simulated::{self, Housekeeping, SimulatedDisk, SimulatedHand, SimulatedJournal};
use duragram::journal::{JournalError, OpenError, Opened, Replay, StorageError};
use duragram::metrics::Metrics;
use duragram::model::{AskRecord, ChannelSet, Clock as _, Lane, Peer, SinkId};
use duragram::net::Slab;
use duragram::process::{
    Answering, Cursor, Cursors, HandlerFactory, LaneConfig, LaneControl, LaneParts, LaneStep, LaneWorker, Lanes,
    Progress, RetryPolicy, SinkControl,
};
use prometheus_client::registry::Registry;

use crate::client::CHANNELS;
use crate::core::{ProcessClock, Sabotage, Shared, Sink, Wire};
use crate::oracle::Found;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::sealed;
use crate::sinks::{self, Commands, Watched};

const NEVER: u64 = u64::MAX;

pub(crate) struct Life {
    core: Shared,
    clock: ProcessClock,
    rng: Rng,
    committer: Committer<Duragram, SimulatedJournal, Wire, Watched>,
    metrics: Metrics,
    /// Processing has something to say to the committer.
    woken: Arc<AtomicBool>,
    hand: SimulatedHand,
    cursors: Arc<Cursors>,
    /// Of the plan's sinks the number of that of each lane; empty when there are none.
    sinks: Vec<usize>,
    commands: Option<Commands>,
    /// Each until it fails, and when it has something to do next.
    lanes: Vec<(Option<LaneWorker>, u64)>,
    control: LaneControl,
    housekeeping: Housekeeping,
    admission: Admission,
    socket: VecDeque<(SocketAddr, Vec<u8>)>,
    socket_full: bool,
    step_us: u64,
    landing_us: u64,
    keep_us: u64,
    /// A part has failed: so many steps until the process ends.
    failing: Option<u64>,
}

/// What a start came to.
pub(crate) enum Start {
    Up(Box<Life>),
    Refused(OpenError),
    /// The journal opened, and then a sink was away.
    WithoutSink,
    /// The journal opened, and its content makes no server: a violation, noted.
    Broken,
}

impl Life {
    pub(crate) fn start(core: &Shared, plan: &Plan, disk: &SimulatedDisk, mut rng: Rng) -> Start {
        disk.set_time(core.lock().unix_us());
        let sabotage = core.lock().sabotage;
        let metrics = Metrics::register(&mut Registry::default());
        let mut recovery = Recovery::new(Duragram::new(plan.dialect.clone(), metrics.clone()));
        let mut records = Vec::new();
        let opened = disk.open(&mut |replay| {
            let forgotten = match &replay {
                Replay::Session(record) => {
                    records.push(simulated::encoded(record));
                    let forgotten = [Sabotage::ForgottenSessions, Sabotage::ForgottenEpochs];
                    sabotage.is_some_and(|sabotage| forgotten.contains(&sabotage))
                }
                Replay::Client(record) => {
                    records.push(simulated::encoded_client(record));
                    sabotage == Some(Sabotage::ForgottenEpochs)
                }
                Replay::CounterLimit(limit) => {
                    records.push(simulated::encoded_counter_limit(*limit));
                    sabotage == Some(Sabotage::ForgottenLimit)
                }
                Replay::Ask(ask) => {
                    records.push(simulated::encoded_ask(ask));
                    sabotage == Some(Sabotage::ForgottenAsks)
                }
                Replay::Answers(answers) => {
                    records.push(simulated::encoded_answers(answers));
                    sabotage == Some(Sabotage::ForgottenAnswers)
                }
                Replay::Block(_) => sabotage == Some(Sabotage::ForgottenBlocks),
            };
            match replay {
                Replay::Ask(ask) if sabotage == Some(Sabotage::ForgottenAnswers) => {
                    recovery.apply(Replay::Ask(AskRecord { answer: None, ..ask }));
                }
                replay if !forgotten => recovery.apply(replay),
                _ => {}
            }
        });
        let (opened, housekeeping) = match opened {
            Ok(opened) => opened,
            Err(error) => return Start::Refused(error),
        };
        let lanes = if plan.lanes_change { u16::try_from(rng.within(1, 4)).expect("few") } else { plan.lanes };
        let found = find(&opened, records);
        {
            let mut core = core.lock();
            match found {
                Ok(found) => core.oracle.started(&found, usize::from(lanes)),
                Err(error) => core.oracle.fail(|| format!("the journal opens and cannot be read: {error}")),
            }
            if core.oracle.violation.is_some() {
                return Start::Broken;
            }
        }
        let recovered = match recovery.finish(&opened) {
            Ok(recovered) => recovered,
            Err(invalid) => {
                core.lock().oracle.fail(|| format!("what was written cannot be recovered: {invalid}"));
                return Start::Broken;
            }
        };
        let retry = RetryPolicy {
            attempts_max: 4,
            first_delay: std::time::Duration::from_millis(20),
            longest_delay: std::time::Duration::from_secs(2),
        };
        let made = match &plan.sinks {
            Some(sinks) => sinks::lanes(core, (sinks, plan.asks.as_ref()), &opened, retry, &metrics, &mut rng),
            None => embedded(core, plan, &opened, lanes, retry, &metrics, &mut rng).map(|lanes| (lanes, Vec::new())),
        };
        let Some((lanes, sinks)) = made else {
            return match core.lock().oracle.violation {
                Some(_) => Start::Broken,
                None => Start::WithoutSink,
            };
        };
        let commands = plan.sinks.is_some().then(|| Commands::new(SinkControl::new(&lanes)));
        let Lanes { workers, fanout, control, cursors } = lanes;
        let now_us = core.lock().now_us;
        let hand = opened.journal.hand();
        if plan.under_way_max > 0 {
            hand.hold(plan.under_way_max);
        }
        let fanout = Watched::new(fanout, core, workers.len());
        let mut committer = Committer::new(
            plan.committer.clone(),
            recovered,
            opened.journal,
            Wire(core.clone()),
            fanout,
            metrics.clone(),
        );
        let woken = Arc::new(AtomicBool::new(false));
        let wakes = Arc::clone(&woken);
        committer.wake_by(move || wakes.store(true, Ordering::Relaxed));
        let channels = plan.refuse_channels.then(|| ChannelSet::of(CHANNELS));
        let clock = ProcessClock { core: core.clone(), started_us: now_us };
        if plan.mode.has_keys() && committer.commit(&clock).is_err() {
            return Start::WithoutSink;
        }
        Start::Up(Box::new(Self {
            clock,
            core: core.clone(),
            rng,
            committer,
            metrics,
            woken,
            hand,
            cursors,
            sinks,
            commands,
            lanes: workers.into_iter().map(|worker| (Some(worker), now_us)).collect(),
            control,
            housekeeping,
            admission: Admission::new(AdmissionConfig { channels, ..sealed::admission(plan) }),
            socket: VecDeque::new(),
            socket_full: false,
            step_us: now_us,
            landing_us: NEVER,
            keep_us: now_us + plan.keep_us,
            failing: None,
        }))
    }

    /// A datagram comes to the socket; whether there was room for it.
    pub(crate) fn deliver(&mut self, plan: &Plan, now_us: u64, from: SocketAddr, datagram: Vec<u8>) -> bool {
        if self.socket.len() >= plan.socket_datagrams {
            self.socket_full = true;
            return false;
        }
        self.socket.push_back((from, datagram));
        self.step_us = self.step_us.min(now_us + self.rng.below(100));
        true
    }

    /// When it has something to do next.
    pub(crate) fn due_us(&self) -> u64 {
        let lanes = self.lanes.iter().map(|(_, at)| *at).min().unwrap_or(NEVER);
        self.step_us.min(self.landing_us).min(self.keep_us).min(lanes)
    }

    /// Does one thing that is due. False: the process has to end.
    pub(crate) fn step(&mut self, plan: &Plan, disk: &SimulatedDisk) -> bool {
        let now_us = {
            let core = self.core.lock();
            disk.set_time(core.unix_us());
            core.now_us
        };
        if self.landing_us <= now_us {
            self.landing_us = NEVER;
            // With several under way one may be written while others wait for their sync.
            if plan.under_way_max < 2 || self.rng.one_in(2) || !self.hand.write_ahead() {
                self.hand.run();
                self.step_us = now_us;
            }
        } else if self.step_us <= now_us {
            if let Err(error) = self.ingest(plan, now_us) {
                self.fail(&error);
            }
        } else if self.keep_us <= now_us {
            self.housekeeping.run();
            self.keep_us = now_us + plan.keep_us;
        } else {
            self.process(plan, now_us);
        }
        if self.landing_us == NEVER && self.has_flight() {
            let core = self.core.lock();
            self.landing_us = core.now_us + self.rng.below(2 * core.sync_us);
        }
        self.look_after_sinks();
        if let Some(left) = &mut self.failing {
            if *left == 0 {
                return false;
            }
            *left -= 1;
            if self.core.lock().sabotage == Some(Sabotage::AcksAfterFailure) {
                self.ack_as_before();
            }
        }
        !self.core.lock().dead
    }

    fn fail(&mut self, error: &JournalError) {
        let mut core = self.core.lock();
        core.oracle.failed = true;
        if !core.write_failed && !core.dead {
            core.oracle.fail(|| format!("the server fails, and its disk does not: {error}"));
        }
        core.trace.say(core.now_us, || format!("the server fails: {error}"));
        self.failing.get_or_insert(self.rng.below(4));
    }

    fn ack_as_before(&self) {
        let mut core = self.core.lock();
        if let Some((to, datagram)) = core.replies.last().cloned() {
            core.oracle.replied(to, &datagram);
        }
    }

    /// As `commit::run` does: receive what waits, commit, ack.
    fn ingest(&mut self, plan: &Plan, now_us: u64) -> Result<(), JournalError> {
        let mut arrivals = Arrivals::new(Slab::new(0));
        arrivals.slab.arrived = self.clock.now();
        for _ in 0..self.rng.within(1, plan.receive_max) {
            let Some((addr, datagram)) = self.socket.pop_front() else { break };
            arrivals.slab.push(Peer::new(addr, 0), &datagram);
        }
        arrivals.admit(&mut self.admission);
        self.committer.absorb(&arrivals, &self.clock)?;
        let wait_us = if self.socket.is_empty() { plan.tick_us } else { self.rng.below(200) };
        self.step_us = now_us + wait_us;
        // The process may die, or receive more, before it commits.
        if !arrivals.requests().is_empty() && self.rng.one_in(6) {
            self.step_us = now_us + self.rng.below(1_000);
            return Ok(());
        }
        let full = u64::from(self.socket_full) * 1024;
        let pressure = (self.socket.len() as u64 * 1024 / plan.socket_datagrams as u64).max(full);
        self.committer.set_pressure(u16::try_from(pressure).unwrap_or(1024));
        self.socket_full = false;
        if self.committer.may_launch() || self.committer.has_landed() || self.committer.is_full() {
            if self.rng.one_in(4) {
                self.committer.commit(&self.clock)?;
            } else {
                self.committer.launch(&self.clock)?;
            }
            self.after_commit(plan);
        }
        Ok(())
    }

    /// A commit may be in flight now, and lanes may have got something.
    fn after_commit(&mut self, plan: &Plan) {
        let now_us = self.core.lock().now_us;
        for (_, at) in &mut self.lanes {
            *at = (*at).min(now_us + self.rng.below(plan.lane_us));
        }
        let status = self.committer.status();
        if status.sessions > plan.dialect.sessions_max {
            self.core.lock().oracle.fail(|| format!("{} sessions are in the table", status.sessions));
        }
        let Metrics { asks_open, asks_answered, takes_held, .. } = &self.metrics;
        let (open, asks, held) = (asks_open.get(), asks_open.get() + asks_answered.get(), takes_held.get());
        let asks_max = i64::try_from(plan.dialect.asks.asks_max).expect("few");
        if asks > asks_max || held > open {
            self.core.lock().oracle.fail(|| format!("{asks} asks of {asks_max}, {open} open, and {held} TAKEs held"));
        }
    }

    fn process(&mut self, plan: &Plan, now_us: u64) {
        let mono_us = now_us - self.clock.started_us;
        let Some(nth) = self.lanes.iter().position(|(_, at)| *at <= now_us) else { return };
        let (slot, at) = &mut self.lanes[nth];
        let Some(worker) = slot else {
            *at = NEVER;
            return;
        };
        let wake = |mono_us: u64| (self.clock.started_us + mono_us).max(now_us + 1);
        let group = &self.cursors.groups()[if self.sinks.is_empty() { 0 } else { nth }];
        let stopped = |cursor: &Cursor| cursor.is_paused() || cursor.is_removed() || cursor.loss_waits();
        let step = worker.step(self.clock.now());
        if plan.asks.is_some() && self.woken.swap(false, Ordering::Relaxed) {
            self.step_us = self.step_us.min(now_us + self.rng.below(200));
        }
        let mut lane_us = plan.lane_us;
        if let (Some(cursor), Some(sinks)) = (group.cursor(), &plan.sinks) {
            let mut core = self.core.lock();
            lane_us = sinks.sinks[self.sinks[nth]].lane_us.min(if core.calm { plan.lane_us } else { u64::MAX });
            core.oracle.sink_stepped(cursor.id().0, &step, stopped(cursor), group.lowest_watermark().0);
        }
        match step {
            LaneStep::Worked => *at = now_us + 1 + self.rng.below(lane_us),
            LaneStep::Idle { until_us } => *at = until_us.map_or(NEVER, wake),
            LaneStep::RetryAt(until_us) => *at = wake(until_us.max(mono_us)),
            LaneStep::Finished { .. } => *at = NEVER,
            LaneStep::Failed(error) => {
                (*slot, *at) = (None, NEVER);
                let core = self.core.lock();
                core.trace.say(now_us, || format!("a lane fails: {error}"));
                self.failing.get_or_insert(self.rng.below(4));
            }
        }
    }

    /// Stops in good order: commits, drains the lanes, writes a checkpoint.
    pub(crate) fn stop(&mut self) -> Result<(), JournalError> {
        self.committer.commit(&self.clock)?;
        self.core.lock().oracle.stops();
        let deadline_us = self.clock.now().mono_us + self.rng.below(2_000_000);
        self.control.drain(deadline_us);
        for worker in self.lanes.iter_mut().filter_map(|(worker, _)| worker.as_mut()) {
            loop {
                let now = self.clock.now();
                match worker.step(now) {
                    LaneStep::Finished { .. } => break,
                    LaneStep::Worked => {}
                    LaneStep::Idle { until_us } => {
                        self.clock.pass_until(until_us.unwrap_or(deadline_us).max(now.mono_us + 1))
                    }
                    LaneStep::RetryAt(at) => self.clock.pass_until(at.max(now.mono_us + 1)),
                    LaneStep::Failed(error) => return Err(error.into()),
                }
            }
        }
        self.committer.shut_down(&self.clock)?;
        self.housekeeping.run();
        Ok(())
    }

    /// What was launched runs now, since the process is about to die.
    pub(crate) fn run_flight(&mut self, plan: &Plan) {
        if plan.under_way_max < 2 || self.rng.one_in(2) || !self.hand.write_ahead() {
            self.hand.run();
        }
    }

    pub(crate) fn has_flight(&self) -> bool {
        self.hand.has_work()
    }

    /// Nothing waits, and everything durable is processed, but by sinks whose targets never come back.
    pub(crate) fn is_idle(&self) -> bool {
        let end = self.cursors.durable_end();
        let is_done = |group: &Arc<Progress>| {
            let is_out = group
                .cursor()
                .is_some_and(|cursor| cursor.is_removed() || self.core.lock().oracle.sink_stays_away(cursor.id().0));
            is_out || (0..group.lanes()).all(|lane| group.watermark(Lane(lane)) == end)
        };
        self.failing.is_none()
            && self.socket.is_empty()
            && !self.committer.is_in_flight()
            && self.cursors.groups().iter().all(is_done)
    }

    /// An operator asks something of some sink.
    pub(crate) fn command(&mut self, rng: &mut Rng) {
        if let Some(commands) = &mut self.commands {
            commands.ask(&mut self.core.lock(), rng);
            self.wake_lanes();
        }
    }

    fn wake_lanes(&mut self) {
        let now_us = self.core.lock().now_us;
        self.lanes.iter_mut().for_each(|(_, at)| *at = (*at).min(now_us + 1));
    }

    /// What operators wait for; and when all faults have ended, they let all sinks go on.
    fn look_after_sinks(&mut self) {
        let Some(commands) = &mut self.commands else { return };
        let mut core = self.core.lock();
        commands.look(&mut core);
        let resumed = core.calm && commands.resume_all(&mut core);
        drop(core);
        if resumed {
            self.wake_lanes();
        }
    }

    pub(crate) fn describe(&self) -> String {
        let end = self.cursors.durable_end();
        let marks: Vec<_> = self.cursors.groups().iter().map(|group| group.lowest_watermark().0).collect();
        format!("{} datagrams wait; {:?}; lanes at {marks:?} of {end}", self.socket.len(), self.committer.status())
    }
}

/// The lanes of an embedded handler.
fn embedded(
    core: &Shared,
    plan: &Plan,
    opened: &Opened<SimulatedJournal>,
    lanes: u16,
    retry: RetryPolicy,
    metrics: &Metrics,
    rng: &mut Rng,
) -> Option<Lanes> {
    let parts = LaneParts {
        progress: Progress::resume(opened.end, &opened.lanes, opened.former.clone(), lanes, metrics),
        journal: Arc::clone(&opened.reader),
        dead: Arc::clone(&opened.dead),
        metrics: metrics.clone(),
        config: LaneConfig {
            retry,
            batch_records_max: usize::try_from(rng.within(1, 64)).expect("few"),
            flush_records_max: usize::try_from(rng.within(1, 256)).expect("few"),
            answering: plan.asks.as_ref().map_or(Answering::Nothing, |asks| asks.answering(None)),
            answer_bytes_max: plan.dialect.asks.answer_bytes_max,
            ..LaneConfig::default()
        },
        seed: rng.next(),
    };
    let for_sinks = core.clone();
    let mut sinks: HandlerFactory = Box::new(move |start| Ok(Box::new(Sink::open(&for_sinks, start))));
    Lanes::build(&parts, &mut sinks).ok()
}

/// Everything that the journal holds, for the oracle.
fn find(opened: &Opened<SimulatedJournal>, mut records: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Found, StorageError> {
    let mut blocks = Vec::new();
    let mut at = opened.low;
    while at < opened.end {
        let read = opened.reader.read(at, 1 << 20)?;
        let Some(last) = read.last() else { break };
        at = last.end();
        blocks.extend(read);
    }
    records.sort_unstable();
    let letters = opened.dead.list(duragram::journal::DeadLetterId::FIRST, usize::MAX)?;
    let key = |id: duragram::journal::DeadLetterId| {
        let sink = (id.sink != SinkId::EMBEDDED).then(|| id.sink.0.to_be_bytes());
        [&id.offset.0.to_be_bytes()[..], &id.index.to_be_bytes(), sink.as_ref().map_or(&[], |sink| sink)].concat()
    };
    let dead = letters.iter().map(|letter| key(letter.id)).collect();
    Ok(Found { low: opened.low.0, end: opened.end.0, blocks, records, dead, sinks: opened.sinks.clone() })
}
