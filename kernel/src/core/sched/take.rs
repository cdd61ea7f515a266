//! What came of one row of a step: entries in the pool, and tokens for its generation.
//!
//! The effect that tells of a token is made where it goes, and returned by nobody: an effect is large, and to copy one
//! that was written a moment ago, field by field, makes the processor wait for each of these writes.

use std::collections::BTreeSet;

use drivers::wire::{PAGE_TOKENS, RowDone, Sampled};
use syscalls::reply::Finish;
use syscalls::{ContextId, Errno, Event, Fault, Pid, TokenRun};

use super::super::Kernel;
use super::super::connection::Connection;
use super::super::context::Context;
use super::super::counters::Counters;
use super::super::effect::Effect;
use super::super::event::{ConnId, ModelId, Now};
use super::super::generate::Taken;
use super::super::group::Groups;
use super::super::image::Journal;
use super::super::model::Model;
use super::super::process::Process;
use super::super::table::Table;
use super::RowSent;

/// All that a token touches, looked up once for a row.
struct Taking<'a> {
    now: Now,
    context: &'a mut Context,
    model: &'a mut Model,
    owner: &'a mut Process,
    counters: &'a mut Counters,
    groups: &'a mut Groups,
    journal: &'a mut Journal,
    used_up: &'a mut BTreeSet<Pid>,
    connections: &'a Table<ConnId, Connection>,
    out: &'a mut Vec<Effect>,
}

/// What is to be done about a token that was taken and told of.
struct Came {
    /// Its bytes, where its process is traced.
    traced: Option<Vec<u8>>,
    finish: Option<Finish>,
    full: bool,
}

/// What is still to be done when the tokens of a row are taken.
#[derive(PartialEq)]
enum Left {
    Nothing,
    /// Its context is still part of the step, and may have a call that waited for its end.
    Context,
}

impl Kernel {
    /// Takes what came of a row out of the answer, piece by piece: each token moved as a whole would be copied several
    /// times. Nothing begins on the context until all is taken.
    pub(super) fn row_done(&mut self, model: ModelId, row: &RowSent, done: &mut RowDone) {
        let id = row.context;
        let left = match done {
            RowDone::Failed(fault) if fault.errno != Errno::ENOMEM => {
                self.lose_whole(model, id);
                let goes_on = |c: &&Context| c.generating() == Some(row.call);
                if self.contexts.get(&id).filter(goes_on).is_some() {
                    // The worker has lived through it.
                    if let Some(model) = self.models.get_mut(&model) {
                        model.suspects.remove(&id);
                    }
                    let message = std::mem::take(&mut fault.message);
                    self.fail_generation(id, Fault::new(fault.errno, message));
                }
                Left::Context
            }
            RowDone::Failed(_) | RowDone::Withdrawn => Left::Context,
            RowDone::Computed => self.take_row(model, row, &mut []),
            RowDone::Sampled(sampled) => self.take_row(model, row, sampled),
        };
        if left == Left::Nothing {
            return;
        }
        let Some(context) = self.contexts.get_mut(&id) else { return };
        context.in_step = false;
        // A call that waited behind one which ended while the row was under way.
        if context.generation.is_none() && context.queue.front().is_some_and(|head| head.work.is_some()) {
            self.advance(id);
        }
    }

    /// Gives up what a context has whose row failed, where its sequence cannot be cut: nothing is left of it then.
    fn lose_whole(&mut self, model: ModelId, id: ContextId) {
        let memory = self.models.get(&model).and_then(|m| m.memory.as_ref());
        if memory.is_some_and(|m| !m.ranges) {
            self.release_pages(id);
        }
    }

    /// Takes the entries of a row and the tokens that came of it.
    fn take_row(&mut self, model: ModelId, row: &RowSent, sampled: &mut [Sampled]) -> Left {
        let Some(mut taking) = self.taking(model, row.context) else { return Left::Context };
        taking.entries(row);
        let Some((first, guessed)) = sampled.split_first_mut() else { return Left::Context };
        taking.clear_suspect();
        let came = taking.token(row, first);
        // As a rule, and not looked up again for that: one token, after which the generation goes on.
        if let Some(Came { traced: None, finish: None, full: false }) = came
            && row.draft.is_empty()
        {
            taking.context.in_step = false;
            return Left::Nothing;
        }
        self.act_on(row, first, came);
        for token in guessed.iter_mut() {
            let came = self.taking(model, row.context).and_then(|mut taking| taking.token(row, token));
            self.act_on(row, token, came);
        }
        if !row.draft.is_empty() {
            self.drop_wrong_guesses(model, row, guessed.len() as u32);
        }
        Left::Context
    }

