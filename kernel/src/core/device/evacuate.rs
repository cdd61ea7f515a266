//! Unloading a model that has contexts, while none of them has anything to run.
//!
//! As before a change of its size (`shrink.rs`), all pages leave the pool: those that are worth it are saved in slots,
//! which outlive the worker, and the rest is computed again from the logs. Then the model is unloaded like one without
//! contexts, and these stay as they are. The first generation on one of them has it loaded again, when others rest in
//! their turn. Nobody fails for it: what waits for a model that was loaded before waits until there is room. Whoever
//! begins something before the pool is empty calls the evacuation off, and his pages are loaded.
//!
//! A model that has just been used may be used again at once, and two whose programs take turns would be loaded again and
//! again. So one is evacuated only when it has rested for as long as it takes to load, by its last start: loading takes
//! no more of the time than resting. One that never rests is *forced out* when it has had its turn and contexts of another
//! one have waited long enough for theirs (`turns.rs`): nothing calls that off but the end of the waiting, and its
//! generations wait for their pages as those that were pushed out of a pool do.

use super::super::Kernel;
use super::super::effect::{Effect, LogLevel};
use super::super::event::{ModelId, Now};
use super::super::memory::loading;
use super::super::model::{Model, State};

/// How a model that has contexts gives its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) enum Evacuation {
    /// If its contexts rest until its pool is empty.
    WhileItRests,
    /// Whatever they do: it has had its turn.
    ByForce,
}

/// What the evacuation of a model comes to, when its worker has no step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) enum Leaving {
    /// It stays for now, and has steps as ever.
    Stays,
    /// Its worker answers first what it was asked.
    Answers,
    /// A step with nothing but operations on pages is due.
    Pages,
    /// It is unloaded.
    Gone,
}

impl Kernel {
    /// Has a model unloaded when its pool is empty, and at once where it has none for want of a worker.
    pub(super) fn evacuate(&mut self, id: ModelId, how: Evacuation) {
        let Some(model) = self.models.get_mut(&id) else { return };
        model.evacuate = Some(how);
        if model.is_starved() {
            self.unload(id);
        }
    }

    /// Empties the pool of a model that is to be evacuated and asks for what saves its pages; where there is nothing to
    /// save, or no longer, unloads it.
    pub(in crate::core) fn begin_evacuation(&mut self, id: ModelId) -> Leaving {
        let Some(model) = self.models.get(&id) else { return Leaving::Stays };
        let goes_on = match model.evacuate {
            None => return Leaving::Stays,
            Some(Evacuation::WhileItRests) => model.rests(),
            Some(Evacuation::ByForce) => self.is_memory_waited_for(),
        };
        if !goes_on {
            self.models.get_mut(&id).into_iter().for_each(|model| model.evacuate = None);
            self.devices.reconsider();
            return Leaving::Stays;
        }
        if model.questions.any_asked() {
            return Leaving::Answers;
        }
        // Pages that are on their way in come first.
        if !loading(&model.page_ops).is_empty() {
            return Leaving::Pages;
        }
        self.empty_pool(id);
        if self.models.get(&id).is_some_and(|m| !m.page_ops.is_empty()) {
            return Leaving::Pages;
        }
        self.unload(id);
        Leaving::Gone
    }

    /// Whether contexts still wait for one of the models in line.
    fn is_memory_waited_for(&self) -> bool {
        let mut waiting = self.devices.line.iter().filter_map(|id| self.models.get(id));
        waiting.any(|model| model.waits_since.is_some() && self.is_wanted(model))
    }

    /// Lets a model whose worker has died stay without one, if it was being evacuated and nobody waits for it, or it was
    /// being forced out.
    pub(in crate::core) fn is_evacuated_by_death(&mut self, id: ModelId) -> bool {
        let Some(model) = self.models.get_mut(&id) else { return false };
        let leaves = match model.evacuate {
            None => false,
            Some(Evacuation::WhileItRests) => model.has_nothing_to_do(),
            Some(Evacuation::ByForce) => true,
        };
        if !leaves {
            model.evacuate = None;
            return false;
        }
        let worker = model.worker();
        self.devices.leave(worker);
        self.forget_worker(id);
        true
    }

    /// Takes the memory of a model that has nothing to run. It stays mounted.
    pub(super) fn unload(&mut self, id: ModelId) {
        let Some(model) = self.models.get(&id) else { return };
        let worker = model.worker();
        self.devices.leave(worker);
        self.out.push(Effect::StopWorker { worker });
        self.forget_worker(id);
    }

    fn forget_worker(&mut self, id: ModelId) {
        let Some(model) = self.models.get_mut(&id) else { return };
        model.state = State::Unloaded;
        model.placement = None;
        model.resize = None;
        model.forced_out = model.evacuate.take() == Some(Evacuation::ByForce);
        // What its worker still says is not heard, and none comes after it.
        model.incarnation += 1;
        model.worker_os_pid = 0;
        model.successor_delay_ms = None;
        let rest = match model.contexts.len() {
            _ if model.forced_out => {
                ": it has had its turn, and what runs on it waits for the next one".into()
            }
            0 => String::new(),
            n => format!(", and its {n} contexts rest"),
        };
        let message = format!("model {} is unloaded: another one needs its memory{rest}", model.name);
        self.lose_pages(id);
        self.out.push(Effect::Log(LogLevel::Info, message));
    }

    /// Models that have contexts and have rested long enough by a time, the one that was used longest ago first.
    pub(super) fn resting_models(&self, but: ModelId, by: Now) -> Vec<ModelId> {
        let can = |m: &&Model| m.id != but && m.may_leave_at().is_some_and(|at| at <= by);
        let mut resting: Vec<_> = self.models.values().filter(can).map(|m| (m.last_use, m.id)).collect();
        resting.sort_unstable();
        resting.into_iter().map(|(_, id)| id).collect()
    }

    /// Lets others have the memory of a model that has come to rest.
    pub(in crate::core) fn note_rest(&mut self, id: ModelId) {
        if self.models.get(&id).is_some_and(Model::has_nothing_to_do) {
            self.devices.reconsider();
        }
    }
}

impl Model {
    /// Whether it gives its memory whatever runs on it, so that nothing begins there any more.
    pub(in crate::core) fn is_forced_out(&self) -> bool {
        self.evacuate == Some(Evacuation::ByForce)
    }

    /// Whether none of its contexts has anything to run and nobody waits for its worker, which has nothing to do or cannot
    /// be had.
    pub(super) fn rests(&self) -> bool {
        self.is_settled() && self.in_flight.is_none() && self.has_nothing_to_do()
    }

    /// Whether nobody waits for it, or for its worker when it has one.
    pub(in crate::core) fn has_nothing_to_do(&self) -> bool {
        self.waiters.is_empty()
            && !self.questions.any()
            && self.sched.running.len() == 0
            && self.sched.line.is_empty()
    }

    /// From when on it may be evacuated, if it has contexts and rests until then.
    pub(super) fn may_leave_at(&self) -> Option<Now> {
        let can = self.rests() && !self.contexts.is_empty() && self.evacuate.is_none();
        can.then(|| Now(self.last_use.0.saturating_add(self.load_us)))
    }
}
