//! A start with configured sinks, as the server makes it.

use std::sync::Arc;

use duragram::journal::Opened;
use duragram::journal::testing::simulated::SimulatedJournal;
use duragram::metrics::Metrics;
use duragram::model::{ChannelSet, SinkConfig, SinkId};
use duragram::process::{Answering, Cursor, HandlerFactory, LaneConfig, LaneParts, Lanes, Progress, RetryPolicy};
use duragram::server::{KnownSinks, PlannedSink, SinkRefusal, plan_sinks};

use super::target::Target;
use super::{Seen, SinksPlan};
use crate::asks::AsksPlan;
use crate::core::Shared;
use crate::rng::Rng;

/// The lanes of the sinks that are configured at this start, and the numbers of these; `None` when one cannot be opened, or is
/// configured to be another.
pub(crate) fn lanes(
    core: &Shared,
    (plan, asks): (&SinksPlan, Option<&AsksPlan>),
    opened: &Opened<SimulatedJournal>,
    retry: RetryPolicy,
    metrics: &Metrics,
    rng: &mut Rng,
) -> Option<(Lanes, Vec<usize>)> {
    let numbers = configured(core, plan, rng);
    let mut configs: Vec<SinkConfig> = numbers.iter().map(|&n| plan.sinks[n].config.clone()).collect();
    let instance = opened.reader.instance().map_or(0, |instance| instance.number);
    let known = KnownSinks {
        sinks: &opened.sinks,
        lanes: &opened.lanes,
        former: &opened.former,
        low: opened.low,
        end: opened.end,
        instance,
    };
    let calm = core.lock().calm;
    if !calm && plan.changes > 0 && rng.one_in(6) {
        // Somebody has put something else under an old name.
        let n = rng.index(configs.len());
        if rng.one_in(2) {
            configs[n].channels.push(40..=50)
        } else {
            configs[n].target = duragram::model::SinkTarget::Null
        };
        if opened.sinks.iter().any(|record| record.name == configs[n].name) {
            let core = &mut *core.lock();
            match plan_sinks(&configs, known) {
                Err(SinkRefusal::Changed { .. }) => core.oracle.saw(Seen::Changed),
                other => core.oracle.fail(|| format!("a sink has become another, and the start goes on: {other:?}")),
            }
            return None;
        }
        configs = numbers.iter().map(|&n| plan.sinks[n].config.clone()).collect();
    }
    let (mut planned, gone) = match plan_sinks(&configs, known) {
        Ok(planned) => planned,
        Err(refusal) => {
            core.lock().oracle.fail(|| format!("the sinks are as they were, and are refused: {refusal}"));
            return None;
        }
    };
    for PlannedSink { record, .. } in &mut planned {
        if !opened.sinks.iter().any(|known| known.id == record.id) {
            // Of the same seed the same.
            record.id = SinkId(u128::from(rng.next()) << 64 | u128::from(rng.next()));
        }
    }
    {
        let core = &mut *core.lock();
        let began = planned.iter().map(|planned| &planned.record).zip(numbers.iter().map(|&n| &plan.sinks[n]));
        core.oracle.sinks_start(began);
        if gone.iter().any(|record| record.mark.watermark < opened.end) {
            core.oracle.saw(Seen::KeptPlace);
        }
    }
    let mailbox = Progress::new_mailbox();
    let mut parts = Vec::new();
    for (&n, PlannedSink { record, renumbered }) in numbers.iter().zip(planned) {
        let sink = plan.sinks[n].clone();
        let channels = &sink.config.channels;
        let channels = (!channels.is_empty()).then(|| ChannelSet::of(channels.iter().cloned().flatten()));
        let cursor = Cursor::new(&record, channels, sink.config.backlog, instance, metrics);
        let part = LaneParts {
            progress: Progress::resume_sink(opened.end, renumbered, cursor, &mailbox, metrics),
            journal: Arc::clone(&opened.reader),
            dead: Arc::clone(&opened.dead),
            metrics: metrics.clone(),
            config: LaneConfig {
                retry,
                batch_records_max: sink.config.batch.records_max,
                batch_bytes_max: sink.config.batch.bytes_max,
                batch_delay: sink.config.batch.delay_max,
                flush_records_max: usize::try_from(rng.within(1, 256)).expect("few"),
                answering: asks.map_or(Answering::Nothing, |asks| asks.answering(Some(n))),
                answer_bytes_max: asks.map_or(0, |asks| asks.answer_bytes_max),
                ..LaneConfig::default()
            },
            seed: rng.next(),
        };
        let for_target = core.clone();
        let make: HandlerFactory = Box::new(move |start| Ok(Box::new(Target::open(&for_target, &sink, start)?)));
        parts.push((part, make));
    }
    Some((Lanes::build_sinks(parts, gone).ok()?, numbers))
}

/// Which sinks stand in the configuration now: between two starts one may be added, or taken away.
fn configured(core: &Shared, plan: &SinksPlan, rng: &mut Rng) -> Vec<usize> {
    let core = &mut *core.lock();
    let without = &mut core.oracle.truth.without;
    if plan.changes > 0 && !core.calm && rng.one_in(plan.changes) {
        let n = rng.index(plan.sinks.len());
        if !without.remove(&n) && without.len() + 1 < plan.sinks.len() && plan.stays != Some(n) {
            without.insert(n);
        }
    }
    (0..plan.sinks.len()).filter(|n| !without.contains(n)).collect()
}
