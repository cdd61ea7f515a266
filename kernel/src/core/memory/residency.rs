//! How contexts come to have entries in the pool, share them and lose them.

use drivers::wire::{Op, PAGE_TOKENS};
use syscalls::ContextId;
use syscalls::event::PageChange;

use super::super::Kernel;
use super::super::context::Context;
use super::super::sched::Place;
use super::Resident;

/// Relatives that are looked at for a beginning in common.
const KIN_MAX: usize = 4;

/// What relatives can do for a context that comes into memory.
pub(in crate::core) enum Kin {
    /// Nothing.
    None,
    /// This one has the first so many tokens in the pool.
    Has(ContextId, u32),
    /// One is computing what it could share: waiting costs less than computing it again.
    Computing,
}

impl Kernel {
    /// Lets an empty context share the entries of another up to `length`, as far as there are any, and if a
    /// sequence id is free.
    pub(in crate::core) fn share_pages(&mut self, from: ContextId, to: ContextId, length: u32) {
        let Some(context) = self.contexts.get(&from) else { return };
        let Some(model) = self.models.get_mut(&context.model).filter(|m| m.is_ready()) else { return };
        let (Some(memory), Some(resident)) = (&mut model.memory, &context.resident) else { return };
        let length = length.min(resident.computed);
        let pages = length.div_ceil(PAGE_TOKENS) as usize;
        let allowed = self
            .processes
            .living(context.owner)
            .is_some_and(|p| p.limits.resident_frames.is_none_or(|most| p.frames + pages as u64 <= most));
        if length == 0 || !memory.ranges || !allowed {
            return;
        }
        let Some(lease) = memory.asids.lend() else { return };
        model.ops.push(Op::Share { from: resident.lease.asid(), to: lease.asid(), length });
        let pages = resident.pages[..pages].iter().map(|page| memory.pool.share(page)).collect();
        self.install(to, Resident { lease, computed: length, pages, sampler: None });
    }

    /// Gives a context a sequence without entries.
    pub(in crate::core) fn lend_sequence(&mut self, id: ContextId) -> bool {
        let Some(context) = self.contexts.get(&id) else { return false };
        let Some(memory) = self.models.get_mut(&context.model).and_then(|m| m.memory.as_mut()) else {
            return false;
        };
        let Some(lease) = memory.asids.lend() else { return false };
        self.install(id, Resident { lease, computed: 0, pages: Vec::new(), sampler: None });
        true
    }

    fn install(&mut self, id: ContextId, resident: Resident) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        assert!(context.resident.is_none(), "context {id} has a sequence already");
        let (pages, computed) = (resident.pages.len() as u64, resident.computed);
        context.resident = Some(resident);
        let (owner, family, model) = (context.owner, context.family, context.model);
        if let Some(memory) = self.models.get_mut(&model).and_then(|m| m.memory.as_mut()) {
            memory.families.entry(family).or_default().insert(id);
        }
        if let Some(process) = self.processes.living_mut(owner) {
            process.frames += pages;
        }
        self.pages_changed(id, PageChange::Mapped, computed);
        self.settle(id);
    }

    /// Drops the entries from `length` on. Where the model keeps or loses whole sequences, all are dropped.
    pub(in crate::core) fn rewind(&mut self, id: ContextId, length: u32) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        let Some(resident) = context.resident.as_mut().filter(|r| r.computed > length) else { return };
        let Some(model) = self.models.get_mut(&context.model) else { return };
        let Some(memory) = &mut model.memory else { return };
        if length == 0 || !memory.ranges {
            return self.release_pages(id);
        }
        resident.computed = length;
        model.ops.push(Op::Drop { asid: resident.lease.asid(), from: length });
        let dropped = resident.pages.split_off(length.div_ceil(PAGE_TOKENS) as usize);
        let count = dropped.len() as u64;
        dropped.into_iter().for_each(|page| memory.pool.release(page));
        if let Some(process) = self.processes.living_mut(context.owner) {
            process.frames -= count;
        }
    }

    /// Takes all entries, the frames and the sequence id of a context. Its log stays.
    pub(in crate::core) fn release_pages(&mut self, id: ContextId) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        let Some(resident) = context.resident.take() else { return };
        let (owner, family) = (context.owner, context.family);
        let (frames, computed) = (resident.pages.len() as u64, resident.computed);
        if let Some(model) = self.models.get_mut(&context.model) {
            let asid = resident.lease.asid();
            if !model.forget_shared(asid) {
                if resident.sampler.is_some() {
                    model.ops.push(Op::SamplerClose { asid });
                }
                model.ops.push(Op::Drop { asid, from: 0 });
            }
            model.take_back(id, family, resident);
        }
        if let Some(process) = self.processes.living_mut(owner) {
            process.frames -= frames;
        }
        self.pages_changed(id, PageChange::Dropped, computed);
        self.settle(id);
    }

    /// What the relatives of a context can do for it.
    pub(in crate::core) fn kin(&self, id: ContextId) -> Kin {
        let Some(context) = self.contexts.get(&id) else { return Kin::None };
        let memory = self.models.get(&context.model).and_then(|m| m.memory.as_ref());
        let Some(memory) = memory.filter(|m| m.ranges) else { return Kin::None };
        let family = memory.families.get(&context.family);
        let relatives = family.into_iter().flatten().take(KIN_MAX).filter_map(|k| self.contexts.get(k));
        let (mut has, mut giver, mut will_have) = (0, None, 0);
        for relative in relatives {
            let common = common_prefix(context, relative);
            let now = common.min(relative.computed());
            if now > has {
                (has, giver) = (now, Some(relative.id));
            }
            let prefills = relative.place == Place::Running && relative.remaining() > 1;
            if prefills {
                will_have = will_have.max(common);
            }
        }
        // The last token of the log is always computed by the context itself, which needs what comes out of it.
        let useful = context.length().saturating_sub(1);
        if will_have.min(useful) > has.min(useful) {
            return Kin::Computing;
        }
        match giver {
            Some(giver) if has.min(useful) > 0 => Kin::Has(giver, has.min(useful)),
            _ => Kin::None,
        }
    }
}

/// Tokens that two logs have in common at their beginnings.
fn common_prefix(a: &Context, b: &Context) -> u32 {
    a.log.iter().zip(b.log.iter()).take_while(|(x, y)| x == y).count() as u32
}
