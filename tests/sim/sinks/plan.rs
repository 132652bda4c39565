//! Which sinks a seed has, and what is wrong with them.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use duragram::model::{BacklogConfig, BatchConfig, Offset, SinkConfig, SinkStart, SinkTarget, WhenFull};

use crate::plan::{HandlerFaults, Plan};
use crate::rng::Rng;

const MS: u64 = 1_000;
const S: u64 = 1_000_000;
/// What sinks are called, by their number.
pub(crate) const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// When a sink's target does not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    Never,
    /// By turns for about so long, and back for about so long.
    ForAWhile {
        away_us: u64,
        back_us: u64,
    },
    /// The target is away from this time on.
    ForGood {
        from_us: u64,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct SinkPlan {
    pub(crate) config: SinkConfig,
    /// Its target keeps what it is given at once, and knows what it has; else what was not flushed goes with the process.
    pub(crate) exact: bool,
    pub(crate) faults: HandlerFaults,
    pub(crate) trouble: Trouble,
    /// Microseconds between the steps of its lane, at most.
    pub(crate) lane_us: u64,
}

impl SinkPlan {
    /// Nothing is ever wrong with it, and it waits for nothing.
    pub(crate) fn is_sound(&self) -> bool {
        let waits = self.config.batch.delay_max > Duration::ZERO;
        self.trouble == Trouble::Never && self.faults == HandlerFaults::default() && !waits
    }

    /// Its target never comes back, also not when all faults end: one for which new data may be refused does.
    pub(crate) fn stays_away(&self) -> bool {
        let BacklogConfig { bytes_max, when_full } = self.config.backlog;
        matches!(self.trouble, Trouble::ForGood { .. }) && (when_full != WhenFull::Block || bytes_max.is_none())
    }

    /// Whether its target is away.
    pub(crate) fn is_away(&self, now_us: u64, calm: bool) -> bool {
        match self.trouble {
            Trouble::Never => false,
            Trouble::ForAWhile { away_us, back_us } => !calm && now_us % (away_us + back_us) < away_us,
            Trouble::ForGood { from_us } => now_us >= from_us && (!calm || self.stays_away()),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct SinksPlan {
    pub(crate) sinks: Vec<SinkPlan>,
    /// The one that is never taken out of the configuration.
    pub(crate) stays: Option<usize>,
    /// Of so many starts one finds a sink added or gone; 0: none.
    pub(crate) changes: u64,
    /// Mean microseconds between an operator's requests; 0 for none.
    pub(crate) command_us: u64,
}

impl SinksPlan {
    /// Whether a seed has sinks: older seeds keep what they made of a run.
    pub(crate) fn has(seed: u64) -> bool {
        matches!(seed % 8, 2 | 3)
    }

    /// Draws from a source of its own, and fits the rest of the plan: one such seed of four has a journal that is large enough
    /// to be trimmed.
    pub(crate) fn of(seed: u64, plan: &mut Plan) -> Self {
        let mut rng = Rng::new(crate::rng::mix(seed ^ 0x51_4b53));
        let is_large = seed % 16 == 2;
        if is_large {
            large(&mut rng, plan);
        }
        let bound = if is_large { (150 << 10, 1_500 << 10) } else { (4 << 10, 128 << 10) };
        let count = rng.within(1, 4);
        let sinks = NAMES.iter().take(usize::try_from(count).expect("few"));
        let sinks = sinks.map(|name| SinkPlan::of(&mut rng, name, bound, plan.faults_us)).collect();
        let command_us = if rng.one_in(2) { rng.magnitude(500 * MS, 20 * S) } else { 0 };
        Self { sinks, stays: None, changes: if rng.one_in(2) { rng.within(1, 6) } else { 0 }, command_us }
    }
}

/// Some megabytes in a short time: extents, by which the journal is trimmed, have one.
fn large(rng: &mut Rng, plan: &mut Plan) {
    plan.datagram_max = 1_472;
    plan.refuse_channels = false;
    plan.dialect.window = plan.dialect.window.max(512);
    plan.dialect.sessions_max = plan.dialect.sessions_max.max(32);
    plan.committer.retain_bytes = if rng.one_in(2) { 0 } else { rng.below(256 << 10) };
    plan.committer.checkpoint_interval_us = plan.committer.checkpoint_interval_us.min(2 * S);
    plan.committer.commit_bytes_max = plan.committer.commit_bytes_max.max(6_000);
    plan.socket_datagrams = plan.socket_datagrams.max(256);
    plan.receive_max = plan.receive_max.max(32);
    plan.sync_us = plan.sync_us.min(4 * MS);
    for path in [&mut plan.to_server, &mut plan.to_client] {
        (path.delay_us, path.jitter_us) = (path.delay_us.min(20 * MS), path.jitter_us.min(20 * MS));
        (path.loss, path.straggle) = (path.loss.min(50_000), path.straggle.min(2_000));
    }
    let messages = rng.within(1_900, 2_600) / plan.clients.len() as u64;
    for client in &mut plan.clients {
        (client.slots, client.buffer, client.batches) = (512, 512 * 1_400, false);
        (client.payload_min, client.payload_max, client.datagram_max) = (900, 1_380, 1_460);
        (client.messages, client.burst, client.gap_us, client.abandon) = (messages, 200, 2 * MS, 0);
        client.pause_us = client.pause_us.clamp(100 * MS, 2 * S);
    }
}

impl SinkPlan {
    fn of(rng: &mut Rng, name: &str, (smallest, largest): (u64, u64), faults_us: u64) -> Self {
        let often = |rng: &mut Rng, most: u64| if rng.one_in(2) { rng.below(most) } else { 0 };
        let sound = rng.one_in(3);
        let trouble = match rng.below(5) {
            _ if sound => Trouble::Never,
            0 | 1 => {
                Trouble::ForAWhile { away_us: rng.magnitude(S / 2, 40 * S), back_us: rng.magnitude(S / 4, 20 * S) }
            }
            2 => Trouble::ForGood { from_us: rng.below(faults_us / 2) },
            _ => Trouble::Never,
        };
        let faults = HandlerFaults {
            retry: often(rng, 50_000),
            give_up: often(rng, 20_000),
            silent: often(rng, 30_000),
            panics: if rng.one_in(8) { 10_000 } else { 0 },
            unavailable: often(rng, 100_000),
            flush_fails: often(rng, 200_000),
        };
        let channels: Vec<RangeInclusive<u16>> = match rng.below(4) {
            0 => vec![0..=0],
            1 => vec![3..=3, 7..=9],
            _ => Vec::new(),
        };
        let when_full = [WhenFull::Block, WhenFull::DropOldest, WhenFull::Detach][rng.index(3)];
        let bytes_max = (!rng.one_in(4)).then(|| rng.magnitude(smallest, largest));
        let config = SinkConfig {
            name: name.to_owned(),
            target: SinkTarget::File(PathBuf::from(format!("/srv/{name}"))),
            channels,
            start: match rng.below(6) {
                0 => SinkStart::Now,
                1 => SinkStart::At(Offset(rng.below(200))),
                _ => SinkStart::Oldest,
            },
            timeout: Duration::from_secs(30),
            batch: BatchConfig {
                records_max: usize::try_from(rng.magnitude(1, 256)).expect("few"),
                bytes_max: 256 << 10,
                delay_max: if !sound && rng.one_in(3) { Duration::from_millis(rng.below(200)) } else { Duration::ZERO },
            },
            attempts_max: 4,
            backlog: BacklogConfig { bytes_max, when_full },
        };
        Self {
            config,
            exact: rng.one_in(2),
            faults: if sound { HandlerFaults::default() } else { faults },
            trouble,
            lane_us: if !sound && rng.one_in(4) { rng.magnitude(10 * MS, S) } else { rng.magnitude(10, MS) },
        }
    }
}
