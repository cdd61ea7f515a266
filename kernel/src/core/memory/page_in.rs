//! Bringing the beginning of a log into the pool by the cheapest way: share it with a sequence that has it, load
//! saved pages, wait for a context that is computing it already, or compute it.
//!
//! Nobody waits in a circle, and nobody for one that cannot get on: a context waits only for running ones that
//! lack neither frames nor tokens of their rate and do not sit steps out because they are ahead, and among running
//! ones for those that are further on (or as far, and older). So the first of all waits for nobody. Whoever is waited
//! for runs at least in the waiter's class meanwhile (`process/inherit.rs`), so nobody waits for steps of a lower
//! class than his own; and where deadlines count, nobody waits for one whose own is later.

use std::cmp::Reverse;

use drivers::wire::{Op, PAGE_TOKENS};
use syscalls::ContextId;

use super::super::Kernel;
use super::super::context::Context;
use super::super::event::Now;
use super::super::sched::Place;
use super::paging::PageSent;
use super::tree::{Found, NodeId, View};

/// Pages that one step loads at most: 64 of them take as long as a few decode steps on every machine measured, and
/// whoever decodes waits for them.
const LOADS_MAX: usize = 64;

/// Tokens that are worth sharing: fewer are computed beside other rows at next to no cost, and a page that is shared
/// in part takes a frame of its own in the end.
const SHARED_TOKENS_MIN: u32 = 16;

/// How a context that waits in line should come into memory.
pub(in crate::core) enum Outlook {
    /// Not now: this one computes what it could share.
    Wait(ContextId),
    /// With so many tokens of this sequence, or with none.
    Share(Option<(ContextId, u32)>),
}

/// What became of a context that has a prompt to compute.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::core) enum PageIn {
    /// It can have a row.
    Ready,
    /// The next step loads pages for it.
    Loads,
    /// It waits for another context.
    Waits(ContextId),
}

impl Kernel {
    /// How a context in line should come into memory.
    pub(in crate::core) fn outlook(&self, id: ContextId) -> Outlook {
        let Some(context) = self.contexts.get(&id) else { return Outlook::Share(None) };
        // The last token of the log is always computed by the context itself, which needs what comes out of it.
        let useful = context.length().saturating_sub(1);
        let Some(found) = self.find_prefix(context) else { return Outlook::Share(None) };
        // Also for what is saved: who is computing loads it first, and both have it then in the same frames.
        if let Some(computing) = found.computing
            && found.coming.min(useful) >= found.resident.min(useful) + SHARED_TOKENS_MIN
        {
            return Outlook::Wait(computing);
        }
        Outlook::Share(share_of(&found, useful))
    }

    /// What there is of a context's log beyond what it has. None where the model keeps or loses whole sequences.
    fn find_prefix(&self, context: &Context) -> Option<Found> {
        let model = self.models.get(&context.model)?;
        let memory = model.memory.as_ref().filter(|m| m.ranges)?;
        let own = (context.id, context.computed());
        let view = |holder: ContextId| {
            if let Some(remnant) = memory.remnants.get(&holder) {
                let computed = remnant.resident.computed;
                return Some(View { log: &remnant.log, computed, active: false });
            }
            let other = self.contexts.get(&holder)?;
            let active = self.may_wait_for(context, other);
            Some(View { log: &other.log, computed: other.computed(), active })
        };
        Some(model.tree.find(&context.space, &context.log, own, view))
    }

    fn may_wait_for(&self, context: &Context, other: &Context) -> bool {
        // As nearly all do not, and all are asked for whoever waits in line.
        if !other.prefills() {
            return false;
        }
        let Some(model) = self.models.get(&context.model) else { return false };
        let first = || {
            let progress = |c: &Context| (c.computed(), Reverse(c.id));
            context.resident.is_none() || progress(other) > progress(context)
        };
        // Who is waited for gets the class of who waits, and not the deadline.
        let in_time = || {
            let due =
                |c: &Context| c.generation.as_ref().and_then(|g| g.deadline).map_or(u64::MAX, |at| at.0);
            let waiter = self.processes.living(context.owner);
            due(other) <= due(context)
                || waiter.is_none_or(|p| !self.config.policy.goes_by_deadline(p.class()))
        };
        let has_rate = || self.processes.living(other.owner).is_some_and(|p| self.empty_until(p).is_none());
        !model.suspects.contains(&other.id)
            && !model.sched.held_back.contains(&other.id)
            && !model.sched.sits_out.contains(&other.owner)
            && first()
            && in_time()
            && has_rate()
    }

