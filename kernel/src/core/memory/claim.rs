//! Finding out what the last daemon has saved of a log: a walk along its pages, by the digests that they would be saved
//! under. What is there becomes saved pages of the tree, to be loaded as any others are.
//!
//! Contexts that outlived the daemon, snapshots and segments claim theirs when their model is loaded, so that what is
//! left of the pages goes before these do; others when they begin to generate.

use std::collections::BTreeMap;

use drivers::wire::{PAGE_TOKENS, PageOwner, Slot};
use syscalls::{ContextId, Pid, Token};

use super::super::Kernel;
use super::super::effect::{Effect, LogLevel};
use super::super::event::ModelId;
use super::super::model::Model;
use super::evict::Payment;
use super::tree::{Saved, Space};

/// Pages of a log that are looked for behind the last one that was there. Behind a page that was lost there may be
/// others; a log that was never saved is not looked through to its end.
const MISSING_MAX: u32 = 64;

impl Kernel {
    /// Takes in what the first worker of a model has found on disk, and lets all that is kept have its part of it.
    pub(in crate::core) fn take_in_saved(&mut self, id: ModelId) {
        let Some(model) = self.models.get_mut(&id) else { return };
        let Some(description) = &mut model.description else { return };
        let saved = std::mem::take(&mut description.saved);
        if let Some(why) = saved.dropped {
            let line = format!("saved pages of model {} are dropped: {why}", model.name);
            self.out.push(Effect::Log(LogLevel::Info, line));
        }
        let (taken, left_out) = model.slots.take_in(saved.pages, &mut self.swap);
        let (name, fingerprint) = (model.name.clone(), model.fingerprint());
        let last_segment = model.slots.last_segment_found();
        left_out.into_iter().for_each(|slot| self.clear_slot(id, slot));
        if taken == 0 {
            return;
        }
        let line = format!("model {name} has {taken} pages of contexts on disk");
        self.out.push(Effect::Log(LogLevel::Info, line));
        last_segment.into_iter().for_each(|last| self.segments.count_from(last));
        let mut logs = self.segments.logs_on(id);
        logs.extend(self.snapshots.logs_of(fingerprint));
        for (space, log) in logs {
            self.claim(id, &space, &log, None);
        }
    }

    /// Lets a context have what was saved of its log.
    pub(in crate::core) fn claim_saved(&mut self, id: ContextId) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        let (model, space, log, owner) = (context.model, context.space, context.log.share(), context.owner);
        self.claim(model, &space, &log, Some(owner));
    }

    fn claim(&mut self, id: ModelId, space: &Space, log: &[Token], owner: Option<Pid>) {
        let Some((model, mut payment)) = self.model_and_payment(id) else { return };
        model.claim(space, log, owner, &mut payment);
    }
}

impl Model {
    fn claim(&mut self, space: &Space, log: &[Token], owner: Option<Pid>, payment: &mut Payment) {
        let owners = [space.beginning().1, PageOwner::User(space.uid)];
        if !owners.into_iter().any(|owner| self.slots.has_found(owner)) {
            return;
        }
        let found = self.found_of(space, log);
        let Some(last) = found.last_key_value().map(|(at, _)| *at) else { return };
        let mut parent = None;
        let pages = log.chunks_exact(PAGE_TOKENS as usize).enumerate();
        for (at, page) in pages.take_while(|(at, _)| *at <= last) {
            let node = self.tree.child(space, parent, page);
            parent = Some(node);
            let Some((slot, tick)) = found.get(&at).copied() else { continue };
            if self.tree.saved(node).is_some() || !payment.may_save(owner) {
                self.slots.give_back(slot, payment.budget);
                payment.out.push(self.clearing(slot));
                continue;
            }
            let charged = payment.charge(owner);
            self.tree.set_saved(node, Some(Saved { slot, ready: true, tick, charged }));
            self.slots.list(slot, tick, node);
        }
        parent.into_iter().for_each(|node| self.tree.prune(node));
    }

    /// Takes out of what was found the whole pages of a log, each with its slot and when it was saved.
    fn found_of(&mut self, space: &Space, log: &[Token]) -> BTreeMap<usize, (Slot, u64)> {
        let mut found = BTreeMap::new();
        let (mut digest, mut owner) = space.beginning();
        let mut missing = 0;
        for (at, page) in log.chunks_exact(PAGE_TOKENS as usize).enumerate() {
            if space.gated_at(at as u32) {
                (digest, owner) = (digest.then(space.uid), PageOwner::User(space.uid));
            }
            digest = digest.over(page);
            match self.slots.claim(owner, digest.value()) {
                Some(saved) => {
                    found.insert(at, saved);
                    missing = 0;
                }
                None => missing += 1,
            }
            if missing > MISSING_MAX {
                break;
            }
        }
        found
    }
}
