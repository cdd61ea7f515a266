//! What happens to the daemon and its workers: time passes, work gets done in any order, workers die, and the daemon is
//! killed, or ends in order, and begins again with what is on disk.

use kernel::core::{Event as Input, KernelConfig};

use super::{History, host};
use crate::machine::Job;

impl History {
    /// Something that workers or the store are to do is done. Starts and deaths come in any order; the steps and
    /// questions of one worker as well. The store keeps its order.
    pub(super) fn turn(&mut self) {
        let jobs = &self.machine.jobs;
        if jobs.is_empty() {
            return;
        }
        let stores = |job: &Job| matches!(job, Job::Store(..));
        let at = self.chance.below(jobs.len());
        let at = if stores(&jobs[at]) { jobs.iter().position(stores).unwrap_or(at) } else { at };
        self.machine.turn_at(at);
    }

    pub(super) fn pass_time(&mut self) {
        self.machine.pass_ms(5);
    }

    /// Whoever waits for a model has waited for as long as the turns of others last.
    pub(super) fn pass_turn(&mut self) {
        self.machine.pass_ms(6000);
    }

    pub(super) fn kill_worker(&mut self) {
        if !self.machine.workers.is_empty() {
            self.machine.kill_worker();
        }
    }

    /// Another daemon begins. Nobody is connected to it; what outlives daemons is to be attached there.
    pub(super) fn restart(&mut self) {
        self.look_back();
        if self.chance.once_in(2) {
            self.machine.event(Input::Terminate);
        }
        self.collect();
        let check_every = self.machine.check_every;
        let services = host::services(&mut self.chance);
        self.machine = self.machine.crashed(KernelConfig { services, ..self.config.clone() });
        self.machine.check_every = check_every;
        self.programs.clear();
        self.generated.clear();
        self.stopping.clear();
        // Other numbers of contexts are given out again.
        self.steady.retain(|context| self.machine.images.contexts.contains_key(context));
        self.host.died();
        self.forget_calls_of_stores();
        self.seen.restarts += 1;
        (0..3).for_each(|_| self.connect());
        (0..3).for_each(|_| self.attach());
    }
}
