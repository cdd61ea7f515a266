//! Closing a context.

use syscalls::reply::Finish;
use syscalls::{ContextId, Fault};

use super::super::Kernel;
use super::super::call::CallNo;

impl Kernel {
    /// Withdraws the calls in line, frees the pages and removes the context. A row that the step under way has of
    /// it is thrown away when the step is done; the worker is told to drop the sequence before the next one.
    pub(in crate::core) fn close_context(&mut self, id: ContextId, fault: &Fault) {
        self.drop_compaction(id, fault);
        let Some(context) = self.contexts.get_mut(&id) else { return };
        // Those that wait leave the line first, so that none begins when the one before it ends.
        let generating = context.generating();
        let calls: Vec<CallNo> =
            context.queue.iter().map(|q| q.call).filter(|c| Some(*c) != generating).collect();
        let model = context.model;
        context.queue.retain(|q| Some(q.call) == generating);
        for call in calls {
            self.withdraw_question(model, call);
            self.finish(call, Err(fault.clone()));
        }
        if generating.is_some() {
            self.end_generation(id, Finish::Interrupted);
        }
        self.leave_remnant(id);
        self.unplace(id);
        let Some(context) = self.contexts.remove(&id) else { return };
        self.contexts_of.remove(self.processes.identity(context.owner).map_or(u32::MAX, |id| id.uid));
        if context.kept.is_some() {
            self.journal.close(id);
        }
        if let Some(model) = self.models.get_mut(&model) {
            model.contexts.remove(&id);
            model.suspects.remove(&id);
        }
        // Its model may be idle now, or do with a smaller pool.
        self.devices.reconsider();
        if let Some(process) = self.processes.living_mut(context.owner) {
            process.contexts.remove(&id);
            process.context_tokens -= u64::from(context.length());
        }
    }
}
