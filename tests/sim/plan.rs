//! What a seed makes of a run: each draws its own mix of clients, faults and limits.

use duragram::commit::CommitterConfig;
use duragram::dialect::duragram::{AskConfig, DuragramConfig};

use crate::asks::AsksPlan;
use crate::rng::Rng;
use crate::sealed::Mode;
use crate::sinks::SinksPlan;

/// One way of the path between clients and server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Path {
    pub(crate) delay_us: u64,
    /// Up to this much more, at random: reorders.
    pub(crate) jitter_us: u64,
    /// How many of a million datagrams are lost.
    pub(crate) loss: u64,
    pub(crate) duplicate: u64,
    /// How many are delayed by seconds.
    pub(crate) straggle: u64,
    pub(crate) truncate: u64,
    pub(crate) flip: u64,
}

impl Path {
    pub(crate) const CLEAN: Self =
        Self { delay_us: 1_000, jitter_us: 0, loss: 0, duplicate: 0, straggle: 0, truncate: 0, flip: 0 };
}

/// What the disk does wrong, of a million writes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DiskFaults {
    pub(crate) killed: u64,
    pub(crate) killed_synced: u64,
    pub(crate) power_fails: u64,
    pub(crate) sync_fails: u64,
    pub(crate) write_fails: u64,
    /// The first failure is followed by nothing else, until the faults end.
    pub(crate) stays_broken: bool,
    pub(crate) slow: u64,
    /// At a start: something at rest is damaged.
    pub(crate) damage: u64,
    /// At a start: what recovery writes is interrupted.
    pub(crate) recovery_dies: u64,
}

/// What the handlers do, of a million records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct HandlerFaults {
    pub(crate) retry: u64,
    pub(crate) give_up: u64,
    pub(crate) silent: u64,
    /// The handler panics over it.
    pub(crate) panics: u64,
    /// In how many of a million calls the sink is away.
    pub(crate) unavailable: u64,
    /// How many of a million flushes fail.
    pub(crate) flush_fails: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EpochKind {
    /// A counter in memory that survives.
    Counter,
    /// The Unix time of a right clock.
    Unix,
    Hello,
}

#[derive(Clone, Debug)]
pub(crate) struct ClientPlan {
    pub(crate) epochs: EpochKind,
    pub(crate) slots: usize,
    pub(crate) buffer: usize,
    pub(crate) messages: u64,
    pub(crate) payload_min: u64,
    pub(crate) payload_max: u64,
    pub(crate) datagram_max: usize,
    pub(crate) batches: bool,
    /// Microseconds between messages, and between bursts of them.
    pub(crate) gap_us: u64,
    pub(crate) burst: u64,
    pub(crate) pause_us: u64,
    pub(crate) rto_max_us: u64,
    /// How often, in a million messages, the oldest is given up.
    pub(crate) abandon: u64,
    /// How many of a million messages go to a channel that is refused.
    pub(crate) refused_channel: u64,
}

/// Mean microseconds between things that happen; 0 for never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Means {
    pub(crate) crash: u64,
    pub(crate) client_restart: u64,
    pub(crate) address_change: u64,
    pub(crate) clock_jump: u64,
    pub(crate) outage: u64,
    pub(crate) short_space: u64,
    pub(crate) rude: u64,
    pub(crate) stop: u64,
    pub(crate) overload: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) committer: CommitterConfig,
    pub(crate) dialect: DuragramConfig,
    pub(crate) mode: Mode,
    pub(crate) lanes: u16,
    /// The configured sinks, in the place of lanes.
    pub(crate) sinks: Option<SinksPlan>,
    /// How some clients ask; `None` where nobody does.
    pub(crate) asks: Option<AsksPlan>,
    pub(crate) lanes_change: bool,
    pub(crate) datagram_max: usize,
    pub(crate) refuse_channels: bool,
    /// The server's clock of day may be wrong by more than the time for which sessions are kept. Then it may give out an
    /// epoch twice.
    pub(crate) clock_wild: bool,
    /// So many commits may be in flight while the next block is built; 0: each lands where it is appended.
    pub(crate) under_way_max: usize,
    pub(crate) receive_max: u64,
    pub(crate) socket_datagrams: usize,
    pub(crate) tick_us: u64,
    pub(crate) keep_us: u64,
    pub(crate) sync_us: u64,
    pub(crate) slow_sync_us: u64,
    pub(crate) lane_us: u64,
    pub(crate) downtime_us: u64,
    pub(crate) clients: Vec<ClientPlan>,
    pub(crate) to_server: Path,
    pub(crate) to_client: Path,
    pub(crate) disk: DiskFaults,
    pub(crate) handlers: HandlerFaults,
    pub(crate) means: Means,
    /// How long there are faults, in microseconds.
    pub(crate) faults_us: u64,
}

