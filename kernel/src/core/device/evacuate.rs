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
//! no more of the time than resting.

use super::super::Kernel;
use super::super::effect::{Effect, LogLevel};
use super::super::event::{ModelId, Now};
use super::super::memory::loading;
use super::super::model::{Model, State};

impl Kernel {
    /// Has a model unloaded that rests, when its pool is empty.
    pub(super) fn evacuate(&mut self, id: ModelId) {
        if let Some(model) = self.models.get_mut(&id) {
            model.evacuate = true;
        }
    }

    /// Empties the pool of a model that is to be evacuated and asks for what saves its pages; where there is nothing to
    /// save, or no longer, unloads it. False where there is no such step.
    pub(in crate::core) fn begin_evacuation(&mut self, id: ModelId) -> bool {
        let Some(model) = self.models.get_mut(&id).filter(|m| m.evacuate) else { return false };
        if !model.rests() {
            model.evacuate = false;
            self.devices.reconsider();
            return false;
        }
        // Pages that are on their way in come first.
        if !loading(&model.page_ops).is_empty() {
            return false;
        }
        self.empty_pool(id);
        let saves = self.models.get(&id).is_some_and(|m| !m.page_ops.is_empty());
        if !saves {
            self.unload(id);
        }
        saves
    }

    /// Lets a model whose worker has died stay without one, if it was being evacuated and nobody waits for it.
    pub(in crate::core) fn is_evacuated_by_death(&mut self, id: ModelId) -> bool {
        let Some(model) = self.models.get_mut(&id) else { return false };
        if !std::mem::take(&mut model.evacuate) || !model.has_nothing_to_do() {
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
        model.evacuate = false;
        // What its worker still says is not heard.
        model.incarnation += 1;
        model.worker_os_pid = 0;
        let rest = match model.contexts.len() {
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

    /// Has those in line looked at again when the next one has rested long enough that has not yet.
    pub(super) fn look_when_others_rested(&mut self) {
        let now = self.now;
        let resting = self.models.values().filter_map(Model::may_leave_at);
        self.devices.look_again = resting.filter(|at| *at > now).min();
    }

    /// Lets others have the memory of a model that has come to rest.
    pub(in crate::core) fn note_rest(&mut self, id: ModelId) {
        if self.models.get(&id).is_some_and(Model::has_nothing_to_do) {
            self.devices.reconsider();
        }
    }
}

impl Model {
    /// Whether none of its contexts has anything to run and nobody waits for its worker, which has nothing to do.
    pub(super) fn rests(&self) -> bool {
        self.is_ready() && self.in_flight.is_none() && self.has_nothing_to_do()
    }

    /// Whether nobody waits for it, or for its worker when it has one.
    pub(in crate::core) fn has_nothing_to_do(&self) -> bool {
        self.waiters.is_empty()
            && !self.questions.any()
            && self.sched.running.len() == 0
            && self.sched.line.is_empty()
    }

    /// From when on it may be evacuated, if it has contexts and rests until then.
    fn may_leave_at(&self) -> Option<Now> {
        let can = self.rests() && !self.contexts.is_empty() && !self.evacuate;
        can.then(|| Now(self.last_use.0.saturating_add(self.load_us)))
    }
}
