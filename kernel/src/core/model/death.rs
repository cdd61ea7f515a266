//! What the death of a worker costs: one computation of each log, and nothing else, but for a call that kills
//! twice.
//!
//! Whatever was under way when a worker died is a suspect: the contexts of the step and the questions. Each
//! suspect then runs alone, so that a second death has one culprit (`culprit.rs` says what that costs it); the others are
//! cleared by their first token or answer. Deaths that are no user's slow the restarts down, and too many of them, in a row
//! or within ten minutes, end in [`State::Offline`].
//!
//! A worker that is killed because it hangs or talks nonsense keeps its memory until it has ended, which a device may
//! take a while for. So its pages count as lost at once, and its successor is started when it is gone. Nor does the model
//! go offline where the system is short of what a start, or the look at a file before it, takes: that is nobody's fault, and
//! is tried again until it works.

use drivers::wire::DriverFault;
use syscalls::event::WorkerChange;
use syscalls::{ContextId, Errno, Event, Fault};

use super::super::Kernel;
use super::super::device::Holder;
use super::super::effect::{Effect, Happening, LogLevel, Subject};
use super::super::event::{ModelId, Now, WorkerId};
use super::super::memory::{Resident, loading};
use super::super::sched::{InFlight, died_twice};
use super::{Model, State};

/// How long deaths count towards pauses, in microseconds.
const PAUSES_COUNT_US: u64 = 60_000_000;

/// How long they count towards the end of the restarting: ten minutes.
const DEATHS_COUNT_US: u64 = 600_000_000;

/// Deaths in a row that do not end it yet.
const DEATHS_IN_A_ROW_MAX: u32 = 5;

/// Pauses before the first, second, third and every further restart within a minute, in milliseconds. A single
/// crash costs nobody a pause; a worker that dies at once every time takes no more than a few starts a minute.
const PAUSES_MS: [u64; 4] = [0, 200, 1000, 5000];

/// Pauses before the first and every further try to look at a model or to start a worker that the system had no files,
/// threads or memory for. Long at the end, because loading a model only to find that it does not fit may cost a device seconds.
const SHORTAGE_PAUSES_MS: [u64; 4] = [200, 1000, 5000, 30_000];

/// How often a file is looked at again that the disk does not give: it is a moment's trouble of a network or a cable, or it
/// is for ever.
const DISK_TRIES_MAX: u32 = 5;

impl Kernel {
    /// The host says that a worker is gone.
    pub(in crate::core) fn worker_died(&mut self, worker: WorkerId, how: &str) {
        let awaited = self.models.get_mut(&worker.model).filter(|m| m.worker() == worker);
        let successor = awaited.and_then(|m| m.successor_delay_ms.take());
        if let Some(delay_ms) = successor.or_else(|| self.count_as_dead(worker, how)) {
            self.start_worker(worker.model, delay_ms);
        }
        self.devices.release(Holder::Leaving(worker));
    }

    /// A worker hangs or talks nonsense, so nothing that it has can be relied on: it is killed, and counts as dead at once.
    pub(in crate::core) fn worker_broken(&mut self, worker: WorkerId, why: &str) {
        self.out.push(Effect::KillWorker { worker });
        let delay_ms = self.count_as_dead(worker, why);
        if let Some(model) = self.models.get_mut(&worker.model) {
            model.successor_delay_ms = delay_ms;
        }
    }

    /// A worker could not be started, or not load its model, for want of files, threads or memory. It is tried again after
    /// its end, for as long as it takes, unless somebody waits for the mount and had better know.
    pub(in crate::core) fn worker_starved(&mut self, worker: WorkerId, fault: &DriverFault) {
        let Some(model) = self.live_model(worker) else { return };
        model.successor_delay_ms = Some(model.pause_of_shortage());
        if model.shortages == 1 {
            let line = format!(
                "no worker can be had for model {}: {}; trying again until one can",
                model.name, fault.message
            );
            self.out.push(Effect::Log(LogLevel::Warn, line));
        }
        // Others may have its place.
        self.devices.reconsider();
    }