    /// Does for a running context with a prompt what is cheaper than computing it.
    pub(in crate::core) fn page_in(&mut self, id: ContextId, may_wait: bool) -> PageIn {
        let Some(context) = self.contexts.get(&id) else { return PageIn::Ready };
        let useful = context.length().saturating_sub(1);
        let Some(found) = self.find_prefix(context) else { return PageIn::Ready };
        let computed = context.computed();
        if let Some((giver, length)) =
            share_of(&found, useful).filter(|(_, n)| *n >= computed + SHARED_TOKENS_MIN)
        {
            self.rebase(id, giver, length);
        }
        let computed = self.contexts.get(&id).map_or(0, |c| c.computed());
        if let Some(computing) = found.computing
            && may_wait
            && found.coming.min(useful) >= computed + SHARED_TOKENS_MIN
        {
            return PageIn::Waits(computing);
        }
        if self.load_pages(id, useful) { PageIn::Loads } else { PageIn::Ready }
    }

    /// Tokens to compute before the next page of a context that is saved, so that it need not be computed.
    pub(in crate::core) fn unsaved_ahead(&self, context: &Context) -> u32 {
        let (Some(resident), Some(model)) = (&context.resident, self.models.get(&context.model)) else {
            return u32::MAX;
        };
        let next = (resident.computed / PAGE_TOKENS + 1) as usize;
        let ahead = resident.path.iter().enumerate().skip(next);
        let mut saved = ahead.filter(|(_, node)| model.worth_loading(**node, PAGE_TOKENS));
        saved.next().map_or(u32::MAX, |(n, _)| n as u32 * PAGE_TOKENS - resident.computed)
    }

    /// Has the saved pages loaded that come next in a context's log, as far as that costs less than computing
    /// them, or has not been tried for long. Tells whether there are any.
    fn load_pages(&mut self, id: ContextId, useful: u32) -> bool {
        let now = self.now;
        let Some(context) = self.contexts.get_mut(&id) else { return false };
        let Some(model) = self.models.get_mut(&context.model) else { return false };
        let Some(resident) = context.resident.as_ref() else { return false };
        let mut at = resident.computed;
        let mut parent = resident.path[..resident.held as usize].last().copied();
        let asid = resident.lease.asid();
        let mut any = false;
        while at.is_multiple_of(PAGE_TOKENS) && at < useful && model.loads_due() < LOADS_MAX {
            let rest = &context.log[at as usize..];
            let Some((node, common)) = model.tree.saved_behind(&context.space, parent, rest) else { break };
            let keep = (at + common).min(useful);
            // The end of a log alone is not worth a step without a row.
            if !any && keep - at < SHARED_TOKENS_MIN {
                break;
            }
            // One page tells whether what was dear still is.
            let tries = !model.worth_loading(node, keep - at);
            if tries && !model.may_try_loading(node, now) {
                break;
            }
            let Some(saved) = model.tree.saved(node) else { break };
            let (slot, page) = (saved.slot, model.tree.label(node));
            model.page_op(
                Op::Load { asid, page, slot },
                PageSent::Load { context: id, node, slot, page, keep },
            );
            any = true;
            if tries || keep < at + PAGE_TOKENS {
                break;
            }
            (at, parent) = (keep, Some(node));
        }
        context.in_step |= any;
        any
    }
}

/// What to share of what was found. Where the rest of a page is saved, the page is loaded as a whole.
fn share_of(found: &Found, useful: u32) -> Option<(ContextId, u32)> {
    let resident = found.resident.min(useful);
    let rest = resident % PAGE_TOKENS;
    let length = if found.available.min(useful) > resident { resident - rest } else { resident };
    found.giver.filter(|_| length >= SHARED_TOKENS_MIN).map(|giver| (giver, length))
}

impl super::super::model::Model {
    /// Loads that the next step has so far.
    fn loads_due(&self) -> usize {
        self.page_ops.iter().filter(|sent| matches!(sent, PageSent::Load { .. })).count()
    }

    fn worth_loading(&self, node: NodeId, tokens: u32) -> bool {
        let saved = self.tree.saved(node);
        saved.is_some_and(|s| self.paging.load_pays(s.slot, self.sched.cost.prefill_us(tokens)))
    }

    /// Whether a page that is not worth loading may be loaded, to find out whether it is not.
    fn may_try_loading(&self, node: NodeId, now: Now) -> bool {
        let saved = self.tree.saved(node);
        self.loads_due() == 0 && saved.is_some_and(|s| self.paging.load_is_doubted(s.slot, now))
    }
}

impl Context {
    /// Whether it runs with more than one token to compute.
    pub(in crate::core) fn prefills(&self) -> bool {
        self.place == Place::Running && self.remaining() > 1
    }
}
