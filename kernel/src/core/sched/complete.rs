//! What a step came to: entries counted, tokens handed to generations, time charged to processes.

use std::collections::{BTreeMap, BTreeSet};

use drivers::wire::{PAGE_TOKENS, RowDone, Sampled, StepDone};
use syscalls::call::Class;
use syscalls::{ContextId, Errno, Fault};

use super::super::Kernel;
use super::super::event::{ModelId, WorkerId};
use super::{InFlight, RowSent};

impl Kernel {
    /// Takes the result of a step. A result that does not fit the step is the word of a broken worker.
    pub(in crate::core) fn step_done(&mut self, worker: WorkerId, done: StepDone) {
        let Some(model) = self.live_model(worker) else { return };
        let fits = model.in_flight.as_ref().is_some_and(|step| fits(step, &done, model.vocabulary()));
        if !fits {
            return self.worker_broken(worker, "its answer does not fit the step");
        }
        let Some(step) = self.models.get_mut(&worker.model).and_then(|m| m.in_flight.take()) else { return };
        let wall_us = self.now.0.saturating_sub(step.since.0).max(1);
        // What pages took says nothing about what rows take.
        let paging_us = done.pages.iter().flatten().fold(0, |sum: u64, us| sum.saturating_add(*us));
        let elapsed_us = done.elapsed_us.saturating_sub(paging_us).min(wall_us);
        self.charge(worker.model, &step, elapsed_us);
        self.worker_progressed(worker.model);
        self.pages_done(worker.model, &step.pages, done.pages);
        for (row, done) in step.rows.iter().zip(done.rows) {
            self.row_done(worker.model, row, done);
        }
        self.step_ran(worker.model, &step, elapsed_us);
    }

    fn row_done(&mut self, model: ModelId, row: &RowSent, done: RowDone) {
        let id = row.context;
        let Some(context) = self.contexts.get_mut(&id) else { return };
        context.in_step = false;
        let goes_on = context.generating() == Some(row.call);
        match done {
            RowDone::Failed(fault) if goes_on => {
                self.fail_generation(id, Fault::new(fault.errno, fault.message));
            }
            RowDone::Failed(_) | RowDone::Withdrawn => {}
            RowDone::Computed => self.entries_added(model, row),
            RowDone::Sampled(sampled) => {
                self.entries_added(model, row);
                self.clear_suspect(model, id);
                if goes_on {
                    sampled.into_iter().for_each(|token| self.accept(model, id, token));
                }
            }
        }
        // A call that waited behind one which ended while the row was under way.
        self.advance(id);
    }

    /// Counts the entries that a row added to the pool.
    fn entries_added(&mut self, model: ModelId, row: &RowSent) {
        let Some(context) = self.contexts.get_mut(&row.context) else { return };
        let Some(resident) = &mut context.resident else { return };
        let end = row.position + row.tokens;
        resident.computed = end;
        let again = context.evaluated.clamp(row.position, end) - row.position;
        context.evaluated = context.evaluated.max(end);
        // Generated tokens get their entries one step after they came out, and are no prompt.
        let prompt_end = end.min(row.prompt);
        let prompt = prompt_end.saturating_sub(row.position + again);
        if let Some(generation) = context.generation.as_mut().filter(|g| g.call == row.call) {
            generation.usage.prompt_tokens_evaluated += prompt_end.saturating_sub(row.position);
        }
        self.count(model, row.owner, |c| {
            c.tokens_recomputed += u64::from(again);
            c.prompt_tokens_evaluated += u64::from(prompt);
            c.refaults += u64::from(again.div_ceil(PAGE_TOKENS));
        });
        self.enroll_context(row.context);
    }

    /// Learns what the step cost, and shares its time out among the processes that had rows in it.
    fn charge(&mut self, id: ModelId, step: &InFlight, elapsed_us: u64) {
        let Some(model) = self.models.get_mut(&id) else { return };
        let decoding = step.rows.iter().filter(|r| r.decodes()).count() as u32;
        let prefill = step.rows.iter().filter(|r| !r.decodes()).map(|r| r.tokens).sum();
        if !step.rows.is_empty() {
            model.sched.cost.observe(decoding, prefill, elapsed_us);
        }
        let cost = model.sched.cost.clone();
        let weight = |r: &RowSent| cost.weight(decoding, (!r.decodes()).then_some(r.tokens));
        let total: u64 = step.rows.iter().map(weight).sum::<u64>().max(1);
        for counters in [&mut model.counters, &mut self.counters] {
            counters.steps += 1;
            counters.step_us += elapsed_us;
        }
        let mut least: BTreeMap<Class, u64> = BTreeMap::new();
        let mut owners = BTreeSet::new();
        for row in &step.rows {
            let us = (u128::from(elapsed_us) * u128::from(weight(row)) / u128::from(total)) as u64;
            let before = self.charge_process(id, row, us, owners.insert(row.owner));
            let least = least.entry(row.class).or_insert(before);
            *least = before.min(*least);
        }
        let Some(model) = self.models.get_mut(&id) else { return };
        for (class, service) in least {
            let clock = &mut model.sched.clock(class).service;
            *clock = service.max(*clock);
        }
        for owner in owners {
            self.stand_in_line(id, owner);
        }
    }

    /// Charges a process, and tells its virtual time before.
    fn charge_process(&mut self, model: ModelId, row: &RowSent, us: u64, first: bool) -> u64 {
        let Some(process) = self.processes.living_mut(row.owner) else { return 0 };
        process.id.counters.step_us += us;
        process.id.counters.steps += u64::from(first);
        let nice = process.id.nice;
        let Some(model) = self.models.get_mut(&model) else { return 0 };
        let fair = model.sched.fair.entry(row.owner).or_default();
        let before = fair.service;
        fair.charge(us, nice);
        before
    }

    /// Takes the next token of a generation.
    fn accept(&mut self, model: ModelId, id: ContextId, sampled: Sampled) {
        self.extend(id, &[sampled.token]);
        let owner = self.contexts.get(&id).map(|c| c.owner);
        if let Some(owner) = owner {
            self.count(model, owner, |c| c.tokens_generated += 1);
        }
        self.take_token(id, sampled);
    }

    /// The step failed as a whole, which says nothing about what is in the pool now: the worker starts afresh.
    pub(in crate::core) fn step_failed(&mut self, worker: WorkerId, number: u64, fault: &str) {
        let Some(model) = self.live_model(worker) else { return };
        if model.in_flight.as_ref().is_some_and(|s| s.number == number) {
            self.worker_broken(worker, &format!("a step failed: {fault}"));
        }
    }
}

/// Whether a worker's answer is one to this step. It runs foreign C++ on foreign files: nothing is taken on trust.
fn fits(step: &InFlight, done: &StepDone, vocabulary: u32) -> bool {
    let row_fits = |row: &RowSent, done: &RowDone| match done {
        RowDone::Computed => !row.sample,
        RowDone::Sampled(sampled) => {
            row.sample && sampled.len() == 1 && sampled.iter().all(|s| s.token.0 < vocabulary)
        }
        RowDone::Failed(_) | RowDone::Withdrawn => true,
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