    /// The file of a model could not be looked at. One that the machine was short of something for is looked at again for as
    /// long as it takes, and one that the disk did not give a few times, unless somebody waits for the mount and had better
    /// know. Gives whether it is.
    pub(in crate::core) fn inspect_again(&mut self, id: ModelId, fault: &DriverFault) -> bool {
        let Some(model) = self.models.get_mut(&id).filter(|m| !m.is_being_mounted()) else { return false };
        let tried_enough = model.shortages >= DISK_TRIES_MAX;
        if !(fault.is_shortage() || fault.errno == Errno::EIO && !tried_enough) {
            return false;
        }
        let delay_ms = model.pause_of_shortage();
        if model.shortages == 1 {
            let (name, why) = (&model.name, &fault.message);
            let line = format!("model {name} cannot be looked at now: {why}; trying again");
            self.out.push(Effect::Log(LogLevel::Warn, line));
        }
        self.inspect_model(id, delay_ms);
        true
    }

    /// A worker did what it was told.
    pub(in crate::core) fn worker_progressed(&mut self, id: ModelId) {
        let now = self.now;
        if let Some(model) = self.models.get_mut(&id) {
            model.deaths_in_a_row = 0;
            model.heard = now;
        }
    }

    /// Does what a worker's death costs. Gives the pause in milliseconds before the next one is started; none where the
    /// model is given up.
    fn count_as_dead(&mut self, worker: WorkerId, how: &str) -> Option<u64> {
        let model = self.live_model(worker)?;
        match model.state {
            // One that was loaded before has what a first one has not: contexts, perhaps.
            State::Loading if model.description.is_none() => {
                let message = format!("the worker died while it loaded the model: {how}");
                self.devices.leave(worker);
                self.cannot_load(worker.model, Fault::new(Errno::EIO, message));
                None
            }
            State::Loading | State::Ready | State::Restarting => self.lose_worker(worker, how),
            State::Offline(_) | State::Unloaded => None,
        }
    }

    fn lose_worker(&mut self, worker: WorkerId, how: &str) -> Option<u64> {
        let (now, id) = (self.now, worker.model);
        let model = self.models.get_mut(&id)?;
        model.state = State::Restarting;
        let step = model.in_flight.take();
        let rows = step.as_ref().map_or(vec![], |step| step.groups.clone());
        let questions_asked = model.questions.any_asked();
        let name = model.name.clone();
        let subject = Subject::of_model(&name, Happening::WorkerDied);
        let line = format!("the worker of model {name} died: {how}; restarting");
        self.out.push(Effect::LogAbout(LogLevel::Warn, subject, line));
        self.count_rows(&rows, -1);
        self.worker_changed(id, WorkerChange::Died, how);
        self.lose_pages(id);
        let asked = self.accuse_questions(id);
        let with_rows = step.iter().flat_map(|s| &s.rows).map(|r| r.context);
        let in_step: Vec<ContextId> = with_rows.chain(step.iter().flat_map(|s| loading(&s.pages))).collect();
        let charged = asked.or(self.accuse_contexts(id, step, questions_asked));
        // Calls that waited for the step to be over.
        in_step.into_iter().for_each(|context| self.advance(context));
        if self.is_evacuated_by_death(id) {
            return None;
        }
        let model = self.models.get_mut(&id)?;
        if charged.is_none() {
            model.culprits.begin();
        }
        let delay_ms = if charged == Some(true) { 0 } else { model.count_death(now) };
        if let Some(often) = model.dies_too_often(self.config.worker_deaths_max) {
            model.incarnation += 1;
            self.devices.leave(worker);
            self.take_offline(id, format!("its worker died {often}, last: {how}"));
            return None;
        }
        model.counters.worker_restarts += 1;
        self.counters.worker_restarts += 1;
        Some(delay_ms)
    }

    /// Everything that was in the pool of a worker that is gone is lost; the logs are not.
    pub(in crate::core) fn lose_pages(&mut self, id: ModelId) {
        let Some(model) = self.models.get(&id) else { return };
        let on_it =
            model.contexts.iter().filter(|c| self.contexts.get(c).is_some_and(|c| c.resident.is_some()));
        let resident: Vec<ContextId> = on_it.copied().collect();
        self.forget_unwritten(id);
        self.lend_to_computing(id, Default::default());
        let Some(model) = self.models.get_mut(&id) else { return };
        model.tree.forget_pool();
        for context in &resident {
            let computed = self.contexts.get(context).map_or(0, |c| c.computed());
            let call = self.contexts.get_mut(context).and_then(|c| {
                c.in_step = false;
                c.resident.iter_mut().for_each(Resident::forget_nodes);
                c.generating()
            });
            self.release_pages(*context);
            if let Some(call) = call.filter(|_| computed > 0) {
                self.report(call, Event::Replaying { tokens: computed });
            }
        }
        let Some(model) = self.models.get_mut(&id) else { return };
        if let Some(mut memory) = model.memory.take() {
            memory.forget_remnants();
            memory.pool.check(0);
            memory.asids.check(0);
        }
        model.ops.clear();
        model.sched.forget_pool();
    }

