//! Priority inheritance: a process that another waits for runs at least in the waiter's class meanwhile, or a process in
//! a hurry would wait as long as one that is in none.
//!
//! A call waits for a process if it is `wait` on a child, or `receive` of a process that has sent something, for the one
//! that it sent to last. `wait` on any child waits for all of them, those included that come meanwhile. A context waits
//! for the process whose context computes what both begin with, from one plan to the next. The class passes on along
//! chains of such waits. It is computed from the own classes of all that wait, directly or not, so waits in a circle
//! leave nothing behind.

use std::collections::BTreeSet;

use syscalls::call::Class;
use syscalls::{ContextId, Pid};

use super::super::Kernel;
use super::super::call::{Awaited, Waits};
use super::super::event::ModelId;
use super::super::sched::PrefixWaits;
use super::Process;

/// Processes that wait for one, directly or not, of which it is asked who waits for them; further ones lend their own
/// class alone.
const CHAIN_MAX: usize = 64;

impl Kernel {
    /// Whom a call of a process waits for.
    pub(in crate::core) fn waited_for(&self, pid: Pid, waits: &Waits) -> Option<Awaited> {
        match waits {
            Waits::Child(Some(child)) => Some(Awaited::Process(*child)),
            Waits::Child(None) => Some(Awaited::Children),
            Waits::Message => self.processes.living(pid)?.sent_to.map(Awaited::Process),
            _ => None,
        }
    }

    /// Brings the inherited classes of those that a process waits for, or has waited for, up to date.
    pub(in crate::core) fn inherit_of(&mut self, waiter: Pid, awaited: Awaited) {
        match awaited {
            Awaited::Process(pid) => self.inherit(pid),
            Awaited::Children => {
                self.concerned_children(waiter).into_iter().for_each(|child| self.inherit(child));
            }
        }
    }

    /// The children of a process whose class a wait for any of them changes: all that have one from it, or would.
    fn concerned_children(&self, parent: Pid) -> Vec<Pid> {
        let class = self.processes.living(parent).map(Process::class);
        let concerned = |child: &Process| child.lent.is_some() || class < Some(child.id.class);
        let children = self.processes.children(parent).filter_map(|child| self.processes.living(child));
        children.filter(|child| concerned(child)).map(|child| child.id.pid).collect()
    }

    /// Brings the inherited class of a process up to date, and of those that it waits for as far as anything changes.
    pub(in crate::core) fn inherit(&mut self, pid: Pid) {
        let mut next = vec![pid];
        while let Some(at) = next.pop() {
            let lent = self.lent(at);
            let Some(process) = self.processes.living_mut(at) else { continue };
            let (before, class) = (process.lent, process.class());
            process.lent = lent;
            let changed = process.class() != class;
            // Its own class may be another one than before.
            if lent != before || at == pid {
                next.extend(self.awaited_by(at).into_iter().filter(|awaited| *awaited != pid));
            }
            if changed {
                self.class_changed(at);
            }
        }
    }

    /// Those that a process waits for.
    fn awaited_by(&self, pid: Pid) -> Vec<Pid> {
        let Some(process) = self.processes.living(pid) else { return vec![] };
        let mut awaited = Vec::new();
        for waits_for in process.calls.iter().filter_map(|call| self.calls.get(*call)?.waits_for) {
            match waits_for {
                Awaited::Process(pid) => awaited.push(pid),
                Awaited::Children => awaited.extend(self.concerned_children(pid)),
            }
        }
        let prefixes = self.models.values().flat_map(|m| &m.sched.for_prefixes);
        awaited.extend(prefixes.filter(|(_, waiter, _)| *waiter == pid).map(|(computing, _, _)| *computing));
        awaited
    }

    /// Notes that a context waits for what another one computes.
    pub(in crate::core) fn note_prefix_wait(
        &self,
        waits: &mut PrefixWaits,
        computing: ContextId,
        waiter: ContextId,
    ) {
        let owner = |id: ContextId| self.contexts.get(&id).map(|c| c.owner);
        if let (Some(to), Some(from)) = (owner(computing), owner(waiter))
            && to != from
        {
            waits.insert((to, from, waiter));
        }
    }

    /// Brings what processes inherit up to date with who waits for prefixes on a model now.
    pub(in crate::core) fn lend_to_computing(&mut self, model: ModelId, now: PrefixWaits) {
        let Some(model) = self.models.get_mut(&model) else { return };
        if model.sched.for_prefixes == now {
            return;
        }
        let changed: BTreeSet<Pid> =
            model.sched.for_prefixes.symmetric_difference(&now).map(|(computing, _, _)| *computing).collect();
        model.sched.for_prefixes = now;
        changed.into_iter().for_each(|pid| self.inherit(pid));
    }

    /// The highest class of those that wait for a process, directly or not.
    fn lent(&self, pid: Pid) -> Option<Class> {
        let (mut seen, mut next, mut best) = (BTreeSet::from([pid]), vec![pid], None::<Class>);
        while let Some(at) = next.pop() {
            let all_of_it = (at, Pid(0), ContextId(0))..=(at, Pid(u32::MAX), ContextId(u64::MAX));
            let prefixes = self.models.values().flat_map(|m| m.sched.for_prefixes.range(all_of_it.clone()));
            let parent = self.processes.identity(at).map_or(Pid::KERNEL, |id| id.parent);
            for waiter in self.calls.waiting_for(at, parent).chain(prefixes.map(|(_, waiter, _)| *waiter)) {
                if seen.contains(&waiter) {
                    continue;
                }
                if let Some(process) = self.processes.living(waiter) {
                    best = Some(best.map_or(process.id.class, |class| class.min(process.id.class)));
                }
                if seen.len() < CHAIN_MAX {
                    seen.insert(waiter);
                    next.push(waiter);
                }
            }
        }
        best
    }
}
