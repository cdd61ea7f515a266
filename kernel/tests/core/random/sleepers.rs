//! Contexts that outlived a daemon and sleep, because others that are in use have the memory: nobody can be made to give
//! it, so their calls wait. They go on as soon as the others have ended.

use std::collections::BTreeSet;

use syscalls::call::{Close, Inspect, Kill, Signal};
use syscalls::reply::ContextState;
use syscalls::{ContextId, Reply};

use super::History;
use crate::machine::ADMIN;

impl History {
    /// The contexts of a program that sleep.
    pub(super) fn asleep(&mut self, at: usize) -> BTreeSet<ContextId> {
        let pid = self.programs[at].pid;
        let id = self.begin(at, Inspect { pid });
        let Some(Ok(Reply::Inspected(inspected))) = self.machine.reply(self.programs[at].conn, id) else {
            return BTreeSet::new();
        };
        let asleep = inspected.contexts.iter().filter(|view| view.state == ContextState::Asleep);
        asleep.map(|view| view.context).collect()
    }

    /// Ends all others until every generation that sleeps has gone on and is answered.
    pub(super) fn wake_sleepers(&mut self) {
        let mut before = usize::MAX;
        loop {
            let unanswered = self.unanswered();
            if unanswered.is_empty() {
                return;
            }
            assert!(unanswered.len() < before, "contexts {unanswered:?} sleep although they are alone");
            before = unanswered.len();
            for at in 0..self.programs.len() {
                for context in self.programs[at].contexts.clone() {
                    if !unanswered.contains(&context) {
                        self.begin(at, Close { context });
                    }
                }
            }
            self.end_unattached();
            self.run_in_time();
        }
    }

    fn unanswered(&self) -> BTreeSet<ContextId> {
        let all =
            self.programs.iter().flat_map(|p| p.calls.iter().map(|(id, context)| (p.conn, *id, *context)));
        let waiting = all.filter(|(conn, id, _)| self.machine.reply(*conn, *id).is_none());
        waiting.map(|(_, _, context)| context).collect()
    }

    /// Kills all processes that nobody is connected as.
    pub(super) fn end_unattached(&mut self) {
        let conn = self.machine.connect(ADMIN);
        for process in self.machine.ps(conn).into_iter().filter(|p| p.detached) {
            self.machine.begin(conn, Kill { pid: process.pid, signal: Signal::Kill });
        }
    }
}
