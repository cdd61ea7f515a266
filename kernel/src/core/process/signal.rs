//! What signals do. They act between two steps: a token that the step under way is making is thrown away, and the
//! context keeps what came before it.
//!
//! | signal    | what it does by default | with a call of `sigwait` that waits |
//! |-----------|-------------------------|-------------------------------------|
//! | INT       | ends the calls that run | the same                            |
//! | TERM, XCPU | ends the process       | answers it; KILL follows after `term_grace_ms` |
//! | KILL      | ends the process        | the same                            |
//! | STOP      | holds it until CONT     | the same                            |
//! | CONT      | lets it go on           | the same                            |

use syscalls::call::Signal;
use syscalls::{Errno, Fault, Pid, Reply};

use super::super::Kernel;
use super::super::call::{CallNo, Waits};
use super::super::event::Now;
use super::Run;

impl Kernel {
    /// Delivers a signal to a living process.
    pub(in crate::core) fn signal(&mut self, pid: Pid, signal: Signal) {
        match signal {
            Signal::Int => self.interrupt(pid),
            Signal::Term | Signal::Xcpu => self.ask_to_end(pid, signal),
            Signal::Kill => self.end_process(pid, 128 + signal.number()),
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

    /// Ends a process, at once or, where it has asked for signals, after it had its time to finish.
    fn ask_to_end(&mut self, pid: Pid, signal: Signal) {
        let Some(process) = self.processes.living(pid) else { return };
        let waits = |call: &&CallNo| self.calls.waits(**call) == Some(&Waits::Signal);
        let Some(catching) = process.calls.iter().find(waits).copied() else {
            // A second one to a process that is about to end changes nothing.
            if process.kill_at.is_none() {
                self.end_process(pid, 128 + signal.number());
            }
            return;
        };
        let grace_ms = self.config.term_grace_ms;
        let at = Now(self.now.0.saturating_add(grace_ms.saturating_mul(1000)));
        let kill_at = process.kill_at.unwrap_or(at);
        if let Some(process) = self.processes.living_mut(pid) {
            process.kill_at = Some(kill_at);
        }
        self.to_kill.insert((kill_at, pid));
        self.touch_process(pid);
        let left_ms = kill_at.0.saturating_sub(self.now.0) / 1000;
        self.finish(catching, Ok(Reply::Signalled { signal, grace_ms: left_ms }));
    }

    /// Ends the processes whose time to finish is over.
    pub(in crate::core) fn kill_overdue(&mut self) {
        while let Some((at, pid)) = self.to_kill.first().copied().filter(|(at, _)| *at <= self.now) {
            self.to_kill.remove(&(at, pid));
            self.end_process(pid, 128 + Signal::Kill.number());
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
