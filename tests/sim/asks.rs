//! Asks and answers: a share of the seeds has clients that ask, and handlers that answer.
//!
//! Here is what a seed draws of it, and what must happen over many; `asker` is the client's part, `oracle::asks` judges.

use duragram::dialect::duragram::AskConfig;
use duragram::limits;
use duragram::process::Answering;
use duragram::proto::client;

use crate::plan::Plan;
use crate::rng::{Rng, mix};
use crate::sinks::Trouble;

const MS: u64 = 1_000;
const S: u64 = 1_000_000;
/// Header, trailer, and what a seal adds.
const OVERHEAD: usize = 52;

/// Who says what became of records that asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answerer {
    /// An embedded handler answers, by itself.
    Embedded,
    /// The sink of this number.
    Sink(usize),
    /// All sinks together, which have no bodies to give.
    Receipts,
}

/// How often a client asks, and takes its answers.
#[derive(Clone, Debug)]
pub(crate) struct AskerPlan {
    /// How many of a million messages ask.
    pub(crate) share: u64,
    pub(crate) slots: usize,
    pub(crate) bodies: usize,
    pub(crate) takes: client::AskConfig,
    /// A sleeper wakes after about so long, in microseconds; 0: only when the server says READY, while there are faults.
    pub(crate) wake_us: u64,
    /// It stores what waits over its own crashes.
    pub(crate) stores: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct AsksPlan {
    pub(crate) answerer: Answerer,
    pub(crate) answer_bytes_max: usize,
    /// By client; one that has none here never asks.
    pub(crate) askers: Vec<Option<AskerPlan>>,
    /// Some asks may never be answered, also not when all faults end: a sink that holds them never comes back.
    pub(crate) may_starve: bool,
    /// There is room for few asks: who finds none waits until others are answered, or too old, for as long as that takes.
    pub(crate) is_crowded: bool,
}

impl AsksPlan {
    /// Whether a seed has asks: older seeds keep what they made of a run.
    pub(crate) fn has(seed: u64) -> bool {
        matches!(seed % 13, 2 | 5 | 12)
    }

    /// Draws from a source of its own, and fits the rest of the plan.
    pub(crate) fn of(seed: u64, plan: &mut Plan) -> Self {
        let mut rng = Rng::new(mix(seed ^ 0x41_534b));
        let rng = &mut rng;
        let few = rng.one_in(3);
        let asks_max = if few { rng.magnitude(4, 64) } else { 65_536 };
        // Where there is little room it has to come back before the run ends.
        let ttl_s = if few || rng.one_in(2) { rng.magnitude(5, 160) } else { 86_400 };
        let room = plan.datagram_max - OVERHEAD;
        let answer_bytes_max = [0, 16, 200, limits::LANE_ANSWER_BYTES][rng.index(4)].min(room);
        plan.dialect.asks =
            AskConfig { asks_max: usize::try_from(asks_max).expect("few"), answer_bytes_max, answer_ttl_s: ttl_s };
        let askers = plan.clients.iter().map(|_| (!rng.one_in(4)).then(|| AskerPlan::of(rng))).collect();
        let mut may_starve = false;
        let answerer = match &mut plan.sinks {
            None => Answerer::Embedded,
            Some(sinks) if sinks.sinks.len() == 1 || rng.one_in(2) => {
                let n = rng.index(sinks.sinks.len());
                if sinks.sinks[n].stays_away() {
                    sinks.sinks[n].trouble =
                        Trouble::ForAWhile { away_us: rng.magnitude(S / 2, 40 * S), back_us: rng.magnitude(S, 20 * S) };
                }
                // A configuration without the sink that is to answer is refused.
                sinks.stays = Some(n);
                Answerer::Sink(n)
            }
            Some(sinks) => {
                may_starve = sinks.sinks.iter().any(|sink| sink.stays_away());
                if may_starve {
                    // Asks that are never answered would leave no room for others, ever.
                    plan.dialect.asks.asks_max = 65_536;
                }
                Answerer::Receipts
            }
        };
        Self { answerer, answer_bytes_max, askers, may_starve, is_crowded: few }
    }

    /// What the lane of the sink of this number says of records that asked, or the embedded handler's.
    pub(crate) fn answering(&self, sink: Option<usize>) -> Answering {
        match (self.answerer, sink) {
            (Answerer::Embedded, None) => Answering::Bodies,
            (Answerer::Sink(answers), Some(n)) if answers == n => Answering::Bodies,
            (Answerer::Receipts, Some(_)) => Answering::Receipts,
            _ => Answering::Nothing,
        }
    }
}

impl AskerPlan {
    fn of(rng: &mut Rng) -> Self {
        let sleeps = rng.one_in(3);
        let takes = client::AskConfig {
            first_wait_ms: 40_000,
            wait_ms: [0, 1_500, 20_000, 40_000][rng.index(4)],
            room: u16::try_from([0, 32, 240][rng.index(3)]).expect("short"),
            sleeps,
        };
        Self {
            share: rng.magnitude(100_000, 1_000_000),
            slots: usize::try_from(rng.magnitude(1, 64)).expect("few"),
            bodies: usize::try_from(rng.magnitude(64, 4_096)).expect("small"),
            takes,
            wake_us: if rng.one_in(4) { 0 } else { rng.magnitude(500 * MS, 30 * S) },
            stores: rng.one_in(2),
        }
    }
}

/// What a handler answers at its `nth` answer: another time it would be another, so that two for one ask would show.
pub(crate) fn body(nth: u64, bytes_max: usize) -> Vec<u8> {
    let most = bytes_max as u64;
    // One in nine is too long.
    let len = mix(nth ^ 0xb0d1) % (most + most / 8 + 1);
    let number = mix(nth).to_le_bytes();
    number.iter().cycle().take(usize::try_from(len).expect("short")).copied().collect()
}

/// What may happen to asks, counted over all runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AskSeen {
    /// An ask is durable, plain or sealed.
    Asked,
    AskedSealed,
    /// An answer was told to its client.
    Answered,
    /// A TAKE was held, and its answer came.
    HeldReleased,
    /// A TAKE was held for as long as it may be.
    HeldExpired,
    /// An answer was told once more, since the first was lost.
    TakenAgain,
    /// The ask is of an earlier life of the server than its answer.
    AnsweredAfterCrash,
    /// The body had no room in the TAKE.
    NoRoom,
    Failed,
    GoneByTtl,
    GoneByEpoch,
    /// The sink that was to answer has lost the entry, or was let go on beyond it.
    GoneByLostEntry,
    /// It was had, and somebody takes it again.
    GoneHad,
    Ready,
    /// A message was refused since there are too many asks.
    Busy,
    /// An answer was told that the server had found again in the records of the answers of a commit, or of its ask.
    FoundInLog,
    FoundInAsk,
    /// Told by a client in a later run than the one that asked.
    TakenInLaterRun,
    /// A sleeper that was told by READY.
    Slept,
    /// A TAKE, or a reply to one, was forged or played back.
    Forged,
}

impl AskSeen {
    pub(crate) const COUNT: usize = Self::Forged as usize + 1;
    pub(crate) const ALL: [Self; Self::COUNT] = {
        use AskSeen::*;
        [
            Asked,
            AskedSealed,
            Answered,
            HeldReleased,
            HeldExpired,
            TakenAgain,
            AnsweredAfterCrash,
            NoRoom,
            Failed,
            GoneByTtl,
            GoneByEpoch,
            GoneByLostEntry,
            GoneHad,
            Ready,
            Busy,
            FoundInLog,
            FoundInAsk,
            TakenInLaterRun,
            Slept,
            Forged,
        ]
    };
}
