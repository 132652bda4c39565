//! What a client that asks remembers of it: which answers it waits for, and what it has stored for its next run.

use std::collections::BTreeSet;

use duragram::proto::client::{AskSlot, Client, Slot};
use duragram::proto::{Epoch, Seq};

use crate::asks::{AskSeen, AskerPlan};
use crate::core::Core;
use crate::rng::Rng;

pub(crate) type Machine = Client<Vec<Slot>, Vec<u8>, Vec<AskSlot>, Vec<u8>>;

const NEVER: u64 = u64::MAX;
/// When nothing fails any more every sleeper wakes now and then.
const CALM_WAKE_US: u64 = 5_000_000;
/// By then all is answered that waits when nothing fails any more, or was acked after that: a TAKE comes after at most 75 seconds
/// and is held for at most 20; before that a handler may have to be tried again, and a lane may wait for its sink.
const CALM_US_MAX: u64 = 300_000_000;

pub(crate) struct Asker {
    pub(crate) plan: AskerPlan,
    /// Asks that may never be answered are not waited for at the end.
    may_starve: bool,
    /// Others may have taken all the room for asks, and give it back by and by.
    is_crowded: bool,
    /// Acked, and not finished: (epoch, seq).
    waiting: BTreeSet<(u32, u64)>,
    /// Of these, what was stored by an earlier run.
    earlier: BTreeSet<(u32, u64)>,
    stored: Vec<(Epoch, Seq)>,
    wake_us: u64,
    /// Since when nothing fails, and nothing was acked.
    calm_since_us: Option<u64>,
    /// It has not woken by itself since it began.
    waits_for_ready: bool,
}

impl Asker {
    pub(crate) fn new(plan: AskerPlan, may_starve: bool, is_crowded: bool) -> Self {
        Self {
            plan,
            may_starve,
            is_crowded,
            waiting: BTreeSet::new(),
            earlier: BTreeSet::new(),
            stored: Vec::new(),
            wake_us: NEVER,
            calm_since_us: None,
            waits_for_ready: true,
        }
    }

    /// A machine that can ask, out of one that cannot.
    pub(crate) fn lend(&self, machine: Client<Vec<Slot>, Vec<u8>>) -> Machine {
        let AskerPlan { slots, bodies, takes, .. } = self.plan;
        machine.with_asks(takes, vec![AskSlot::EMPTY; slots], vec![0; bodies])
    }

    /// The process ends; what waits is stored, by some.
    pub(crate) fn crash(&mut self, machine: &Machine) {
        self.stored = if self.plan.stores { machine.waiting().collect() } else { Vec::new() };
        self.waiting.clear();
        self.earlier.clear();
    }

    /// Another process goes on with what was stored.
    pub(crate) fn begin(&mut self, machine: &mut Machine, now_us: u64) {
        for (epoch, seq) in std::mem::take(&mut self.stored) {
            if machine.take(now_us, epoch, seq).is_ok() {
                self.waiting.insert((epoch.value(), seq.0));
                self.earlier.insert((epoch.value(), seq.0));
            }
        }
        self.wake_us = now_us + self.plan.wake_us;
        self.waits_for_ready = true;
    }

    pub(crate) fn due_us(&self) -> u64 {
        if self.waiting.is_empty() { NEVER } else { self.next_wake_us() }
    }

    fn next_wake_us(&self) -> u64 {
        let by_itself = self.plan.wake_us > 0 || self.calm_since_us.is_some();
        if self.plan.takes.sleeps && by_itself { self.wake_us } else { NEVER }
    }

    pub(crate) fn wake(&mut self, machine: &mut Machine, now_us: u64, rng: &mut Rng) {
        if self.next_wake_us() > now_us {
            return;
        }
        machine.wake(now_us);
        self.waits_for_ready = false;
        let mean_us = if self.calm_since_us.is_some() { CALM_WAKE_US } else { self.plan.wake_us };
        self.wake_us = now_us + 1 + rng.wait(mean_us);
    }

    /// A message that asks is acked.
    pub(crate) fn acked(&mut self, epoch: Epoch, seq: Seq, now_us: u64) {
        self.waiting.insert((epoch.value(), seq.0));
        if self.wake_us == NEVER || self.wake_us < now_us {
            self.wake_us = now_us + self.plan.wake_us;
        }
        self.calm_since_us = self.calm_since_us.map(|_| now_us);
    }

    /// Takes what the machine hands out: each once, and what the server has.
    pub(crate) fn drain(&mut self, id: u64, machine: &mut Machine, core: &mut Core) {
        while let Some(answered) = machine.poll_answer() {
            let (epoch, seq) = (answered.epoch.value(), answered.seq.0);
            core.trace.note(core.now_us, "answered", [id, seq], answered.body);
            if !self.waiting.remove(&(epoch, seq)) {
                core.oracle.fail(|| format!("client {id} is told of {seq} in {epoch}, which it does not wait for"));
            }
            if self.earlier.remove(&(epoch, seq)) {
                core.oracle.asks.saw(AskSeen::TakenInLaterRun);
            }
            if self.plan.takes.sleeps && self.waits_for_ready {
                core.oracle.asks.saw(AskSeen::Slept);
            }
            core.oracle.heard((id, epoch), seq, answered.status, answered.length, answered.body);
        }
    }

    /// The server is up, and stays: since when the last answers are waited for.
    pub(crate) fn await_calm(&mut self, now_us: u64) {
        self.calm_since_us = Some(now_us);
        self.wake_us = now_us + 1;
    }

    /// Whether an answer has been waited for too long, though nothing fails.
    pub(crate) fn is_late(&self, now_us: u64) -> bool {
        let late = self.calm_since_us.is_some_and(|since| now_us > since + CALM_US_MAX);
        late && !self.waiting.is_empty() && !self.may_starve
    }

    /// Whether its messages may wait for as long as others' answers take.
    pub(crate) fn is_crowded(&self) -> bool {
        self.is_crowded
    }

    /// Whether nothing more is waited for.
    pub(crate) fn is_done(&self) -> bool {
        self.may_starve || self.waiting.is_empty()
    }

    pub(crate) fn describe(&self) -> String {
        format!("waits for the answers of {:?}", self.waiting.iter().take(4).collect::<Vec<_>>())
    }
}
