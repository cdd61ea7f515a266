//! What a step came to: entries counted, tokens handed to generations, time charged to processes.

use drivers::wire::{Chosen, DriverFault, PAGE_TOKENS, RowDone, Sampled, StepDone};
use syscalls::call::Class;
use syscalls::{ContextId, Errno, Event, Fault, TokenRun};

use super::super::Kernel;
use super::super::context::Context;
use super::super::event::{ModelId, Now, WorkerId};
use super::super::generate::Taken;
use super::super::group::{GROUP_WEIGHT, GroupId};
use super::super::memory::{PageSent, Shortage};
use super::super::process::Process;
use super::account::VIRTUAL_US;
use super::cost::{Cost, Decode, Prefill};
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
            if model.is_left() {
                self.devices.reconsider();
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
        if let Some(shortage) = short {
            self.worker_short(worker.model, shortage);
        }
        self.step_ran(worker.model, &step, elapsed_us);
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

    /// Takes what came of a row out of the answer, piece by piece: each token moved as a whole would be copied several
    /// times.
    fn row_done(&mut self, model: ModelId, row: &RowSent, done: &mut RowDone) {
        let id = row.context;
        match done {
            RowDone::Failed(fault) if fault.errno != Errno::ENOMEM => {
                let goes_on = |c: &&Context| c.generating() == Some(row.call);
                if self.contexts.get(&id).filter(goes_on).is_some() {
                    let message = std::mem::take(&mut fault.message);
                    self.fail_generation(id, Fault::new(fault.errno, message));
                }
            }
            RowDone::Failed(_) | RowDone::Withdrawn => {}
            RowDone::Computed => self.entries_added(model, row),
            RowDone::Sampled(sampled) => {
                self.entries_added(model, row);
                self.clear_suspect(model, id);
                self.take_sampled(model, row, sampled);
            }
        }
        let Some(context) = self.contexts.get_mut(&id) else { return };
        context.in_step = false;
        // A call that waited behind one which ended while the row was under way.
        if context.generation.is_none() && context.queue.front().is_some_and(|head| head.work.is_some()) {
            self.advance(id);
        }
    }

    /// Takes the tokens that came of a row. Entries of all but the last are in the pool: those that the generation
    /// did not take any more, because it ended before them, are dropped. Nothing begins on the context until then.
    fn take_sampled(&mut self, model: ModelId, row: &RowSent, sampled: &mut Chosen) {
        let guessed = sampled.len() as u32 - 1;
        for token in sampled.iter_mut() {
            self.accept(model, row, token);
        }
        if row.draft.is_empty() {
            return;
        }
        self.count(model, row.owner, |c| {
            c.tokens_drafted += row.draft.len() as u64;
            c.tokens_accepted += u64::from(guessed);
        });
        let Some(context) = self.contexts.get_mut(&row.context) else { return };
        let length = context.length();
        let Some(resident) = &mut context.resident else { return };
        resident.computed += guessed;
        context.evaluated = context.evaluated.max(resident.computed.min(length));
        self.rewind(row.context, length);
        self.enroll_context(row.context);
    }

    /// Counts the entries that a row added to the pool.
    fn entries_added(&mut self, id: ModelId, row: &RowSent) {
        let Some(context) = self.contexts.get_mut(&row.context) else { return };
        let Some(resident) = &mut context.resident else { return };
        let end = row.position + row.tokens;
        resident.computed = end;
        let again = context.evaluated.clamp(row.position, end) - row.position;
        context.evaluated = context.evaluated.max(end);
        // Generated tokens get their entries one step after they came out, and are no prompt.
        let prompt_end = end.min(row.prompt);
        let prompt = prompt_end.saturating_sub(row.position + again);
        if row.position < prompt_end
            && let Some(generation) = context.generation.as_mut().filter(|g| g.call == row.call)
        {
            generation.usage.prompt_tokens_evaluated += prompt_end - row.position;
        }
        if let Some(model) = self.models.get_mut(&id) {
            context.enroll(model);
        }
        if again + prompt > 0 {
            self.count(id, row.owner, |c| {
                c.tokens_recomputed += u64::from(again);
                c.prompt_tokens_evaluated += u64::from(prompt);
                c.refaults += u64::from(again.div_ceil(PAGE_TOKENS));
            });
        }
    }

    /// Learns what the step cost, and shares its time out among the processes that had rows in it. Of one that was
    /// withdrawn, nobody pays for rows that were not through, and nothing is learnt.
    fn charge(&mut self, id: ModelId, step: &InFlight, done: &[RowDone], elapsed_us: u64) {
        let Some(model) = self.models.get_mut(&id) else { return };
        let (mut decode, mut prefill) = (Decode::default(), Prefill::default());
        for row in &step.rows {
            if row.decodes() {
                (0..=row.draft.len()).for_each(|_| decode.add(row.position));
            } else {
                prefill.add(row.position, row.tokens);
            }
        }
        let cost = &mut model.sched.cost;
        let through = |at: usize| done.get(at).is_some_and(|row| *row != RowDone::Withdrawn);
        if !step.rows.is_empty() && (0..step.rows.len()).all(through) {
            cost.observe(decode, prefill, elapsed_us);
        }
        if prefill.tokens > 0 {
            for row in step.rows.iter().filter(|row| row.decodes()) {
                let generation = self.contexts.get_mut(&row.context).and_then(|c| c.generation.as_mut());
                if let Some(generation) = generation.filter(|g| g.call == row.call) {
                    generation.prompts_passed(prefill.tokens);
                }
            }
        }
        let weights = weights(cost, decode, &step.rows);
        let total = weights.iter().sum::<u64>().max(1);
        for counters in [&mut model.counters, &mut self.counters] {
            counters.steps += 1;
            counters.step_us += elapsed_us;
        }
        let mut charged = [0; 4];
        let mut groups: Vec<((Class, GroupId), u64)> = Vec::new();
        for (at, (row, weight)) in step.rows.iter().zip(weights).enumerate() {
            if !through(at) {
                continue;
            }
            let us = part(elapsed_us, weight, total);
            charged[row.class as usize] += us;
            let Some(process) = self.processes.living_mut(row.owner) else { continue };
            // Who lives has the account that it had when the step began.
            let account = model.sched.accounts.at_mut(row.account);
            account.charge(row.class, us, process.id.nice);
            account.use_up(self.now, us);
            process.id.counters.steps += u64::from(account.served != step.number);
            account.served = step.number;
            if process.serve(us) {
                self.used_up.insert(row.owner);
            }
            match groups.last_mut() {
                Some((of, sum)) if *of == (row.class, row.group) => *sum += us,
                _ => groups.push(((row.class, row.group), us)),
            }
        }
        for ((class, group), us) in groups {
            self.charge_groups(id, class, group, us);
        }
        let Some(model) = self.models.get_mut(&id) else { return };
        model.sched.settle_debts(step.backlog, charged, elapsed_us);
        if !model.sched.line.is_empty() {
            for row in &step.rows {
                self.stand_in_line(id, row.owner);
            }
        }
    }

    /// Charges a group and those around it.
    fn charge_groups(&mut self, id: ModelId, class: Class, group: GroupId, us: u64) {
        let Some(model) = self.models.get_mut(&id) else { return };
        for (group, _, weight) in self.groups.path(group) {
            let attained = model.sched.accounts.group_mut(class, group);
            let parts = us.saturating_mul(VIRTUAL_US * u64::from(GROUP_WEIGHT)) / u64::from(weight.max(1));
            attained.service = attained.service.saturating_add(parts);
        }
    }

    /// Takes the next token of a generation, if it is still the one that the row was of.
    fn accept(&mut self, model: ModelId, row: &RowSent, sampled: &mut Sampled) {
        let id = row.context;
        let context = self.contexts.get_mut(&id).filter(|c| c.generating() == Some(row.call));
        let (Some(context), Some(model)) = (context, self.models.get_mut(&model)) else { return };
        let Some(owner) = self.processes.living_mut(context.owner) else { return };
        context.extend(owner, &[sampled.token]);
        self.counters.tokens_generated += 1;
        model.counters.tokens_generated += 1;
        owner.count_token(self.now);
        if owner.limits.generated_tokens.is_some_and(|most| owner.id.counters.tokens_generated >= most) {
            self.used_up.insert(owner.id.pid);
        }
        self.groups.take_tokens(owner.id.group, self.now, 1);
        if model.description.as_ref().is_some_and(|d| d.drafts) {
            context.learn_to_draft();
        }
        if context.kept.is_some() {
            self.journal.grow(context, sampled);
        } else if owner.is_persistent() {
            self.journal.touch_process(owner.id.pid);
        }
        let room_left = owner.context_tokens_left() > 0;
        let token = sampled.token;
        let traced = owner.traced.then(|| (owner.id.pid, sampled.piece.clone()));
        let Some(Taken { told, finish, full }) = context.take_token(sampled, room_left, self.now) else {
            return;
        };
        if let Some((caller, text, logprobs)) = told {
            let tokens = TokenRun::from_elem(token, 1);
            self.tell_caller(caller, Event::Tokens { text, tokens, logprobs });
        }
        if let Some((pid, piece)) = traced {
            self.trace_token(pid, row.call, id, token, &piece);
        }
        match finish {
            Some(finish) => self.end_generation(id, finish),
            None if full => self.shorten(id),
            None => {}
        }
    }

    /// The step failed as a whole, which says nothing about what is in the pool now: the worker starts afresh.
    pub(in crate::core) fn step_failed(&mut self, worker: WorkerId, number: u64, fault: &str) {
        let Some(model) = self.live_model(worker) else { return };
        if model.in_flight.as_ref().is_some_and(|s| s.number == number) {
            self.worker_broken(worker, &format!("a step failed: {fault}"));
        }
    }
}

/// What each row weighs when the time of its step is shared out.
fn weights(cost: &Cost, decode: Decode, rows: &[RowSent]) -> Vec<u64> {
    let decode_weight = cost.decode_weights(decode);
    let weight = |row: &RowSent| match row.decodes() {
        true => decode_weight(row.position) * (1 + row.draft.len() as u64),
        false => cost.prefill_weight(row.position, row.tokens),
    };
    rows.iter().map(weight).collect()
}

/// The part of a time that a weight is of their total.
fn part(us: u64, weight: u64, total: u64) -> u64 {
    match us.checked_mul(weight) {
        Some(product) => product / total,
        None => (u128::from(us) * u128::from(weight) / u128::from(total)) as u64,
    }
}

impl Process {
    /// Counts a token, and takes it off its rate.
    fn count_token(&mut self, now: Now) {
        self.id.counters.tokens_generated += 1;
        if let Some(bucket) = &mut self.bucket {
            bucket.take(now, 1);
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
