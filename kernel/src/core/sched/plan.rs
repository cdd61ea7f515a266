//! The plan of a step: who has memory, who decodes, whose prompt gets on.

use std::collections::{BTreeMap, BTreeSet};

use syscalls::call::Class;
use syscalls::{ContextId, Pid};

use super::super::Kernel;
use super::super::event::ModelId;
use super::super::memory::{Outlook, PageIn, Reach, Room};
use super::fair::stride;
use super::{Cost, RowSent, Sched};

/// Generations in line that are looked at before a step; more would make the step wait.
const ADMISSIONS_LOOKED_AT: usize = 32;

/// All classes, highest first.
const CLASSES: [Class; 4] = [Class::Realtime, Class::Interactive, Class::Normal, Class::Batch];

/// A context that can have a row.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    class: Class,
    service: u64,
    pace: u64,
    nice: i8,
    owner: Pid,
    context: ContextId,
    remaining: u32,
}

impl Kernel {
    /// The rows of the next step of a model.
    pub(super) fn plan(&mut self, model: ModelId) -> Vec<RowSent> {
        let held_back = self.grow_running(model);
        if let Some(model) = self.models.get_mut(&model) {
            model.sched.held_back = held_back;
        }
        self.admit_waiting(model);
        let waits = self.page_in_running(model);
        let mut candidates = self.candidates(model, &waits);
        candidates.sort_by_key(|c| (c.class, c.service, c.owner, c.context));
        let mut rows = self.decode_rows(model, &candidates);
        self.add_prefill(model, &candidates, &mut rows);
        rows
    }

    /// The row of one suspect alone: a context that was in the step in which a worker died.
    pub(super) fn plan_suspect(&mut self, model: ModelId) -> Option<Vec<RowSent>> {
        let suspects: Vec<ContextId> = self.models.get(&model)?.suspects.iter().copied().collect();
        for id in suspects {
            if self.contexts.get(&id).is_none_or(|c| !c.place.runs()) {
                continue;
            }
            let resident = self.contexts.get(&id).is_some_and(|c| c.resident.is_some());
            let room = if resident { self.grow(id, Reach::Juniors) } else { self.admit(id, None) };
            if matches!(room, Room::Made) {
                if self.prefills(id) && self.page_in(id, false) == PageIn::Loads {
                    return Some(vec![]);
                }
                let batch = self.models.get(&model).map_or(1, |m| m.batch_tokens());
                return self.row(id, batch).map(|row| vec![row]);
            }
        }
        None
    }

    /// Gives running contexts the frames for what came to their logs, the first ones first. Those that must wait
    /// are named.
    fn grow_running(&mut self, model: ModelId) -> BTreeSet<ContextId> {
        let Some(sched) = self.models.get(&model).map(|m| &m.sched) else { return BTreeSet::new() };
        let mut running: Vec<_> = sched.running().filter_map(|c| Some((self.seniority(c)?, c))).collect();
        running.sort();
        let before = running.len();
        let mut waits = BTreeSet::new();
        for (_, id) in running {
            // One before it may have taken its pages in the meantime.
            if self.contexts.get(&id).is_none_or(|c| c.resident.is_none()) {
                continue;
            }
            match self.grow(id, Reach::Juniors) {
                Room::Made => {}
                Room::Wait => drop(waits.insert(id)),
                Room::Never(fault) => self.fail_generation(id, fault),
            }
        }
        if let Some(model) = self.models.get_mut(&model) {
            model.sched.full |= model.sched.running().count() < before;
        }
        waits
    }

    /// Brings generations that wait into memory, as far as there is room.
    fn admit_waiting(&mut self, model: ModelId) {
        let mut passed = BTreeSet::new();
        while passed.len() < ADMISSIONS_LOOKED_AT {
            let Some(sched) = self.models.get(&model).map(|m| &m.sched) else { return };
            let Some(first) = sched.line.first_but(&passed) else { return };
            if sched.full && !self.outranks_running(model, first) {
                return;
            }
            let share = match self.outlook(first) {
                Outlook::Wait => {
                    passed.insert(first);
                    continue;
                }
                Outlook::Share(share) => share,
            };
            match self.admit(first, share) {
                Room::Made => {}
                Room::Wait => return,
                Room::Never(fault) => self.fail_generation(first, fault),
            }
        }
    }

    /// Whether a context that waits is of a higher class than some context that runs, or nobody runs.
    fn outranks_running(&self, model: ModelId, id: ContextId) -> bool {
        let Some(sched) = self.models.get(&model).map(|m| &m.sched) else { return false };
        let lowest = sched.running().filter_map(|c| self.seniority(c)).map(|(class, _)| class).max();
        let own = self.seniority(id).map(|(class, _)| class);
        lowest.is_none_or(|lowest| own.is_some_and(|own| own < lowest))
    }

