//! What happens to a sink, its server and its target.

use rand::RngExt;
use rand::rngs::SmallRng;

use super::target::Kind;

/// A kind of bad day.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Fault {
    /// SIGKILL of Duragram at any moment.
    ServerKilled,
    /// The target crashes and is back soon.
    TargetKilled,
    /// Both end at once, and come back in any order.
    BothKilled,
    /// Nothing passes for a while, in either direction; then all of it does.
    Frozen,
    /// What is sent arrives, and its answers do not; then the connection ends.
    AnswersLost,
    /// The same, and Duragram is killed before it can ask.
    KilledInDoubt,
    /// Duragram is killed while a connection is frozen: what it had sent arrives when its next start is at work.
    HeldBack,
    /// The connection is cut at any byte.
    Cut,
    /// Every piece takes long on its way.
    Delayed,
    /// The target is away for seconds.
    Away,
    /// An operator stops the sink and lets it go on; Duragram may be killed meanwhile.
    Paused,
}

impl Fault {
    pub(super) const ALL: [Self; 11] = [
        Self::ServerKilled,
        Self::TargetKilled,
        Self::BothKilled,
        Self::Frozen,
        Self::AnswersLost,
        Self::KilledInDoubt,
        Self::HeldBack,
        Self::Cut,
        Self::Delayed,
        Self::Away,
        Self::Paused,
    ];

    /// Whether it can happen to such a target.
    pub(super) fn befalls(self, kind: Kind) -> bool {
        match self {
            Self::ServerKilled | Self::Paused => true,
            Self::TargetKilled | Self::BothKilled | Self::Frozen | Self::Away => kind.lives(),
            Self::AnswersLost | Self::KilledInDoubt | Self::HeldBack | Self::Cut | Self::Delayed => {
                kind.has_connection()
            }
        }
    }

    /// One that can happen to such a target, drawn at random.
    pub(super) fn draw(kind: Kind, random: &mut SmallRng) -> Self {
        let possible: Vec<Self> = Self::ALL.into_iter().filter(|fault| fault.befalls(kind)).collect();
        possible[random.random_range(0..possible.len())]
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ServerKilled => "Duragram killed",
            Self::TargetKilled => "target killed",
            Self::BothKilled => "both killed",
            Self::Frozen => "frozen",
            Self::AnswersLost => "answers lost",
            Self::KilledInDoubt => "killed in doubt",
            Self::HeldBack => "killed, then late arrivals",
            Self::Cut => "cut",
            Self::Delayed => "slow",
            Self::Away => "away",
            Self::Paused => "paused",
        }
    }
}
