//! How processes end, and who hears of it.

use syscalls::{Errno, Fault, Pid, Reply};

use super::super::Kernel;
use super::super::call::{CallNo, Waits};
use super::super::effect::Effect;

impl Kernel {
    /// Ends a process: its calls are answered, its contexts closed, its children given to the kernel, and its
    /// parent told. A child of the kernel is reaped at once. With the process that a connection began with, the
    /// connection ends too.
    pub(in crate::core) fn end_process(&mut self, pid: Pid, status: u8) {
        self.leave_program(pid, status);
        self.end_quantum(pid);
        let Some(process) = self.processes.living(pid) else { return };
        let (conn, parent, process_group) = (process.conn, process.id.parent, process.id.group);
        let kill_at = process.kill_at;
        let calls: Vec<CallNo> = process.calls.iter().rev().copied().collect();
        let contexts: Vec<_> = process.contexts.iter().copied().collect();
        for call in calls {
            self.cancel_call(call, &Fault::new(Errno::ECANCELED, format!("process {pid} has ended")));
        }
        for context in contexts {
            self.close_context(context, &Fault::new(Errno::ECANCELED, format!("process {pid} has ended")));
        }
        if let Some(at) = kill_at {
            self.to_kill.remove(&(at, pid));
        }
        let ended = Fault::new(Errno::ECANCELED, format!("process {pid} has ended"));
        self.forget_asleep(|image| image.owner == pid, &ended);
        for model in self.models.values_mut() {
            model.sched.forget(pid);
        }
        self.turns.forget(pid);
        for gone in self.groups.leave(process_group, pid, self.now) {
            self.models.values_mut().for_each(|m| m.sched.accounts.forget_group(gone));
        }
        self.processes.bury(pid, status);
        self.journal.end(pid);
        self.process_ended(pid, status);
        let children: Vec<Pid> = self.processes.children(pid).collect();
        for child in children {
            self.processes.adopt(child, Pid::KERNEL);
            self.touch_process(child);
            if self.processes.zombie(child).is_some() {
                self.processes.reap(child);
            }
        }
        if self.processes.living(parent).is_some() {
            self.tell_parent(parent);
        } else {
            self.processes.reap(pid);
        }
        if let Some((conn, connection)) = conn.and_then(|c| Some((c, self.connections.get_mut(&c)?))) {
            connection.processes.remove(&pid);
            if connection.pid == Some(pid) {
                self.out.push(Effect::Hangup { conn });
            }
        }
    }

    /// Answers those calls of `wait` of a process that can be answered now.
    pub(super) fn tell_parent(&mut self, parent: Pid) {
        let Some(process) = self.processes.living(parent) else { return };
        let calls: Vec<CallNo> = process.calls.iter().copied().collect();
        for call in calls {
            let Some(Waits::Child(child)) = self.calls.waits(call) else { continue };
            let child = *child;
            if let Some(result) = self.try_wait(parent, child).transpose() {
                self.finish(call, result);
            }
        }
    }

    /// Reaps a child that has ended: the one that is named, or the one with the lowest pid.
    ///
    /// # Errors
    ///
    /// ECHILD where there is nothing to wait for.
    pub(in crate::core) fn try_wait(
        &mut self,
        parent: Pid,
        child: Option<Pid>,
    ) -> Result<Option<Reply>, Fault> {
        let mut candidates = self.processes.children(parent).filter(|c| child.is_none_or(|want| want == *c));
        let Some(first) = candidates.next() else {
            let message = match child {
                Some(child) => format!("process {child} is no child of process {parent}"),
                None => format!("process {parent} has no children to wait for"),
            };
            return Err(Fault::new(Errno::ECHILD, message));
        };
        let ended =
            std::iter::once(first).chain(candidates).find(|pid| self.processes.zombie(*pid).is_some());
        let Some(pid) = ended else { return Ok(None) };
        let status = self.processes.reap(pid).unwrap_or_default();
        Ok(Some(Reply::Waited { pid, status }))
    }
}
