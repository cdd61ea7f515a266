//! What signals do. They act between two steps: a token that the step under way is making is thrown away, and the
//! context keeps what came before it.
//!
//! | signal    | what it does by default | with a call of `sigwait` that waits | with a program of the daemon's |
//! |-----------|-------------------------|-------------------------------------|--------------------------------|
//! | INT       | ends the calls that run | the same                            | which gets it too              |
//! | TERM, XCPU | ends the process       | answers it; KILL follows after `term_grace_ms` | gets it; KILL follows after `term_grace_ms` |
//! | KILL      | ends the process        | the same                            | and kills it                   |
//! | STOP      | holds it until CONT     | the same                            | which is held too              |
//! | CONT      | lets it go on           | the same                            | which goes on too              |
//!
//! A program is signalled with all that it has started. Whoever is stopped and given time to finish goes on, so that he can.

use syscalls::call::Signal;
use syscalls::{Errno, Fault, Pid, Reply};

use super::super::Kernel;
use super::super::call::{CallNo, Waits};
use super::super::event::Now;
use super::Run;

impl Kernel {
    /// Delivers a signal to a living process, and to its program where it has one.
    pub(in crate::core) fn signal(&mut self, pid: Pid, signal: Signal) {
        self.trace_signal(pid, signal);
        match signal {
            Signal::Int => {
                self.interrupt(pid);
                self.pass_on(pid, signal);
            }
            Signal::Term | Signal::Xcpu => self.ask_to_end(pid, signal, self.config.term_grace_ms),
            Signal::Kill => self.kill(pid),
            Signal::Stop => {
                // The time that it stands still is not charged.
                self.end_quantum(pid);
                self.set_run(pid, Run::Stopped);
                self.pass_on(pid, signal);
            }
            Signal::Cont => {
                self.set_run(pid, Run::Going);
                self.pass_on(pid, signal);
            }
        }
    }

    fn kill(&mut self, pid: Pid) {
        self.kill_at(pid, self.now);
        self.end_process(pid, 128 + Signal::Kill.number());
    }

    /// Notes when a process is killed. The first word counts.
    fn kill_at(&mut self, pid: Pid, at: Now) {
        let Some(process) = self.processes.living_mut(pid) else { return };
        if let Some(before) = process.kill_at.filter(|before| *before > at) {
            self.to_kill.remove(&(before, pid));
            process.kill_at = None;
        }
        let at = *process.kill_at.get_or_insert(at);
        self.to_kill.insert((at, pid));
    }

    fn interrupt(&mut self, pid: Pid) {
        let Some(process) = self.processes.living(pid) else { return };
        // The last ones first, so that no call begins because the one before it has ended.
        let calls: Vec<_> = process.calls.iter().rev().copied().collect();
        for call in calls {
            self.cancel_call(call, &Fault::new(Errno::EINTR, "INT ended the call"));
        }
    }

    /// Ends a process: at once or, where it has asked for signals or has a program that gets this one, after it had so
    /// long to finish.
    pub(in crate::core) fn ask_to_end(&mut self, pid: Pid, signal: Signal, grace_ms: u64) {
        let Some(process) = self.processes.living(pid) else { return };
        let waits = |call: &&CallNo| self.calls.waits(**call) == Some(&Waits::Signal);
        let catching = process.calls.iter().find(waits).copied();
        let program = self.has_running_program(pid);
        if catching.is_none() && !program {
            // A second one to a process that is about to end changes nothing.
            if process.kill_at.is_none() {
                self.end_process(pid, 128 + signal.number());
            }
            return;
        }
        self.kill_at(pid, Now(self.now.0.saturating_add(grace_ms.saturating_mul(1000))));
        self.touch_process(pid);
        self.pass_on(pid, signal);
        self.set_run(pid, Run::Going);
        self.pass_on(pid, Signal::Cont);
        let kill_at = self.processes.living(pid).and_then(|process| process.kill_at).unwrap_or(self.now);
        let grace_ms = kill_at.0.saturating_sub(self.now.0) / 1000;
        if let Some(catching) = catching {
            self.finish(catching, Ok(Reply::Signalled { signal, grace_ms }));
        }
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
