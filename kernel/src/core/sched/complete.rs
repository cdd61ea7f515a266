//! What a step came to: entries counted, tokens handed to generations, time charged to processes.

use drivers::wire::{DriverFault, RowDone, StepDone};
use syscalls::{ContextId, Errno, Fault};

use super::super::Kernel;
use super::super::event::{ModelId, WorkerId};
use super::super::memory::{PageSent, Shortage};
use super::{InFlight, RowSent};

impl Kernel {
    /// Takes the result of a step. A result that does not fit the step is the word of a broken worker.
    pub(in crate::core) fn step_done(&mut self, worker: WorkerId, mut done: StepDone) {
        let Some(model) = self.live_model(worker) else { return };
        let fits = model.in_flight.as_ref().is_some_and(|step| fits(step, &done, model.vocabulary()));
        if !fits {
            return self.worker_broken(worker, "its answer does not fit the step");
        }
        let Some(step) = self.models.get_mut(&worker.model).and_then(|m| m.in_flight.take()) else { return };
        self.count_rows(&step.groups, -1);
        let wall_us = self.now.0.saturating_sub(step.since.0).max(1);
        // What pages took says nothing about what rows take.
        let paging_us = done.pages.iter().flatten().fold(0, |sum: u64, us| sum.saturating_add(*us));
        let elapsed_us = done.elapsed_us.saturating_sub(paging_us).min(wall_us);
        self.charge(worker.model, &step, &done.rows, elapsed_us);
        if let Some(model) = self.models.get_mut(&worker.model) {
            let withdrawn = u64::from(model.sched.count_withdrawn(&step, &done.rows));
            model.counters.steps_withdrawn += withdrawn;
            self.counters.steps_withdrawn += withdrawn;
            if !step.rows.is_empty() {
                model.last_use = self.now;
                model.culprits.worked = true;
            }
        }
        self.worker_progressed(worker.model);
        if let Some(model) = self.models.get_mut(&worker.model) {
            model.behind.earn(elapsed_us);
        }
        let short = is_short(&step, &done).then(|| self.shortage(worker.model, &step));
        self.pages_done(worker.model, &step.pages, done.pages);
        for (row, done) in step.rows.iter().zip(&mut done.rows) {
            self.row_done(worker.model, row, done);
        }
        self.end_where_groups_are_full(&step.rows);
        if let Some(shortage) = short {
            self.worker_short(worker.model, shortage);
        }
        self.step_ran(worker.model, &step, elapsed_us);
        self.note_rest(worker.model);
        if let Some(model) = self.models.get_mut(&worker.model) {
            model.sched.rows = step.rows;
            model.sched.rows.clear();
        }
    }

    /// What there was when a step had no room, before its end changes anything.
    fn shortage(&self, model: ModelId, step: &InFlight) -> Shortage {
        let (_, free) = self.models.get(&model).map_or((0, 0), |m| m.frames());
        Shortage { frames_free: step.frames_free, frames_given_back: free.saturating_sub(step.frames_free) }
    }

    /// The step failed as a whole, which says nothing about what is in the pool now: the worker starts afresh.
    pub(in crate::core) fn step_failed(&mut self, worker: WorkerId, number: u64, fault: &str) {
        let Some(model) = self.live_model(worker) else { return };
        if model.in_flight.as_ref().is_some_and(|s| s.number == number) {
            self.worker_broken(worker, &format!("a step failed: {fault}"));
        }
    }
}

/// Whether the worker had no room for what the kernel had counted frames for.
fn is_short(step: &InFlight, done: &StepDone) -> bool {
    let lacks = |fault: &DriverFault| fault.errno == Errno::ENOMEM;
    let loads = step.pages.iter().zip(&done.pages).filter(|(sent, _)| matches!(sent, PageSent::Load { .. }));
    let mut loads = loads.filter_map(|(_, done)| done.as_ref().err());
    loads.any(lacks) || done.rows.iter().any(|row| matches!(row, RowDone::Failed(fault) if lacks(fault)))
}

/// Whether a worker's answer is one to this step. It runs foreign C++ on foreign files: nothing is taken on trust.
fn fits(step: &InFlight, done: &StepDone, vocabulary: u32) -> bool {
    let row_fits = |row: &RowSent, done: &RowDone| match done {
        RowDone::Computed => !row.sample,
        RowDone::Sampled(sampled) => {
            let guessed = sampled.iter().zip(&row.draft).take_while(|(s, guess)| s.token == **guess).count();
            row.sample
                && (1..=guessed + 1).contains(&sampled.len())
                && sampled.iter().all(|s| s.token.0 < vocabulary)
        }
        RowDone::Failed(_) => true,
        RowDone::Withdrawn => step.withdrawn,
    };
    step.number == done.number
        && step.rows.len() == done.rows.len()
        && step.pages.len() == done.pages.len()
        && step.rows.iter().zip(&done.rows).all(|(row, done)| row_fits(row, done))
}

/// The fault of a call whose worker could not carry it out twice.
pub(in crate::core) fn died_twice(id: ContextId, length: u32) -> Fault {
    Fault::new(
        Errno::EIO,
        format!("the worker died twice at token {length} of context {id}; truncate it, or try another text"),
    )
}
