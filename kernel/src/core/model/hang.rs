//! Workers that hang: one that has something to do and says nothing for too long is stopped, and counts as dead.
//!
//! A step is planned to take no longer than `step_us_max`, so one that takes `worker_patience_ms` does not come to its
//! end. Loading a file and embedding many texts may take longer, and get more. Whoever looks at the clock for that does
//! it seldom, so that steps hardly ever move an alarm: a hang is found an eighth of a step's patience later at most.

use super::super::Kernel;
use super::super::event::{ModelId, Now};
use super::{Model, State};

/// How much longer than a step a file may take to load without a word, and a question to answer.
const QUIET_FACTOR: u64 = 5;

/// Looks at the clock within the patience with a step.
const LOOKS: u64 = 8;

impl Model {
    /// When its worker counts as hung, if it says nothing until then.
    fn hung_at(&self, patience_us: u64) -> Option<Now> {
        let quiet = Now(self.heard.0.saturating_add(patience_us.saturating_mul(QUIET_FACTOR)));
        if self.successor_delay_ms.is_some() {
            return None;
        }
        match (&self.in_flight, &self.state) {
            (Some(step), _) => Some(Now(step.since.0.saturating_add(patience_us))),
            (None, State::Loading | State::Restarting) => self.placement.map(|_| quiet),
            (None, State::Ready) => self.questions.any_asked().then_some(quiet),
            (None, State::Offline(_) | State::Unloaded) => None,
        }
    }
}

impl Kernel {
    /// Stops the workers that hang.
    pub(in crate::core) fn stop_hung_workers(&mut self) {
        let patience_us = self.patience_us();
        let hangs = |m: &&Model| m.hung_at(patience_us).is_some_and(|at| at <= self.now);
        let hung: Vec<ModelId> = self.models.values().filter(hangs).map(|m| m.id).collect();
        for id in hung {
            let Some(model) = self.models.get(&id) else { continue };
            let quiet_ms = self.now.0.saturating_sub(model.heard.0) / 1000;
            let worker = model.worker();
            self.worker_broken(worker, &format!("it said nothing for {quiet_ms} ms, and counts as hung"));
        }
    }

    /// When to look for the next one that hangs.
    pub(in crate::core) fn next_look_for_hung(&self) -> Option<Now> {
        let patience_us = self.patience_us();
        let first = self.models.values().filter_map(|m| m.hung_at(patience_us)).min()?;
        let every_us = (patience_us / LOOKS).max(1);
        Some(Now((first.0 / every_us + 1).saturating_mul(every_us)))
    }

    fn patience_us(&self) -> u64 {
        self.config.worker_patience_ms.saturating_mul(1000).max(1)
    }
}
