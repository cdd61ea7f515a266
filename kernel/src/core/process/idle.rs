//! How long a process usually rests between its generations, learned for each: for a tool, for a message, for a reader
//! that is slow, for a person. Memory can so tell a process that is back in a moment from one that is gone for long.

use syscalls::Pid;

use super::super::Kernel;
use super::super::event::Now;
use super::Process;

impl Process {
    /// A generation begins.
    pub(in crate::core) fn begin_work(&mut self, now: Now) {
        self.generating += 1;
        self.come_back(now);
    }

    /// A generation has ended.
    pub(in crate::core) fn end_work(&mut self, now: Now) {
        self.generating = self.generating.saturating_sub(1);
        if self.generating == 0 {
            self.rest(now);
        }
    }

    /// It has nothing to run, or is not read.
    pub(in crate::core) fn rest(&mut self, now: Now) {
        self.idle_since.get_or_insert(now);
    }

    /// It goes on.
    pub(in crate::core) fn come_back(&mut self, now: Now) {
        let Some(since) = self.idle_since.take() else { return };
        let rested = now.0.saturating_sub(since.0);
        self.idle_us = Some(self.idle_us.map_or(rested, |usual| (usual * 3).saturating_add(rested) / 4));
    }
}

impl Kernel {
    /// How long a rest of a process is expected to last in all, in microseconds: an average of those that it has had,
    /// of which later ones count more, and no less than what the one of now has lasted already. Nothing before the
    /// first one has ended.
    pub(in crate::core) fn expected_idle_us(&self, pid: Pid) -> Option<u64> {
        let process = self.processes.living(pid)?;
        let so_far = process.idle_since.map_or(0, |since| self.now.0.saturating_sub(since.0));
        process.idle_us.map(|usual| usual.max(so_far))
    }
}