const MS: u64 = 1_000;
const S: u64 = 1_000_000;

impl Plan {
    /// What has been added since draws nothing: older seeds keep what they made of a run.
    pub(crate) fn of(rng: &mut Rng, seed: u64) -> Self {
        let mode = Mode::of(seed);
        let mut plan = Self::drawn(rng, mode);
        match seed % 16 {
            4 | 9 => plan.handlers.panics = 50_000,
            6 | 11 => {
                plan.disk.sync_fails = plan.disk.sync_fails.max(5_000);
                plan.disk.stays_broken = true;
            }
            // Windows far wider than what an ack can tell of.
            13 => {
                plan.dialect.window = plan.dialect.window.max(512);
                for client in &mut plan.clients {
                    (client.slots, client.buffer, client.payload_max) = (512, 512 * 12, 12);
                    (client.messages, client.burst, client.gap_us) = (600, 300, 10);
                }
            }
            _ => {}
        }
        if SinksPlan::has(seed) {
            plan.sinks = Some(SinksPlan::of(seed, &mut plan));
        }
        if AsksPlan::has(seed) {
            plan.asks = Some(AsksPlan::of(seed, &mut plan));
        }
        plan
    }

    fn drawn(rng: &mut Rng, mode: Mode) -> Self {
        let faults_us = rng.magnitude(2 * S, 256 * S);
        let busy = rng.one_in(3);
        let clock_wild = rng.one_in(4);
        let clients = (0..rng.within(1, 5)).map(|_| ClientPlan::of(rng, busy, clock_wild)).collect();
        let on = |rng: &mut Rng, mean: u64| if rng.one_in(2) { rng.magnitude(mean / 8, mean * 2) } else { 0 };
        let often = |rng: &mut Rng, most: u64| if rng.one_in(2) { rng.below(most) } else { 0 };
        let crashes = rng.one_in(2);
        let disk_fails = rng.one_in(3);
        let window = u16::try_from(rng.magnitude(2, 1024)).expect("small");
        Self {
            committer: CommitterConfig {
                commit_bytes_max: usize::try_from(rng.magnitude(300, 16 << 10)).expect("small"),
                checkpoint_bytes: rng.magnitude(256, 64 << 10),
                checkpoint_interval_us: rng.magnitude(20 * MS, 10 * S),
                retain_bytes: if rng.one_in(2) { 0 } else { rng.below(2 << 20) },
                reserve_bytes: 1_000,
            },
            dialect: DuragramConfig {
                window,
                session_ttl_s: rng.magnitude(40, 4_000),
                sealed: mode.has_keys(),
                asks: AskConfig::default(),
                sessions_max: usize::try_from(rng.magnitude(4, 256)).expect("small"),
            },
            mode,
            sinks: None,
            asks: None,
            lanes: u16::try_from(rng.within(1, 4)).expect("small"),
            lanes_change: rng.one_in(4),
            datagram_max: usize::try_from(rng.within(300, 1472)).expect("small"),
            refuse_channels: rng.one_in(4),
            clock_wild,
            under_way_max: rng.index(4),
            receive_max: rng.magnitude(1, 64),
            socket_datagrams: usize::try_from(rng.magnitude(4, 256)).expect("small"),
            tick_us: rng.magnitude(50 * MS, 800 * MS),
            keep_us: rng.magnitude(250 * MS, 4 * S),
            sync_us: rng.magnitude(50, 20 * MS),
            slow_sync_us: rng.magnitude(100 * MS, 6 * S),
            lane_us: if rng.one_in(3) { rng.magnitude(MS, 2 * S) } else { rng.magnitude(10, MS) },
            downtime_us: rng.magnitude(MS, 30 * S),
            clients,
            to_server: Path::of(rng),
            to_client: Path::of(rng),
            disk: DiskFaults {
                killed: if crashes { rng.below(20_000) } else { 0 },
                killed_synced: if crashes { rng.below(20_000) } else { 0 },
                power_fails: if crashes { rng.below(20_000) } else { 0 },
                sync_fails: if disk_fails { rng.below(10_000) } else { 0 },
                write_fails: if disk_fails { rng.below(10_000) } else { 0 },
                stays_broken: false,
                slow: often(rng, 20_000),
                damage: often(rng, 500_000),
                recovery_dies: if crashes { rng.below(300_000) } else { 0 },
            },
            handlers: HandlerFaults {
                retry: often(rng, 100_000),
                give_up: often(rng, 30_000),
                silent: often(rng, 50_000),
                panics: 0,
                unavailable: often(rng, 100_000),
                flush_fails: often(rng, 200_000),
            },
            means: Means {
                crash: if crashes { rng.magnitude(S / 2, 60 * S) } else { 0 },
                client_restart: on(rng, 20 * S),
                address_change: on(rng, 20 * S),
                clock_jump: on(rng, 20 * S),
                outage: on(rng, 30 * S),
                short_space: on(rng, 30 * S),
                rude: on(rng, 500 * MS),
                stop: on(rng, 60 * S),
                overload: on(rng, 60 * S),
            },
            faults_us,
        }
    }
}

