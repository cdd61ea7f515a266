//! Turns of models that are all busy, on devices without room for all of them.
//!
//! A model that never rests is evacuated for nobody who waits (`evacuate.rs`), so contexts of another one could wait for
//! ever. Once these have waited for as long as a turn of their model lasts, models that have had their turns give their
//! memory although they run, the one that has had it longest first: the step that runs comes to its end, and so do the
//! questions that the worker has; pages are saved, and generations stand in line until it is the turn of their model
//! again. Of those that wait, the model that has waited longest is next, so nobody starves.
//!
//! A turn is long against loading, which is lost time. Nobody who can be told to come again has others forced out: a
//! mount, an `open` and a question without a context are refused while others run, as ever, but questions to a model that
//! was forced out itself wait for its turn, or callers that it had all the time would fail.

use super::super::Kernel;
use super::super::event::{ModelId, Now};
use super::super::model::Model;

/// Times that a model takes to load, for which its turn lasts at least. Models that take turns are loaded for one part in
/// nine of the time at most, and whoever waits for a model that takes 5 s to load waits no longer than is usual for a
/// batch job; with twice as many they would gain another twentieth of the time, and everybody would wait twice as long.
const TURN_LOADS: u64 = 8;

/// The least that a turn lasts, in microseconds, where loading takes next to nothing or has not been measured yet: pages
/// are saved and loaded as well, or computed again, which may take a second for each long context.
const TURN_US_MIN: u64 = 5_000_000;

impl Model {
    /// How long it may run before another one is loaded in its place, and others before it is.
    fn turn_us(&self) -> u64 {
        self.load_us.saturating_mul(TURN_LOADS).max(TURN_US_MIN)
    }

    /// When its turn is over, if it has one. One that no worker can be had for has its turn, too, and makes nothing of it.
    fn turn_ends_at(&self) -> Option<Now> {
        let has = self.is_settled() && self.evacuate.is_none();
        has.then(|| Now(self.turn_since.0.saturating_add(self.turn_us())))
    }

    /// When somebody has waited for it for so long that others are forced out, if somebody waits.
    fn due_at(&self) -> Option<Now> {
        self.waits_since.map(|since| Now(since.0.saturating_add(self.turn_us())))
    }
}

impl Kernel {
    /// Models that can be forced out for one that it is the turn of, the one that has had its turn longest first; none
    /// where it is not.
    pub(super) fn turns_over_for(&self, id: ModelId) -> Vec<ModelId> {
        let over = |at: Option<Now>| at.is_some_and(|at| at <= self.now);
        if !self.models.get(&id).is_some_and(|m| over(m.due_at())) {
            return Vec::new();
        }
        let others = self.models.values().filter(|m| m.id != id && over(m.turn_ends_at()));
        let mut others: Vec<_> = others.map(|m| (m.turn_since, m.id)).collect();
        others.sort_unstable();
        others.into_iter().map(|(_, id)| id).collect()
    }

    /// Has those in line looked at again when the next one has rested long enough that has not yet, or the next turn is
    /// over that somebody waits for.
    pub(super) fn look_again_later(&mut self) {
        let now = self.now;
        let due: Vec<Now> = self.models.values().filter_map(Model::due_at).collect();
        let ends = self.models.values().filter(|_| !due.is_empty()).filter_map(Model::turn_ends_at);
        let resting = self.models.values().filter_map(Model::may_leave_at);
        self.devices.look_again = due.iter().copied().chain(ends).chain(resting).filter(|at| *at > now).min();
    }
}