    /// Has pages brought in for the running contexts that have a prompt, and tells which of them have no row.
    fn page_in_running(&mut self, model_id: ModelId) -> BTreeSet<ContextId> {
        let Some(model) = self.models.get(&model_id) else { return BTreeSet::new() };
        let goes_on = |c: &ContextId| !model.sched.held_back.contains(c) && !model.suspects.contains(c);
        let prefilling: Vec<_> = model.sched.running().filter(|c| goes_on(c) && self.prefills(*c)).collect();
        prefilling.into_iter().filter(|id| self.page_in(*id, true) != PageIn::Ready).collect()
    }

    fn prefills(&self, id: ContextId) -> bool {
        self.contexts.get(&id).is_some_and(|c| c.prefills())
    }

    fn candidates(&self, model: ModelId, waits: &BTreeSet<ContextId>) -> Vec<Candidate> {
        let Some(model) = self.models.get(&model) else { return vec![] };
        let held_back = &model.sched.held_back;
        let running = model.sched.running().filter(|c| !held_back.contains(c) && !model.suspects.contains(c));
        let running = running.filter(|c| !waits.contains(c));
        let candidate = |id: ContextId| {
            let context = self.contexts.get(&id)?;
            let identity = &self.processes.living(context.owner)?.id;
            let (class, nice) = (identity.class, identity.nice);
            let fair = model.sched.attained(context.owner);
            let (service, pace) = (fair.service, fair.pace);
            let (owner, remaining) = (context.owner, context.remaining());
            Some(Candidate { class, service, pace, nice, owner, context: id, remaining })
        };
        running.filter_map(candidate).collect()
    }

    /// A row for each context that lacks one token, as far as pace and class allow.
    fn decode_rows(&mut self, model: ModelId, candidates: &[Candidate]) -> Vec<RowSent> {
        let Some(model) = self.models.get_mut(&model) else { return vec![] };
        let decoding: Vec<Candidate> = candidates.iter().filter(|c| c.remaining == 1).copied().collect();
        let clocks = CLASSES.map(|class| model.sched.advance_pace(class, &decoding));
        let on_time = decoding.into_iter().filter(|c| c.pace <= clocks[c.class as usize]);
        let (batch, others): (Vec<_>, Vec<_>) = on_time.partition(|c| c.class == Class::Batch);
        let room = model.batch_tokens() as usize;
        let spare = match others.len() {
            0 => room,
            n => batch_rows_beside(&model.sched.cost, n as u32, batch.len() as u32) as usize,
        };
        let chosen: Vec<_> = others.into_iter().chain(batch.into_iter().take(spare)).take(room).collect();
        let owners: BTreeMap<Pid, (Class, i8)> =
            chosen.iter().map(|c| (c.owner, (c.class, c.nice))).collect();
        for (owner, (class, nice)) in owners {
            model.sched.fair.entry(owner).or_default().take_step(clocks[class as usize], nice);
        }
        chosen.iter().filter_map(|c| self.row(c.context, 1)).collect()
    }

    /// Fills what the step can take beside the rows that decode with chunks of prompts.
    fn add_prefill(&self, model: ModelId, candidates: &[Candidate], rows: &mut Vec<RowSent>) {
        let Some(model) = self.models.get(&model) else { return };
        let decoding = rows.len() as u32;
        let room = model.batch_tokens() - decoding;
        let (least, step_us_max) = (self.config.prefill_tokens_min, self.config.step_us_max);
        let mut budget = model.sched.cost.prefill_budget(decoding, least, room, step_us_max);
        for c in candidates.iter().filter(|c| c.remaining > 1) {
            if budget == 0 {
                return;
            }
            let Some(row) = self.row(c.context, budget) else { continue };
            budget -= row.tokens;
            rows.push(row);
        }
    }

    /// The next row of a running context, of at most `most` tokens.
    fn row(&self, id: ContextId, most: u32) -> Option<RowSent> {
        let context = self.contexts.get(&id)?;
        let generation = context.generation.as_ref()?;
        let (call, prompt) = (generation.call, generation.start);
        let class = self.processes.living(context.owner)?.id.class;
        let tokens = context.remaining().min(most);
        let (owner, position) = (context.owner, context.computed());
        let sample = tokens > 0 && tokens == context.remaining();
        (tokens > 0).then_some(RowSent { context: id, owner, class, call, prompt, position, tokens, sample })
    }
}

impl Sched {
    /// Moves the pace of a class on by a step of its heaviest process that decodes, and at least so far that one
    /// of them is on time.
    fn advance_pace(&mut self, class: Class, decoding: &[Candidate]) -> u64 {
        let members = || decoding.iter().filter(|c| c.class == class);
        let clock = &mut self.clock(class).pace;
        if let (Some(step), Some(least)) =
            (members().map(|c| stride(c.nice)).min(), members().map(|c| c.pace).min())
        {
            *clock = least.max(*clock + step);
        }
        *clock
    }
}

/// Rows of the class `batch` that are not expected to make a step of the others a quarter longer.
fn batch_rows_beside(cost: &Cost, others: u32, wanted: u32) -> u32 {
    let Some(alone) = cost.decode_us(others) else { return wanted };
    let fits = |n: &u32| cost.decode_us(others + n).is_none_or(|us| us <= alone + alone / 4);
    (1..=wanted).take_while(fits).last().unwrap_or(0)
}
