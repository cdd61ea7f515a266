//! Models that are wanted and have no room: those that contexts from an earlier daemon sleep for, and those that gave
//! their memory to others and whose contexts go on.
//!
//! Nobody makes a call that could be refused for such a model: whoever waits for it made his with the last daemon, has
//! only just come back to his contexts, or had his context before. So its place is looked for again whenever memory is
//! given back, or somebody could give more of his.

use syscalls::ContextId;

use super::super::Kernel;
use super::super::event::ModelId;
use super::super::image::ContextImage;
use super::super::model::{Model, State};

impl Kernel {
    /// Whether somebody waits for a model to be loaded.
    pub(super) fn is_wanted(&self, model: &Model) -> bool {
        model.is_wanted() || self.sleepers(model).any(|image| self.is_waited_for(image))
    }

    /// Puts those in line for which there may be a place now, the one that has waited longest first.
    pub(super) fn call_up_wanted(&mut self) {
        let unloaded = self.models.values().filter(|m| m.state == State::Unloaded);
        let unloaded: Vec<ModelId> = unloaded.map(|m| m.id).collect();
        unloaded.into_iter().for_each(|id| self.note_whether_wanted(id));
        let since = |m: &Model| Some((m.waits_since.filter(|_| m.state == State::Unloaded)?, m.id));
        let mut waiting: Vec<_> = self.models.values().filter_map(since).collect();
        waiting.sort_unstable();
        for (_, id) in waiting {
            if !self.models.get(&id).is_some_and(|m| self.may_fit(m)) {
                self.look_again_later();
            } else if let Some(model) = self.models.get_mut(&id) {
                model.state = State::Loading;
                self.devices.line.push_back(id);
            }
        }
    }

    /// Notes since when somebody waits for a model that is not loaded, or that nobody does.
    pub(super) fn note_whether_wanted(&mut self, id: ModelId) {
        let wanted = self.models.get(&id).is_some_and(|m| self.is_wanted(m));
        let Some(model) = self.models.get_mut(&id) else { return };
        model.waits_since = wanted.then(|| model.waits_since.unwrap_or(self.now));
    }

    /// The tokens of the largest context that sleeps for a model: in a smaller pool it could not go on.
    pub(super) fn sleepers_tokens_max(&self, model: &Model) -> u32 {
        self.sleepers(model).map(|image| image.tokens_max).max().unwrap_or(0)
    }

    /// Fails the calls on contexts that sleep for a model which cannot be had.
    pub(in crate::core) fn fail_sleepers(&mut self, id: ModelId, fault: &syscalls::Fault) {
        let Some(model) = self.models.get(&id) else { return };
        let sleepers: Vec<ContextId> = self.sleepers(model).map(|image| image.id).collect();
        sleepers.into_iter().for_each(|context| self.fail_asleep(context, fault));
    }

    /// The contexts that wake when a model is loaded. Those that sleep on when it has been cannot use it.
    fn sleepers(&self, model: &Model) -> impl Iterator<Item = &ContextImage> {
        let all = model.description.is_none().then(|| self.asleep.values());
        all.into_iter().flatten().filter(move |image| image.model == model.name)
    }

    /// Whether a context has calls in line, or a program to make some.
    fn is_waited_for(&self, image: &ContextImage) -> bool {
        !image.queue.is_empty() || self.processes.living(image.owner).is_some_and(|p| p.conn.is_some())
    }

    fn may_fit(&self, model: &Model) -> bool {
        let Some(estimate) = model.estimate.clone() else { return false };
        let Ok(wish) = self.wish(model, &estimate) else { return false };
        wish.fits_at_least(&self.free_soon()) || self.room_for(model.id, &wish, self.now).is_some()
    }
}
