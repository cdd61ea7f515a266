//! Reading and cutting the token log.

use syscalls::call::ReadTokens;
use syscalls::{ContextId, Errno, Fault, Reply, Token};

use super::super::Kernel;

impl Kernel {
    /// The tokens of a range.
    pub(super) fn read_tokens(&mut self, id: ContextId, range: &ReadTokens) -> Result<Reply, Fault> {
        tokens_of(id, &self.context(id)?.log, range)
    }

    /// The tokens of a range of a context that sleeps.
    pub(in crate::core) fn read_asleep(
        &self,
        id: ContextId,
        range: &ReadTokens,
    ) -> Option<Result<Reply, Fault>> {
        self.asleep.get(&id).map(|image| tokens_of(id, &image.log, range))
    }

    /// Cuts a context. A conversation that is cut is no longer remembered as messages: the next `append` of
    /// messages compares its own with the tokens that are left.
    pub(super) fn truncate(&mut self, id: ContextId, length: u32) -> Result<Reply, Fault> {
        let had = self.context(id)?.length();
        if length > had {
            let message = format!("context {id} has {had} tokens, so it cannot be cut to {length}");
            return Err(Fault::new(Errno::EINVAL, message));
        }
        self.cut(id, length);
        if let Some(context) = self.contexts.get_mut(&id).filter(|_| length < had) {
            context.messages.clear();
            context.answering = false;
        }
        Ok(Reply::Done {})
    }

    /// Drops the tokens from `length` on, and their entries.
    pub(in crate::core) fn cut(&mut self, id: ContextId, length: u32) {
        self.rewind(id, length);
        let Some(context) = self.contexts.get_mut(&id) else { return };
        let dropped = context.length().saturating_sub(length);
        if dropped > 0 {
            context.log.to_mut().truncate(length as usize);
        }
        context.evaluated = context.evaluated.min(length);
        context.kept = context.kept.map(|kept| kept.min(length));
        context.instructions = context.instructions.min(length);
        context.condemned = context.condemned.filter(|at| *at <= length);
        if let Some(process) = self.processes.living_mut(context.owner) {
            process.context_tokens -= u64::from(dropped);
        }
        self.leave_segment(id, length);
        self.touch(id);
    }
}

fn tokens_of(id: ContextId, log: &[Token], range: &ReadTokens) -> Result<Reply, Fault> {
    let length = log.len() as u32;
    let (from, to) = (range.from.0, range.to.map_or(length, |n| n.0));
    if from > to || to > length {
        let message = format!(
            "tokens {from} to {to} are asked for; context {id} has {length}, so ask within 0 to {length}"
        );
        return Err(Fault::new(Errno::EINVAL, message));
    }
    Ok(Reply::Tokens(log[from as usize..to as usize].to_vec()))
}
