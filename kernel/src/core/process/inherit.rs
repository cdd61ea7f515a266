//! Priority inheritance: a process that another waits for runs at least in the waiter's class meanwhile, or a process in
//! a hurry would wait as long as one that is in none.
//!
//! A call waits for a process if it is `wait` on a child (on any, where there is only one), or `receive` of a process
//! that has sent something, for the one that it sent to last. A context waits for the process whose context computes
//! what both begin with, from one plan to the next. The class passes on along chains of such waits. It is
//! computed from the own classes of all that wait, directly or not, so waits in a circle leave nothing behind.

use std::collections::BTreeSet;

use syscalls::call::Class;
use syscalls::{ContextId, Pid};

use super::super::Kernel;
use super::super::call::{CallNo, Waits};
use super::super::event::ModelId;
use super::super::sched::PrefixWaits;

/// Processes of a chain that are looked at; further ones inherit nothing.
const CHAIN_MAX: usize = 64;

impl Kernel {
    /// The process that a call of another waits for.
    pub(in crate::core) fn waited_for(&self, pid: Pid, waits: &Waits) -> Option<Pid> {
        match waits {
            Waits::Child(Some(child)) => Some(*child),
            Waits::Child(None) => {
                let mut children = self.processes.children(pid);
                children.next().filter(|_| children.next().is_none())
            }
            Waits::Message => self.processes.living(pid)?.sent_to,
            _ => None,
        }
    }

    /// Brings the inherited class of a process, and of those that it waits for, up to date.
    pub(in crate::core) fn inherit(&mut self, pid: Pid) {
        let (mut seen, mut next) = (BTreeSet::new(), vec![pid]);
        while let Some(pid) = next.pop() {
            if seen.len() >= CHAIN_MAX || !seen.insert(pid) {
                continue;
            }
            let lent = self.lent(pid);
            let Some(process) = self.processes.living_mut(pid) else { continue };
            let before = process.class();
            process.lent = lent;
            let changed = process.class() != before;
            let calls: Vec<CallNo> = process.calls.iter().copied().collect();
            next.extend(calls.into_iter().filter_map(|call| self.calls.get(call)?.waits_for));
            let prefixes = self.models.values().flat_map(|m| &m.sched.for_prefixes);
            next.extend(prefixes.filter(|(_, waiter, _)| *waiter == pid).map(|(computing, _, _)| *computing));
            if changed {
                self.class_changed(pid);
            }
        }
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
            for waiter in self.calls.waiting_for(at).chain(prefixes.map(|(_, waiter, _)| *waiter)) {
                if seen.len() >= CHAIN_MAX || !seen.insert(waiter) {
                    continue;
                }
                if let Some(process) = self.processes.living(waiter) {
                    best = Some(best.map_or(process.id.class, |class| class.min(process.id.class)));
                }
                next.push(waiter);
            }
        }
        best
    }
}