impl Path {
    fn of(rng: &mut Rng) -> Self {
        let often = |rng: &mut Rng, most: u64| if rng.one_in(2) { rng.below(most) } else { 0 };
        let delay_us = rng.magnitude(50, 300 * MS);
        Self {
            delay_us,
            jitter_us: often(rng, 4 * delay_us),
            loss: often(rng, 400_000),
            duplicate: often(rng, 200_000),
            straggle: often(rng, 20_000),
            truncate: often(rng, 30_000),
            flip: often(rng, 50_000),
        }
    }
}

impl ClientPlan {
    fn of(rng: &mut Rng, busy: bool, clock_wild: bool) -> Self {
        let kinds = if clock_wild { 2 } else { 3 };
        let slots = usize::try_from(rng.magnitude(1, 64)).expect("small");
        let payload_max = rng.magnitude(8, 512);
        Self {
            epochs: [EpochKind::Counter, EpochKind::Unix, EpochKind::Hello][rng.index(kinds)],
            slots,
            buffer: slots * usize::try_from(payload_max).expect("small"),
            messages: if busy { rng.magnitude(50, 400) } else { rng.magnitude(1, 100) },
            payload_min: 0,
            payload_max,
            datagram_max: 600,
            batches: rng.one_in(3),
            gap_us: rng.magnitude(100, 500 * MS),
            burst: rng.magnitude(1, 64),
            pause_us: rng.magnitude(10 * MS, 200 * S),
            rto_max_us: rng.magnitude(2 * S, 60 * S),
            abandon: if rng.one_in(3) { rng.below(200_000) } else { 0 },
            refused_channel: if rng.one_in(3) { rng.below(100_000) } else { 0 },
        }
    }
}