    fn taking(&mut self, model: ModelId, context: ContextId) -> Option<Taking<'_>> {
        let context = self.contexts.get_mut(&context)?;
        Some(Taking {
            now: self.now,
            model: self.models.get_mut(&model)?,
            owner: self.processes.living_mut(context.owner)?,
            context,
            counters: &mut self.counters,
            groups: &mut self.groups,
            journal: &mut self.journal,
            used_up: &mut self.used_up,
            connections: &self.connections,
            out: &mut self.out,
        })
    }

    /// Traces a token that was taken, and ends its generation if that was the last.
    fn act_on(&mut self, row: &RowSent, sampled: &Sampled, came: Option<Came>) {
        let Some(Came { traced, finish, full }) = came else { return };
        if let Some(piece) = traced {
            self.trace_token(row.owner, row.call, row.context, sampled.token, &piece);
        }
        match finish {
            Some(finish) => self.end_generation(row.context, finish),
            None if full => self.shorten(row.context),
            None => {}
        }
    }

    /// Entries of all tokens but the last are in the pool: those that the generation did not take any more, because it
    /// ended before them, are dropped, and so are those of guesses that were wrong.
    fn drop_wrong_guesses(&mut self, model: ModelId, row: &RowSent, right: u32) {
        self.count(model, row.owner, |c| {
            c.tokens_drafted += row.draft.len() as u64;
            c.tokens_accepted += u64::from(right);
        });
        let Some(context) = self.contexts.get_mut(&row.context) else { return };
        let length = context.length();
        let Some(resident) = &mut context.resident else { return };
        resident.computed += right;
        context.evaluated = context.evaluated.max(resident.computed.min(length));
        self.rewind(row.context, length);
        self.enroll_context(row.context);
    }
}

impl Taking<'_> {
    /// Counts the entries that a row added to the pool.
    fn entries(&mut self, row: &RowSent) {
        let context = &mut *self.context;
        let Some(resident) = &mut context.resident else { return };
        let end = row.position + row.tokens;
        resident.computed = end;
        let again = context.evaluated.clamp(row.position, end) - row.position;
        context.evaluated = context.evaluated.max(end);
        // Generated tokens get their entries one step after they came out, and are no prompt.
        let prompt_end = end.min(row.prompt);
        let prompt = prompt_end.saturating_sub(row.position + again);
        if row.position < prompt_end
            && let Some(generation) = context.generation.as_mut().filter(|g| g.call == row.call)
        {
            generation.usage.prompt_tokens_evaluated += prompt_end - row.position;
        }
        context.enroll(self.model);
        // However many rows a page takes, it comes back once.
        let begun = |tokens: u32| tokens.div_ceil(PAGE_TOKENS);
        let refaults = u64::from(begun(row.position + again) - begun(row.position));
        if again + prompt > 0 {
            for c in [&mut *self.counters, &mut self.model.counters, &mut self.owner.id.counters] {
                c.tokens_recomputed += u64::from(again);
                c.prompt_tokens_evaluated += u64::from(prompt);
                c.refaults += refaults;
            }
        }
    }

    /// A context of which a row is through has not let its worker die.
    fn clear_suspect(&mut self) {
        if !self.model.suspects.is_empty() {
            self.model.suspects.remove(&self.context.id);
        }
    }

    /// Takes the next token of a generation, if it is still the one that the row was of, and tells its caller.
    fn token(&mut self, row: &RowSent, sampled: &mut Sampled) -> Option<Came> {
        let Taking { now, context, model, owner, counters, groups, journal, used_up, connections, out } =
            self;
        if context.generating() != Some(row.call) {
            return None;
        }
        context.extend(owner, &[sampled.token]);
        counters.tokens_generated += 1;
        model.counters.tokens_generated += 1;
        owner.count_token(*now);
        if owner.limits.generated_tokens.is_some_and(|most| owner.id.counters.tokens_generated >= most) {
            used_up.insert(owner.id.pid);
        }
        groups.take_tokens(owner.id.group, *now, 1);
        if model.description.as_ref().is_some_and(|d| d.drafts) {
            context.learn_to_draft();
        }
        if context.kept.is_some() {
            journal.grow(context, sampled);
        } else if owner.is_persistent() {
            journal.touch_process(owner.id.pid);
        }
        let room_left = owner.context_tokens_left() > 0;
        let traced = owner.traced.then(|| sampled.piece.clone());
        let Taken { told, finish, full } = context.take_token(sampled, room_left, *now)?;
        if let Some((caller, text, logprobs)) = told {
            let tokens = TokenRun::from_elem(sampled.token, 1);
            caller.tell(connections, out, Event::Tokens { text, tokens, logprobs });
        }
        Some(Came { traced, finish, full })
    }
}

impl Process {
    /// Counts a token, and takes it off its rate.
    fn count_token(&mut self, now: Now) {
        self.id.counters.tokens_generated += 1;
        if let Some(bucket) = &mut self.bucket {
            bucket.take(now, 1);
        }
    }
}
