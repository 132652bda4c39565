//! What a flow that asks keeps of its messages between their acks and their answers (PROTOCOL.md#answers).
//!
//! Every message asks. A message that is acked is taken: its TAKE is held by the server until the answer is there, and is sent again
//! when nothing came for as long as it may be held and a timeout.

use std::collections::VecDeque;

use duragram_proto::codec::{Answer, AnswerStatus};

use super::{MS, Tally};

/// Messages of one client whose answers have not come, acked or not (PROTOCOL.md#answers, C1).
pub(in super::super) const UNFINISHED_MAX: u16 = 64;
/// TAKEs of one client that may be open (C4).
const OPEN_MAX: usize = 16;
/// How long the server may hold a TAKE, in milliseconds: a load of which TAKEs are lost does not wait as long for it as clients would.
const WAIT_MS: u32 = 1_000;
/// The longest wait between two TAKEs of one message (C4), in nanoseconds.
const WAIT_NS_MAX: u64 = 60_000 * MS;

/// The asks of one flow, over one epoch.
#[derive(Debug)]
pub(in super::super) struct Asks {
    /// A ring: the slot of seq `s` is `s % 64`.
    slots: [Ask; UNFINISHED_MAX as usize],
    /// All asks with a lower seq are finished,
    lowest: u64,
    /// and the server was told so of those below this. It may remember the others.
    told: u64,
    /// To be taken now, in the order in which they became so. What is finished meanwhile is passed over.
    due: VecDeque<u64>,
    open: usize,
    /// Bytes of body that a TAKE has room for.
    room: usize,
    room_max: usize,
    /// The server is to hear which answers were had: they may be what fills its room for asks.
    says_had: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ask {
    /// When the message was meant to be sent first.
    meant_ns: u64,
    /// Of an open TAKE: when it is sent again. Of one that rests: when it is due.
    at_ns: u64,
    tries: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    /// Not acked yet, or finished.
    #[default]
    None,
    Due,
    Open,
    /// The server has said when to ask again.
    Rests,
    Finished,
}

/// A TAKE that is to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) struct Taking {
    pub(in super::super) seq: u64,
    pub(in super::super) span: u16,
    pub(in super::super) wait_ms: u32,
    pub(in super::super) room: usize,
}

impl Asks {
    /// None yet. A TAKE has room for `room` bytes of body at first, and for what an answer says later, up to `room_max`.
    pub(in super::super) fn new(room: usize, room_max: usize) -> Self {
        let slots = [Ask::default(); UNFINISHED_MAX as usize];
        Self { slots, lowest: 1, told: 1, due: VecDeque::new(), open: 0, room, room_max, says_had: false }
    }

    /// Whether a message with this seq may ask now. If it may as soon as the server is told what was had, that is told next.
    pub(super) fn has_room(&mut self, seq: u64) -> bool {
        let has_room = seq - self.told < u64::from(UNFINISHED_MAX);
        self.says_had |= !has_room && seq - self.lowest < u64::from(UNFINISHED_MAX);
        has_room
    }

    /// Nothing follows: what was had and not told is told next. Returns whether there is anything.
    pub(super) fn tell_had(&mut self) -> bool {
        self.says_had |= self.told < self.lowest;
        self.says_had
    }

    /// The message is acked: it may be taken.
    pub(super) fn acked(&mut self, seq: u64, meant_ns: u64) {
        *self.slot(seq) = Ask { meant_ns, state: State::Due, ..Ask::default() };
        self.due.push_back(seq);
    }

    /// The epoch ended, and with it what was acked in it. Returns how many answers are not waited for any more.
    pub(super) fn renew(&mut self) -> u64 {
        let waited = self.slots.iter().filter(|ask| !matches!(ask.state, State::None | State::Finished)).count();
        *self = Self::new(self.room, self.room_max);
        waited as u64
    }

    /// The server has no room for one more ask (PROTOCOL.md#duty-had).
    pub(super) fn was_refused(&mut self) {
        self.says_had = true;
    }

