//! The end of the daemon: what outlives it is written, calls are answered, workers are told to stop.
//!
//! The images of processes are written at once. Pages take time: as long as workers have some to write, and until
//! [`KernelConfig::save_at_end_ms`] have passed, the kernel is *ending*: steps do nothing else, and programs are not
//! heard any more.
//!
//! [`KernelConfig::save_at_end_ms`]: super::KernelConfig::save_at_end_ms

use std::collections::BTreeSet;

use syscalls::{Errno, Fault};

use super::Kernel;
use super::effect::Effect;
use super::event::{Event, ModelId, Now};
use super::memory::Beside;

/// What is still to be done.
#[derive(Debug)]
pub(super) struct Ending {
    /// When it ends in any case.
    pub until: Now,
    /// Models that have pages to write.
    writing: BTreeSet<ModelId>,
}

impl Kernel {
    /// Ends everything, at once or when pages are written.
    pub(super) fn terminate(&mut self) {
        self.checkpoint_for_the_end();
        let fault = Fault::new(Errno::ECANCELED, "the daemon is going away");
        for call in self.calls.numbers().into_iter().rev() {
            self.cancel_call(call, &fault);
        }
        let models: Vec<ModelId> = self.models.keys().copied().collect();
        let writing = models.into_iter().filter(|id| self.has_pages_to_write(*id)).collect();
        let until = Now(self.now.0.saturating_add(self.config.save_at_end_ms.saturating_mul(1000)));
        self.stop_steps(&writing);
        self.ending = Some(Ending { until, writing });
        self.go_on_ending();
    }

    /// Takes in what workers say while the kernel is ending.
    pub(super) fn take_in_at_the_end(&mut self, event: Event) {
        match event {
            Event::StepDone { worker, done } => self.step_done(worker, done),
            Event::StepFailed { worker, .. } | Event::WorkerDied { worker, .. } => {
                if let Some(ending) = &mut self.ending {
                    ending.writing.remove(&worker.model);
                }
            }
            _ => {}
        }
        self.go_on_ending();
    }

    /// Whether the kernel ends: what happens to processes now is not theirs.
    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    fn has_pages_to_write(&mut self, id: ModelId) -> bool {
        if self.models.get(&id).is_none_or(|m| !m.is_ready()) || self.config.swap_disk_bytes == 0 {
            return false;
        }
        self.write_all_lasting(id);
        self.can_write(id)
    }

    /// Nobody waits for what these compute.
    fn stop_steps(&mut self, models: &BTreeSet<ModelId>) {
        for id in models {
            let Some(model) = self.models.get_mut(id) else { continue };
            let worker = model.worker();
            if let Some(step) = model.in_flight.as_mut().filter(|step| !step.withdrawn) {
                step.withdrawn = true;
                self.out.push(Effect::Withdraw { worker, number: step.number });
            }
        }
    }

    fn go_on_ending(&mut self) {
        let Some(mut ending) = self.ending.take() else { return };
        ending.writing.retain(|id| self.models.get(id).is_some_and(|m| m.is_ready()));
        ending.writing.retain(|id| {
            let busy = self.models.get(id).is_some_and(|m| m.in_flight.is_some());
            let writes = !busy && self.write_behind(*id, Beside::Nothing);
            if writes {
                self.submit_pages(*id);
            }
            busy || writes
        });
        let done = ending.writing.is_empty() || self.now >= ending.until;
        self.ending = Some(ending);
        if done {
            self.leave();
        }
    }

    fn leave(&mut self) {
        for model in self.models.values().filter(|m| m.placement.is_some()) {
            self.out.push(Effect::StopWorker { worker: model.worker() });
        }
        self.models.clear();
        self.out.push(Effect::Exit);
        self.ended = true;
    }
}
