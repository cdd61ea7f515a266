//! What signals do. They act between two steps: a token that the step under way is making is thrown away, and the
//! context keeps what came before it.

use syscalls::call::Signal;
use syscalls::{Errno, Fault, Pid};

use super::super::Kernel;
use super::Run;

impl Kernel {
    /// Delivers a signal to a living process.
    pub(in crate::core) fn signal(&mut self, pid: Pid, signal: Signal) {
        match signal {
            Signal::Int => self.interrupt(pid),
            Signal::Term | Signal::Kill => self.end_process(pid, 128 + signal.number()),
            Signal::Stop => self.set_run(pid, Run::Stopped),
            Signal::Cont => self.set_run(pid, Run::Going),
        }
    }

    fn interrupt(&mut self, pid: Pid) {
        let Some(process) = self.processes.living(pid) else { return };
        // The last ones first, so that no call begins because the one before it has ended.
        let calls: Vec<_> = process.calls.iter().rev().copied().collect();
        for call in calls {
            self.cancel_call(call, &Fault::new(Errno::EINTR, "INT ended the call"));
        }
    }

    fn set_run(&mut self, pid: Pid, run: Run) {
        let Some(process) = self.processes.living_mut(pid) else { return };
        process.run = run;
        self.touch_process(pid);
        self.settle_process(pid);
    }

    /// Brings every context of a process to where the scheduler should have it now.
    pub(in crate::core) fn settle_process(&mut self, pid: Pid) {
        let Some(process) = self.processes.living(pid) else { return };
        let contexts: Vec<_> = process.contexts.iter().copied().collect();
        for context in contexts {
            self.settle(context);
        }
    }
}