    /// The TAKE that is to be sent now.
    pub(super) fn next(&mut self, now_ns: u64, rto_ns: u64) -> Option<Taking> {
        while self.open < OPEN_MAX {
            let Some(seq) = self.due.pop_front() else { break };
            if seq < self.lowest || self.slot(seq).state != State::Due {
                continue;
            }
            let ask = self.slot(seq);
            let wait_ns = (u64::from(WAIT_MS) * MS).saturating_add(rto_ns) << ask.tries.min(6);
            ask.at_ns = now_ns.saturating_add(wait_ns.min(WAIT_NS_MAX));
            ask.state = State::Open;
            self.open += 1;
            (self.told, self.says_had) = (self.lowest, false);
            // Fewer than 64 lie between.
            let span = u16::try_from(seq - self.lowest).unwrap_or(u16::MAX);
            return Some(Taking { seq, span, wait_ms: WAIT_MS, room: self.room });
        }
        if std::mem::take(&mut self.says_had) {
            self.told = self.lowest;
            // It names a seq far above all that ask: its answer says nothing.
            let seq = self.lowest.saturating_add(u64::from(u16::MAX));
            return Some(Taking { seq, span: u16::MAX, wait_ms: 0, room: 0 });
        }
        None
    }

    /// Makes due what time has made so. Returns whether there may be something to send.
    pub(super) fn handle_time(&mut self, now_ns: u64) -> bool {
        for seq in self.lowest..self.lowest + u64::from(UNFINISHED_MAX) {
            let ask = self.slot(seq);
            if matches!(ask.state, State::Open | State::Rests) && ask.at_ns <= now_ns {
                ask.tries += u32::from(ask.state == State::Open);
                self.is_due(seq);
            }
        }
        !self.due.is_empty() && self.open < OPEN_MAX
    }

    /// Handles an ANSWER of this session. Returns whether it was waited for.
    pub(super) fn handle(&mut self, now_ns: u64, rto_ns: u64, answer: &Answer<'_>, tally: &mut Tally) -> bool {
        let seq = answer.seq.0;
        if seq < self.lowest || seq - self.lowest >= u64::from(UNFINISHED_MAX) {
            return false;
        }
        let ask = *self.slot(seq);
        if matches!(ask.state, State::None | State::Finished) {
            return false;
        }
        match answer.status {
            AnswerStatus::Done | AnswerStatus::Failed if answer.body.len() < answer.number as usize => {
                let wanted = answer.number as usize;
                if wanted > self.room_max {
                    self.finish(seq);
                    tally.unfit += 1;
                } else {
                    self.room = self.room.max(wanted);
                    self.is_due(seq);
                }
            }
            AnswerStatus::Done | AnswerStatus::Failed => {
                self.finish(seq);
                tally.answered(now_ns.saturating_sub(ask.meant_ns), answer.status == AnswerStatus::Failed);
            }
            AnswerStatus::Gone => {
                self.finish(seq);
                tally.gone += 1;
            }
            AnswerStatus::Pending | AnswerStatus::Unknown(_) => {
                tally.pending += 1;
                let wait_ns = (u64::from(answer.number) * MS).clamp(rto_ns, WAIT_NS_MAX);
                if ask.state == State::Open {
                    self.open -= 1;
                }
                let ask = self.slot(seq);
                (ask.state, ask.at_ns, ask.tries) = (State::Rests, now_ns.saturating_add(wait_ns), 0);
            }
        }
        true
    }

    /// It is to be taken now, for the first time or again.
    fn is_due(&mut self, seq: u64) {
        if std::mem::replace(&mut self.slot(seq).state, State::Due) == State::Open {
            self.open -= 1;
        }
        self.due.push_back(seq);
    }

    fn finish(&mut self, seq: u64) {
        if std::mem::replace(&mut self.slot(seq).state, State::Finished) == State::Open {
            self.open -= 1;
        }
        while self.slot(self.lowest).state == State::Finished {
            *self.slot(self.lowest) = Ask::default();
            self.lowest += 1;
        }
    }

    #[allow(clippy::cast_possible_truncation)] // below the ring's length
    fn slot(&mut self, seq: u64) -> &mut Ask {
        &mut self.slots[(seq % u64::from(UNFINISHED_MAX)) as usize]
    }
}
