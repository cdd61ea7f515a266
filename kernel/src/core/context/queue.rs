//! Calls on a context, one after another.

use syscalls::limits::CALLS_PER_CONTEXT_MAX;
use syscalls::{ContextId, Errno, Fault, Reply};

use super::super::Kernel;
use super::super::call::CallNo;
use super::{Context, Queued, Work};

/// What starting a piece of work came to.
#[expect(clippy::large_enum_variant, reason = "it lives from one line to the next")]
pub(in crate::core) enum Started {
    /// It is done.
    Done(Result<Reply, Fault>),
    /// Its context has done its part: it leaves the line, and is answered with a later event.
    Leaves,
    /// Its end comes with a later event.
    GoesOn,
}

impl Context {
    /// Whether `work` need not wait for the calls in line.
    fn passes(&self, work: &Work) -> bool {
        let generating_alone = self.queue.len() == 1 && self.generation.is_some();
        generating_alone && matches!(work, Work::Fork(_) | Work::Read(_) | Work::Share(_) | Work::Snapshot(_))
    }
}

impl Kernel {
    /// Puts work in line, and begins it if nothing is before it.
    pub(in crate::core) fn enqueue(&mut self, id: ContextId, call: CallNo, work: Work) {
        let Some(context) = self.contexts.get_mut(&id) else {
            return self.finish(call, Err(Fault::new(Errno::EBADF, format!("context {id} is closed"))));
        };
        if context.passes(&work) {
            return match self.start(id, call, work) {
                Started::Done(result) => self.finish(call, result),
                Started::Leaves => {}
                Started::GoesOn => unreachable!("what may pass the line leaves it at once"),
            };
        }
        if context.queue.len() >= CALLS_PER_CONTEXT_MAX {
            let message = format!(
                "{CALLS_PER_CONTEXT_MAX} calls wait for context {id}, which is the limit; wait for some of them"
            );
            return self.finish(call, Err(Fault::new(Errno::EAGAIN, message)));
        }
        context.queue.push_back(Queued::new(call, Some(work)));
        self.touch(id);
        self.advance(id);
    }

    /// Begins calls in line until one goes on. Nothing begins while a step has a row of the context, because the
    /// end of the step changes it.
    pub(in crate::core) fn advance(&mut self, id: ContextId) {
        loop {
            let Some(context) = self.contexts.get_mut(&id).filter(|c| !c.in_step && !c.is_compacting())
            else {
                return;
            };
            let Some(head) = context.queue.front_mut() else { return };
            let (call, Some(work)) = (head.call, head.work.take()) else { return };
            if context.kept.is_some() && matches!(work, Work::AppendText(_) | Work::AppendMessages(_)) {
                head.asked = Some(Box::new(work.clone()));
            }
            self.touch(id);
            match self.start(id, call, work) {
                Started::Done(result) => self.leave_line(id, call, result),
                Started::Leaves => self.take_off_line(id, call),
                Started::GoesOn => return,
            }
        }
    }

    fn start(&mut self, id: ContextId, call: CallNo, work: Work) -> Started {
        match work {
            Work::AppendTokens(tokens) => self.add_tokens(id, call, &tokens),
            Work::AppendText(request) => self.ask_tokens(id, call, request),
            Work::AppendMessages(messages) => self.ask_chat(id, call, messages),
            Work::Generate(valid) => self.begin_generation(id, call, *valid),
            Work::Truncate(length) => Started::Done(self.truncate(id, length)),
            Work::Fork(fork) => Started::Done(self.fork(id, fork.copies, fork.length.map(|n| n.0))),
            Work::Snapshot(args) => match self.snapshot_of(id, args) {
                Ok(record) => {
                    self.keep_snapshot(call, id, record);
                    Started::Leaves
                }
                Err(fault) => Started::Done(Err(fault)),
            },
            Work::Share(share) => Started::Done(self.share(id, share)),
            Work::Read(range) => Started::Done(self.read_tokens(id, &range)),
        }
    }

    /// Answers the call at the head of the line and begins the next.
    pub(in crate::core) fn finish_head(&mut self, id: ContextId, call: CallNo, result: Result<Reply, Fault>) {
        self.leave_line(id, call, result);
        self.advance(id);
    }

    fn leave_line(&mut self, id: ContextId, call: CallNo, result: Result<Reply, Fault>) {
        self.take_off_line(id, call);
        self.finish(call, result);
    }

    fn take_off_line(&mut self, id: ContextId, call: CallNo) {
        if let Some(context) = self.contexts.get_mut(&id) {
            context.queue.retain(|q| q.call != call);
        }
        self.touch(id);
    }

    /// Withdraws one call: a generation that has begun answers with what has come, anything else with the fault.
    pub(in crate::core) fn withdraw(&mut self, id: ContextId, call: CallNo, fault: &Fault) {
        let Some(context) = self.contexts.get(&id) else {
            self.withdraw_asleep(id, call);
            return self.finish(call, Err(fault.clone()));
        };
        if context.generating() == Some(call) {
            return self.end_generation(id, syscalls::reply::Finish::Interrupted);
        }
        let model = context.model;
        self.withdraw_question(model, call);
        self.finish_head(id, call, Err(fault.clone()));
    }

    /// Ends the generation that has begun with a fault.
    pub(in crate::core) fn fail_generation(&mut self, id: ContextId, fault: Fault) {
        let Some(call) = self.contexts.get(&id).and_then(Context::generating) else { return };
        self.drop_generation(id);
        self.finish_head(id, call, Err(fault));
    }
}
