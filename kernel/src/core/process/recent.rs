//! The last calls of a process: which, when, how long, and what came of them. Never what was asked or answered.

use std::collections::VecDeque;

use syscalls::limits::CALLS_REMEMBERED_MAX;
use syscalls::reply::PastCall;
use syscalls::{Errno, Fault, Pid, Reply};

use super::super::Kernel;
use super::super::event::Now;

/// A call that has been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Past {
    /// Its name in the manual.
    name: &'static str,
    since: Now,
    took_us: u64,
    errno: Option<Errno>,
}

/// A ring of them. It grows with the first calls, so that a process which makes few has few.
#[derive(Debug, Default)]
pub(in crate::core) struct RecentCalls(VecDeque<Past>);

impl RecentCalls {
    fn push(&mut self, past: Past) {
        if self.0.len() >= CALLS_REMEMBERED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(past);
    }

    /// How many there are.
    pub(in crate::core) fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them, the oldest first.
    pub(in crate::core) fn list(&self) -> Vec<PastCall> {
        let shown = |past: &Past| PastCall {
            call: past.name.to_owned(),
            at_us: past.since.0,
            took_us: past.took_us,
            errno: past.errno,
        };
        self.0.iter().map(shown).collect()
    }
}

impl Kernel {
    /// Remembers a call of a living process that is being answered.
    pub(in crate::core) fn remember_call(
        &mut self,
        pid: Pid,
        name: &'static str,
        since: Now,
        result: Result<&Reply, &Fault>,
    ) {
        let took_us = self.now.0.saturating_sub(since.0);
        let errno = result.err().map(|fault| fault.errno);
        if let Some(process) = self.processes.living_mut(pid) {
            process.recent.push(Past { name, since, took_us, errno });
        }
    }
}
