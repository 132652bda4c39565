//! A sink's handler, and with it the target that it writes to.

use std::panic::resume_unwind;

use duragram::model::{Offset, Record, SinkId};
use duragram::process::{Handler, HandlerError, LaneStart, Outcomes};

use super::{Seen, plan::SinkPlan};
use crate::core::{Sabotage, Shared};

pub(super) struct Target {
    core: Shared,
    plan: SinkPlan,
    id: SinkId,
}

impl Target {
    /// # Errors
    /// Now and then it cannot be opened.
    pub(super) fn open(core: &Shared, plan: &SinkPlan, start: &LaneStart<'_>) -> Result<Self, HandlerError> {
        let shared = core.clone();
        let core = &mut *core.lock();
        if !core.calm && !plan.is_sound() && core.rng.one_in(50) {
            return Err(HandlerError::new("it cannot be opened"));
        }
        let mark = start.mark();
        core.oracle.target_starts(start.sink.0, mark.watermark.0, &mark.sink_state);
        Ok(Self { core: shared, plan: plan.clone(), id: start.sink })
    }
}

impl Handler for Target {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        let core = &mut *self.core.lock();
        let faults = if core.calm { Default::default() } else { self.plan.faults };
        core.oracle.shown_to_sink(self.id.0, records);
        if self.plan.is_away(core.now_us, core.calm) || core.rng.ppm(faults.unavailable) {
            core.oracle.saw(Seen::Away);
            return outcomes.unavailable("away");
        }
        for (i, record) in records.iter().enumerate() {
            let key = (record.offset.0, record.index);
            core.trace.note(core.now_us, "to sink", [key.0, u64::from(key.1)], &[]);
            if core.rng.ppm(faults.retry) {
                outcomes.retry(i, "later");
                if self.plan.exact {
                    return;
                }
            } else if core.rng.ppm(faults.give_up) {
                outcomes.give_up(i, "never");
                if self.plan.exact {
                    return;
                }
            } else if core.rng.ppm(faults.silent) {
                return;
            } else if core.rng.ppm(faults.panics) {
                core.counts.panics += 1;
                resume_unwind(Box::new("as planned"));
            } else {
                core.done(i, record, outcomes);
                core.oracle.sink_takes(self.id.0, key);
                // What it has taken it keeps.
                if self.plan.exact && i % 2 == 0 {
                    outcomes.tell_done();
                }
            }
        }
    }

    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        let core = &mut *self.core.lock();
        let faults = if core.calm { Default::default() } else { self.plan.faults };
        if core.oracle.sink_has_unflushed(self.id.0) && (self.plan.is_away(core.now_us, core.calm)) {
            return Err(HandlerError::new("the target is away"));
        }
        if core.rng.ppm(faults.flush_fails) {
            return Err(HandlerError::new("the target does not sync"));
        }
        let forgets = core.sabotage == Some(Sabotage::TargetForgets);
        Ok(core.oracle.sink_flushes(self.id.0, forgets))
    }

    fn settle(&mut self) -> Result<bool, HandlerError> {
        let core = &mut *self.core.lock();
        let faults = if core.calm { Default::default() } else { self.plan.faults };
        if self.plan.is_away(core.now_us, core.calm) || core.rng.ppm(faults.flush_fails) {
            return Err(HandlerError::new("the target does not sync"));
        }
        let forgets = core.sabotage == Some(Sabotage::TargetForgets);
        core.oracle.sink_settles(self.id.0, forgets);
        Ok(true)
    }

    fn lost(&mut self, from: Offset, to: Offset) {
        let core = &mut *self.core.lock();
        core.oracle.sink_is_told(self.id.0, from.0, to.0);
    }
}
