//! Making contexts: new ones, and copies that share their pages until one of them writes.

use std::collections::VecDeque;

use syscalls::call::{Message, OnFull};
use syscalls::limits::CONTEXTS_PER_PROCESS_MAX;
use syscalls::{ContextId, Errno, Fault, Pid, Reply};

use super::super::Kernel;
use super::super::event::ModelId;
use super::super::memory::Space;
use super::super::process::Process;
use super::super::sched::Place;
use super::super::snapshot::SnapshotRecord;
use super::{Context, Log};

/// What a new context begins with.
struct Beginning {
    /// Where its log belongs; with its owner's own if absent.
    space: Option<Space>,
    log: Log,
    evaluated: u32,
    instructions: u32,
    messages: Vec<Message>,
    answering: bool,
    on_full: OnFull,
    condemned: Option<u32>,
    /// It may have killed a worker, and is run alone until that is known.
    suspected: bool,
}

impl Kernel {
    /// Opens a context that is empty, or begins with a segment.
    pub(in crate::core) fn new_context(
        &mut self,
        owner: Pid,
        model: ModelId,
        tokens_max: u32,
        on_full: OnFull,
        segment: Option<&str>,
    ) -> Result<ContextId, Fault> {
        let identity = &self.process(owner)?.id;
        let (uid, caps) = (identity.uid, self.process(owner)?.caps);
        let segment = segment.map(|name| self.segments.readable(name, uid, caps)).transpose()?;
        let empty = Beginning {
            space: None,
            log: Vec::new().into(),
            evaluated: 0,
            instructions: 0,
            messages: vec![],
            answering: false,
            on_full,
            condemned: None,
            suspected: false,
        };
        let beginning = match segment {
            None => empty,
            Some(segment) => Beginning {
                space: Some(segment.space(uid)),
                log: segment.log.clone().into(),
                messages: segment.messages.clone(),
                answering: segment.answering,
                condemned: segment.condemned,
                suspected: segment.suspected,
                ..empty
            },
        };
        let length = beginning.log.len();
        if length > tokens_max as usize {
            let message = format!(
                "the segment has {length} tokens and the context holds {tokens_max}; open a larger one"
            );
            return Err(Fault::new(Errno::ENOSPC, message));
        }
        self.check_contexts(owner, 1, length as u64)?;
        Ok(self.enter_context(owner, model, tokens_max, beginning))
    }

    /// Opens a context that is as it was when a snapshot of it was made.
    pub(in crate::core) fn context_from(
        &mut self,
        owner: Pid,
        model: ModelId,
        tokens_max: u32,
        snapshot: &SnapshotRecord,
    ) -> Result<ContextId, Fault> {
        self.check_contexts(owner, 1, snapshot.tokens.len() as u64)?;
        let beginning = Beginning {
            space: None,
            log: snapshot.tokens.clone().into(),
            evaluated: 0,
            instructions: snapshot.instructions,
            messages: snapshot.messages.clone(),
            answering: snapshot.answering,
            on_full: snapshot.on_full,
            condemned: snapshot.condemned,
            suspected: snapshot.suspected,
        };
        Ok(self.enter_context(owner, model, tokens_max, beginning))
    }

    /// Copies a context up to `length`, or all of it.
    pub(super) fn fork(&mut self, id: ContextId, copies: u32, length: Option<u32>) -> Result<Reply, Fault> {
        let parent = self.context(id)?;
        let (owner, model, tokens_max, had) =
            (parent.owner, parent.model, parent.tokens_max, parent.length());
        let length = length.unwrap_or(had);
        if length > had {
            let message = format!("context {id} has {had} tokens, so {length} of it cannot be copied");
            return Err(Fault::new(Errno::EINVAL, message));
        }
        self.check_contexts(owner, copies, u64::from(copies) * u64::from(length))?;
        let contexts = (0..copies).map(|_| self.copy(id, owner, model, tokens_max, length)).collect();
        Ok(Reply::Forked { contexts })
    }

    pub(super) fn copy(
        &mut self,
        id: ContextId,
        owner: Pid,
        model: ModelId,
        tokens_max: u32,
        length: u32,
    ) -> ContextId {
        let suspected = self.models.get(&model).is_some_and(|m| m.suspects.contains(&id));
        let parent = self.contexts.get_mut(&id).expect("the caller has found it");
        let whole = length == parent.length() && parent.generation.is_none();
        let beginning = Beginning {
            space: Some(parent.space.up_to(length)),
            log: parent.log.share_up_to(length).into(),
            evaluated: parent.evaluated.min(length),
            instructions: parent.instructions.min(length),
            messages: if whole { parent.messages.clone() } else { vec![] },
            answering: whole && parent.answering,
            on_full: parent.on_full,
            condemned: parent.condemned.filter(|at| *at <= length),
            suspected,
        };
        let child = self.enter_context(owner, model, tokens_max, beginning);
        self.share_pages(id, child, length);
        child
    }

    fn enter_context(
        &mut self,
        owner: Pid,
        model: ModelId,
        tokens_max: u32,
        beginning: Beginning,
    ) -> ContextId {
        self.next_context += 1;
        let id = ContextId(self.next_context);
        if let Some(process) = self.processes.living_mut(owner) {
            process.contexts.insert(id);
            process.context_tokens += beginning.log.len() as u64;
        }
        if let Some(model) = self.models.get_mut(&model) {
            model.contexts.insert(id);
            if beginning.suspected {
                model.suspects.insert(id);
            }
        }
        let uid = self.processes.identity(owner).map_or(u32::MAX, |id| id.uid);
        let context = Context {
            id,
            owner,
            model,
            space: beginning.space.unwrap_or(Space::of_user(uid)),
            log: beginning.log,
            tokens_max,
            on_full: beginning.on_full,
            evaluated: beginning.evaluated,
            instructions: beginning.instructions,
            messages: beginning.messages,
            answering: beginning.answering,
            queue: VecDeque::new(),
            compaction: None,
            generation: None,
            resident: None,
            place: Place::Parked,
            in_step: false,
            condemned: beginning.condemned,
            kept: self.processes.living(owner).is_some_and(Process::is_persistent).then_some(0),
        };
        self.contexts.insert(id, context);
        self.contexts_of.add(uid);
        self.touch(id);
        id
    }

    /// Checks that a process may have `more` contexts with so many tokens.
    pub(super) fn check_contexts(&self, owner: Pid, more: u32, tokens: u64) -> Result<(), Fault> {
        self.check_groups(owner, u64::from(more), tokens)?;
        let process = self.process(owner)?;
        let (uid, caps, of_user) = (process.id.uid, process.caps, self.config.user.contexts);
        self.contexts_of.check(uid, caps, u64::from(more), of_user, "contexts")?;
        let (has, wanted) = (process.contexts.len() as u64, u64::from(more));
        let most = process.limits.contexts.unwrap_or(u64::MAX).min(CONTEXTS_PER_PROCESS_MAX as u64);
        if has + wanted > most {
            let message = format!(
                "process {owner} has {has} contexts and would get {wanted} more; the limit is {most}, close some"
            );
            return Err(Fault::new(Errno::EMFILE, message));
        }
        if tokens > process.context_tokens_left() {
            let (has, most) = (process.context_tokens, process.limits.context_tokens.unwrap_or_default());
            let message = format!(
                "process {owner} has {has} tokens in its contexts and would get {tokens} more; its limit is {most}, raise it with setlimit"
            );
            return Err(Fault::new(Errno::E2BIG, message));
        }
        Ok(())
    }
}
