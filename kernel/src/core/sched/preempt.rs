//! Preemption: a step of lower classes is withdrawn when somebody in a hurry arrives.
//!
//! A step is withdrawn if a generation of the class `realtime` or `interactive` has become ready since it began, if
//! all its rows are of lower classes, and if what is left of it is expected to take long enough to be worth it. What
//! was computed of the rows that are not through is lost, at most a chunk each; they are planned again. So that
//! nobody is kept from ever getting on by those who keep arriving, no more than [`WITHDRAWN_IN_A_ROW_MAX`] steps in
//! a row are withdrawn; the next one runs through.

use drivers::wire::RowDone;
use syscalls::call::Class;

use super::super::Kernel;
use super::super::effect::Effect;
use super::super::event::ModelId;
use super::{InFlight, Sched};

/// Steps in a row that may be withdrawn.
const WITHDRAWN_IN_A_ROW_MAX: u32 = 3;

/// What must be left of a step for it to be withdrawn, in microseconds. Less is below what somebody who watches
/// notices, and near the time that a driver needs to stop.
const WORTH_US: u64 = 20_000;

impl Kernel {
    /// Withdraws the step that runs, if somebody has arrived for whom that is worth it.
    pub(super) fn preempt(&mut self, id: ModelId) {
        let now = self.now;
        let Some(model) = self.models.get_mut(&id) else { return };
        let Some(arrived) = model.sched.arrived.take() else { return };
        let worker = model.worker();
        let Some(step) = &mut model.in_flight else { return };
        let ran_us = now.0.saturating_sub(step.since.0);
        let left_us = step.expected_us.saturating_sub(ran_us);
        let worth_it = arrived <= Class::Interactive && outranks(arrived, step) && left_us >= WORTH_US;
        if worth_it && !step.withdrawn && model.sched.withdrawn.1 < WITHDRAWN_IN_A_ROW_MAX {
            step.withdrawn = true;
            self.out.push(Effect::Withdraw { worker, number: step.number });
        }
    }
}

impl Sched {
    /// Notes that somebody of a class has something to run that had not when the step that runs began.
    pub(super) fn arrive(&mut self, class: Class) {
        self.arrived = Some(self.arrived.map_or(class, |arrived| arrived.min(class)));
    }

    /// Counts a step that is done, and tells whether rows of it were lost.
    pub(super) fn count_withdrawn(&mut self, step: &InFlight, done: &[RowDone]) -> bool {
        let lost = step.withdrawn && done.contains(&RowDone::Withdrawn);
        if !lost && self.withdrawn.1 == 0 {
            return false;
        }
        let highest = step.rows.iter().map(|row| row.class).min().unwrap_or_default();
        if lost {
            self.withdrawn = (highest, self.withdrawn.1 + 1);
        } else if !step.rows.is_empty() && highest >= self.withdrawn.0 {
            self.withdrawn.1 = 0;
        }
        lost
    }
}

fn outranks(arrived: Class, step: &InFlight) -> bool {
    !step.rows.is_empty() && step.rows.iter().all(|row| row.class > arrived)
}
