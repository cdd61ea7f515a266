//! Which of the sequences that nobody runs gives pages: the one that is expected to rest longest from now, for what
//! its return would cost.
//!
//! > gain = |now − due| / cost of return, with due = when it became idle + how long its process usually rests
//!
//! Before it is due, a context rests for what is left of a usual rest, so that one whose process calls tools of a
//! minute goes before one whose tools take 50 ms, though it became idle later. One that is late is expected to rest
//! as long again as it has been late. A process that has never rested counts as due at once, and so does a remnant,
//! which has none: with nothing learned this is the order of last use. Contexts of a process that is running others
//! count half: it is there, and may come back to them at once.
//!
//! When a context is due is known when it becomes idle and does not change while it is. Time moves all by the same, so
//! the longest rests are at the two ends of the order by due, among the latest and the most late, and only there is
//! looked for the best. A victim does not come back by itself, only with a generation of its process; so whatever is
//! expected of it, it is taken out once for each rest at most, and no two push each other out in turns.

use std::cmp::Reverse;

use syscalls::ContextId;

use super::super::Kernel;
use super::super::event::ModelId;
use super::super::model::Model;
use super::super::sched::Place;

/// Sequences that are looked at from each end of an order.
const LOOKED_AT: usize = 4;

impl Kernel {
    /// The sequence that gives pages next of those that nobody runs. Published segments come last.
    pub(super) fn cached_victim(
        &self,
        model: ModelId,
        usable: &impl Fn(&ContextId) -> bool,
    ) -> Option<ContextId> {
        let model = self.models.get(&model)?;
        let memory = model.memory.as_ref()?;
        let remnants = |pinned: bool| {
            let of = memory.aged.iter().filter(move |(p, _, _)| *p == pinned);
            of.map(|(_, tick, id)| (*tick, *id)).filter(|(_, id)| usable(id))
        };
        let free = |c: &ContextId| self.contexts.get(c).is_some_and(|c| !c.in_step);
        let idle = || model.sched.idle_by_due().filter(|(_, c)| usable(c) && free(c));
        let late = idle().take(LOOKED_AT).chain(remnants(false).take(LOOKED_AT));
        let candidates = late.chain(idle().rev().take(LOOKED_AT));
        // Of two that are as good, the one that was due first.
        let best = candidates.max_by_key(|(due, id)| (self.gain(model, *due, *id), Reverse((*due, *id))));
        best.or_else(|| remnants(true).next()).map(|(_, id)| id)
    }

    /// What is gained by taking the pages of a context; nothing if it is not idle.
    pub(in crate::core) fn gain_of_idle(&self, id: ContextId) -> u64 {
        let Some(context) = self.contexts.get(&id) else { return 0 };
        match (context.place, self.models.get(&context.model)) {
            (Place::Idle(due), Some(model)) => self.gain(model, due, id),
            _ => 0,
        }
    }

    /// The expected rest from now of a sequence that is or was due then, in microseconds, for each 1000 µs of what its
    /// return would cost.
    fn gain(&self, model: &Model, due: u64, id: ContextId) -> u64 {
        let now = self.now.0.max(model.sched.ticks());
        let rest = now.abs_diff(due) + 1;
        let weighed = rest.saturating_mul(if self.owner_runs(id) { 500 } else { 1000 });
        weighed / self.return_us(model, id).max(1)
    }

    /// Whether the process of a context runs others: it may come back to this one soon.
    fn owner_runs(&self, id: ContextId) -> bool {
        let Some(context) = self.contexts.get(&id) else { return false };
        self.models.get(&context.model).is_some_and(|m| m.sched.running.of(context.owner) > 0)
    }

    /// What it is expected to cost to take the last page of a sequence and to bring it back, in microseconds.
    fn return_us(&self, model: &Model, id: ContextId) -> u64 {
        let of_context = self.contexts.get(&id).and_then(|c| c.resident.as_ref());
        let remnant = || model.memory.as_ref()?.remnants.get(&id).map(|r| &r.resident);
        let Some(resident) = of_context.or_else(remnant) else { return 0 };
        let last = resident.held.checked_sub(1).map(|n| resident.path[n as usize]);
        let saved = last.is_some_and(|node| model.tree.saved(node).is_some());
        model.return_us(saved)
    }
}
