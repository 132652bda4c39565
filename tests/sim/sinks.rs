//! Several configured sinks beside each other, of which some fail: a share of the seeds has them in place of an embedded
//! handler's lanes.
//!
//! `plan` draws them, `start` composes them as the server does, `target` is where they write to, `truth` judges, and `watched`
//! stands between the committer and the lanes, to see what goes there.

mod commands;
mod plan;
mod start;
mod target;
mod watched;

pub(crate) use commands::{Command, Commands};
pub(crate) use plan::{NAMES, SinkPlan, SinksPlan, Trouble};
pub(crate) use start::lanes;
pub(crate) use watched::Watched;

/// What may happen to sinks, counted over all runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    /// A run that has sinks.
    Runs,
    /// A call found the target away.
    Away,
    /// A sink whose target never comes back was started.
    Dead,
    /// A record became a dead letter of one sink.
    DeadLetter,
    /// A target that keeps what it is given at once was given it again after a crash.
    RepeatDropped,
    /// What a crash had taken was processed again.
    DoneAgain,
    /// A loss of a sink that drops its oldest entries is durable.
    Dropped,
    /// A sink was detached, durably.
    Detached,
    /// A loss of a sink that was detached is durable.
    LostDetached,
    /// A handler was told of a loss.
    Told,
    /// A sink that blocks held more than it may.
    Full,
    /// New data was refused because of that.
    Refused,
    /// A sink held less again after new data had been refused.
    TakenAgain,
    /// Blocks were trimmed, whoever held others.
    Trimmed,
    /// Blocks were trimmed while a sink held others.
    TrimmedToAHolder,
    /// A sink was not configured at a start, and kept its place.
    KeptPlace,
    /// Such a sink came back.
    CameBack,
    /// A sink that had become another was refused.
    Changed,
    /// An operator's request is durable.
    Paused,
    Resumed,
    SoughtBack,
    SoughtForward,
    Removed,
    /// A name that was removed began as a new sink.
    BeganAnew,
    /// A record was left out for its channel.
    Filtered,
    /// The ring was full, and blocks left it.
    RingFull,
}

impl Seen {
    pub(crate) const COUNT: usize = Self::RingFull as usize + 1;
    pub(crate) const ALL: [Self; Self::COUNT] = {
        use Seen::*;
        [
            Runs,
            Away,
            Dead,
            DeadLetter,
            RepeatDropped,
            DoneAgain,
            Dropped,
            Detached,
            LostDetached,
            Told,
            Full,
            Refused,
            TakenAgain,
            Trimmed,
            TrimmedToAHolder,
            KeptPlace,
            CameBack,
            Changed,
            Paused,
            Resumed,
            SoughtBack,
            SoughtForward,
            Removed,
            BeganAnew,
            Filtered,
            RingFull,
        ]
    };
}
