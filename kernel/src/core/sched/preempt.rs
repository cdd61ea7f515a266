//! Preemption: a step of lower classes is withdrawn when somebody in a hurry arrives.
//!
//! A step is withdrawn if a generation of the class `realtime` or `interactive` has become ready since it began, if
//! all its rows are of lower classes, and if what is left of it is expected to take long enough to be worth it. A step
//! that is late is expected to take as long again as it has been late, and one of which nothing is known is worth it at
//! once. A step that is not worth it is looked at again when it should be over by far, while the one who has arrived
//! still waits. What was computed of the rows that are not through is lost, at most a chunk each; they are planned
//! again. So that nobody is kept from ever getting on by those who keep arriving, no more than
//! [`WITHDRAWN_IN_A_ROW_MAX`] steps in a row are withdrawn; the next one runs through.

use drivers::wire::RowDone;
use syscalls::call::Class;

use super::super::Kernel;
use super::super::effect::Effect;
use super::super::event::{ModelId, Now};
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
        let worker = model.worker();
        let (Some(step), sched) = (&mut model.in_flight, &mut model.sched) else { return };
        if !sched.would_withdraw(step) {
            sched.arrived = None;
        } else if left_us(step, now) >= WORTH_US {
            sched.arrived = None;
            step.withdrawn = true;
            self.out.push(Effect::Withdraw { worker, number: step.number });
        }
    }

    /// When a step that somebody waits for has gone on for so long beyond what was expected that it is withdrawn.
    pub(in crate::core) fn next_look_at_late_steps(&self) -> Option<Now> {
        let waited_for = self.models.values().filter(|model| model.sched.arrived.is_some());
        let steps =
            waited_for.filter_map(|model| model.in_flight.as_ref().filter(|s| model.sched.would_withdraw(s)));
        steps.map(|step| Now(step.since.0.saturating_add(step.expected_us).saturating_add(WORTH_US))).min()
    }
}

/// How long a step is expected to take from now on, in microseconds.
fn left_us(step: &InFlight, now: Now) -> u64 {
    let ran_us = now.0.saturating_sub(step.since.0);
    match step.expected_us {
        0 => u64::MAX,
        expected_us => expected_us.abs_diff(ran_us),
    }
}

impl Sched {
    /// Whether somebody has arrived who goes before all rows of a step, and it may be withdrawn at all.
    fn would_withdraw(&self, step: &InFlight) -> bool {
        let in_a_hurry = self.arrived.filter(|class| *class <= Class::Interactive);
        !step.withdrawn
            && self.withdrawn.1 < WITHDRAWN_IN_A_ROW_MAX
            && in_a_hurry.is_some_and(|class| outranks(class, step))
    }

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