    /// Gives whether the deaths are charged to somebody, where a question was found to have caused them.
    fn accuse_questions(&mut self, id: ModelId) -> Option<bool> {
        let (call, context) = self.models.get_mut(&id)?.questions.worker_died()?;
        let verdict = self.convict(id, self.calls.get(call).map(|pending| pending.pid));
        let message = format!("the worker died twice of this call; try another text{}", verdict.sentence);
        self.fail_question(call, context, &Fault::new(Errno::EIO, message));
        Some(verdict.charged)
    }

    /// Gives whether the deaths are charged to somebody, where a context was found to have caused them.
    fn accuse_contexts(
        &mut self,
        id: ModelId,
        step: Option<InFlight>,
        questions_asked: bool,
    ) -> Option<bool> {
        let step = step?;
        let model = self.models.get_mut(&id)?;
        if let ([row], false) = (step.rows.as_slice(), questions_asked)
            && model.suspects.remove(&row.context)
        {
            return self.condemn(id, row.context);
        }
        let alive = step.rows.iter().map(|r| r.context).filter(|c| self.contexts.contains_key(c));
        let accused: Vec<ContextId> = alive.collect();
        // A generation that ended while its row was under way has nothing to run again.
        let accused =
            accused.into_iter().filter(|c| self.contexts.get(c).is_some_and(|c| c.generation.is_some()));
        model.suspects.extend(accused);
        None
    }

    /// A context has killed two workers, the second one alone.
    fn condemn(&mut self, model: ModelId, id: ContextId) -> Option<bool> {
        let context = self.contexts.get_mut(&id)?;
        let (owner, length) = (context.owner, context.length());
        context.condemned = Some(length);
        self.touch(id);
        let verdict = self.convict(model, Some(owner));
        let mut fault = died_twice(id, length);
        fault.message.push_str(&verdict.sentence);
        self.fail_generation(id, fault);
        Some(verdict.charged)
    }
}

impl Model {
    /// Counts a shortage, and tells the pause before the next try in milliseconds.
    fn pause_of_shortage(&mut self) -> u64 {
        let pause = (self.shortages as usize).min(SHORTAGE_PAUSES_MS.len() - 1);
        self.shortages += 1;
        SHORTAGE_PAUSES_MS[pause]
    }

    /// The last death that was counted turns out to be a user's.
    pub(super) fn uncount_death(&mut self) {
        self.deaths_in_a_row = 0;
        self.deaths.pop();
    }

    /// How often it has died, if that was too often.
    fn dies_too_often(&self, deaths_max: usize) -> Option<String> {
        let (in_a_row, all) = (self.deaths_in_a_row, self.deaths.len());
        if in_a_row > DEATHS_IN_A_ROW_MAX {
            return Some(format!("{in_a_row} times in a row; {DEATHS_IN_A_ROW_MAX} are the limit"));
        }
        let minutes = DEATHS_COUNT_US / 60_000_000;
        (all > deaths_max)
            .then(|| format!("{all} times within {minutes} minutes; {deaths_max} are the limit"))
    }

    /// Counts a death, and tells the pause before the next start in milliseconds.
    fn count_death(&mut self, now: Now) -> u64 {
        self.deaths_in_a_row += 1;
        self.deaths.retain(|at| now.0.saturating_sub(at.0) < DEATHS_COUNT_US);
        self.deaths.push(now);
        let lately = |at: &&Now| now.0.saturating_sub(at.0) < PAUSES_COUNT_US;
        let lately = self.deaths.iter().filter(lately).count();
        PAUSES_MS[lately.min(PAUSES_MS.len()) - 1]
    }
}
