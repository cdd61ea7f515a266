//! How contexts come to have entries in the pool, share them and lose them.

use drivers::wire::{Op, PAGE_TOKENS};
use syscalls::event::PageChange;
use syscalls::{ContextId, Token};

use super::super::Kernel;
use super::super::context::Context;
use super::super::event::ModelId;
use super::super::model::Model;
use super::{PageRef, Resident, Space};

impl Kernel {
    /// The part of the pool that a context or remnant has.
    pub(super) fn resident(&self, model: ModelId, id: ContextId) -> Option<&Resident> {
        let of_context = self.contexts.get(&id).and_then(|c| c.resident.as_ref());
        let memory = self.models.get(&model)?.memory.as_ref()?;
        of_context.or_else(|| memory.remnants.get(&id).map(|r| &r.resident))
    }

    /// Lets a context without entries share those of another sequence up to `length`, as far as there are any, and
    /// if a sequence id is free. Where the model keeps or loses whole sequences, that is all that the other has or
    /// nothing.
    pub(in crate::core) fn share_pages(&mut self, from: ContextId, to: ContextId, length: u32) {
        let Some(context) = self.contexts.get(&to) else { return };
        let (model_id, owner) = (context.model, context.owner);
        let Some(resident) = self.resident(model_id, from) else { return };
        let (length, giver) = (length.min(resident.computed), resident.lease.asid());
        // The worker adds to a sequence with a row under way, so of that this would be a part.
        let is_whole = length == resident.computed && self.contexts.get(&from).is_none_or(|c| !c.in_step);
        let count = length.div_ceil(PAGE_TOKENS) as u64;
        let allowed = self.processes.living(owner).is_some_and(|p| {
            p.limits.resident_frames.is_none_or(|most| p.frames + count <= most)
                && self.groups.may_map(&self.processes, p.id.group, count)
        });
        let ready = self.models.get(&model_id).is_some_and(|m| m.is_ready());
        if length == 0 || !allowed || !ready {
            return;
        }
        let Some(memory) = self.models.get_mut(&model_id).and_then(|m| m.memory.as_mut()) else { return };
        let can_share = memory.ranges || is_whole;
        let Some(lease) = can_share.then(|| memory.asids.lend()).flatten() else { return };
        let pages = self.shared_pages(model_id, from, length);
        if let Some(model) = self.models.get_mut(&model_id) {
            model.ops.push(Op::Share { from: giver, to: lease.asid(), length });
        }
        self.install(to, Resident::new(lease, length, pages));
        self.use_remnant(model_id, from);
    }

    /// One more reference to each page of the first `length` entries of a sequence.
    pub(in crate::core) fn shared_pages(
        &mut self,
        model: ModelId,
        from: ContextId,
        length: u32,
    ) -> Vec<PageRef> {
        let count = length.div_ceil(PAGE_TOKENS) as usize;
        let Some(memory) = self.models.get_mut(&model).and_then(|m| m.memory.as_mut()) else { return vec![] };
        let of_context = self.contexts.get(&from).and_then(|c| c.resident.as_ref());
        let of_remnant = memory.remnants.get(&from).map(|r| &r.resident);
        let Some(giver) = of_context.or(of_remnant) else { return vec![] };
        giver.pages[..count].iter().map(|page| memory.pool.share(page)).collect()
    }

    /// Gives a context what a remnant has, the sequence id included, if little would be left of it otherwise.
    pub(super) fn adopt(&mut self, remnant: ContextId, to: ContextId, length: u32, anyway: bool) -> bool {
        let Some((model_id, uid)) = self.contexts.get(&to).map(|c| (c.model, c.space.uid)) else {
            return false;
        };
        let Some(memory) = self.models.get(&model_id).and_then(|m| m.memory.as_ref()) else { return false };
        let adoptable = memory.remnants.get(&remnant).is_some_and(|r| {
            !r.pinned && (anyway || r.resident.computed / PAGE_TOKENS <= length.div_ceil(PAGE_TOKENS))
        });
        if !adoptable {
            return false;
        }
        let Some(taken) = self.take_remnant(model_id, remnant) else { return false };
        let mut resident = taken.resident;
        let Some(model) = self.models.get_mut(&model_id) else { return false };
        model.leave_tree(remnant, &mut resident);
        if resident.computed > length {
            model.ops.push(Op::Drop { asid: resident.lease.asid(), from: length });
        }
        resident.computed = length;
        if let Some(memory) = &mut model.memory {
            let surplus = resident.pages.split_off(length.div_ceil(PAGE_TOKENS) as usize);
            surplus.into_iter().for_each(|page| memory.pool.release(page));
            // The last page may have room in which the one before had more.
            resident.pages.last().iter().for_each(|page| memory.pool.hand_over(page, uid));
        }
        self.install(to, resident);
        true
    }

    /// Gives a context a sequence without entries.
    pub(in crate::core) fn lend_sequence(&mut self, id: ContextId) -> bool {
        let Some(context) = self.contexts.get(&id) else { return false };
        let Some(memory) = self.models.get_mut(&context.model).and_then(|m| m.memory.as_mut()) else {
            return false;
        };
        let Some(lease) = memory.asids.lend() else { return false };
        self.install(id, Resident::new(lease, 0, Vec::new()));
        true
    }

    fn install(&mut self, id: ContextId, resident: Resident) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        assert!(context.resident.is_none(), "context {id} has a sequence already");
        let (pages, computed) = (resident.pages.len() as u64, resident.computed);
        context.resident = Some(resident);
        if let Some(process) = self.processes.living_mut(context.owner) {
            process.frames += pages;
        }
        self.pages_changed(id, PageChange::Mapped, computed);
        self.settle(id);
    }

    /// Changes a context over to another sequence's pages, which hold more of its log than its own.
    pub(super) fn rebase(&mut self, id: ContextId, giver: ContextId, length: u32) {
        let Some(context) = self.contexts.get(&id) else { return };
        let (model_id, owner) = (context.model, context.owner);
        // Who lacks a frame, because a copy of it has its last page and its rate is used up, gives back too few.
        if self.models.get(&model_id).is_none_or(|model| model.lacks_frames(context)) {
            return;
        }
        let Some(from) = self.resident(model_id, giver).filter(|r| r.computed >= length) else { return };
        let from = from.lease.asid();
        let pages = self.shared_pages(model_id, giver, length);
        let (Some(context), Some(model)) = (self.contexts.get_mut(&id), self.models.get_mut(&model_id))
        else {
            return;
        };
        let (Some(resident), Some(memory)) = (&mut context.resident, &mut model.memory) else { return };
        let to = resident.lease.asid();
        let new = pages.len();
        let old = std::mem::replace(&mut resident.pages, pages);
        let had = old.len();
        old.into_iter().for_each(|page| memory.pool.release(page));
        resident.computed = length;
        model.ops.push(Op::Drop { asid: to, from: 0 });
        model.ops.push(Op::Share { from, to, length });
        // What was free of these is free still, so all of the log has room.
        let wanted = context.log.len() as u32;
        memory.fill(resident, wanted, context.space.uid);
        let has = resident.pages.len();
        debug_assert!(new <= has);
        if let Some(process) = self.processes.living_mut(owner) {
            process.frames = process.frames + has as u64 - had as u64;
        }
        self.enroll_context(id);
        self.use_remnant(model_id, giver);
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
        self.enroll_context(id);
    }

    /// Takes all entries, the frames and the sequence id of a context. Its log stays, and nothing is saved.
    pub(in crate::core) fn release_pages(&mut self, id: ContextId) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        let Some(resident) = context.resident.take() else { return };
        let owner = context.owner;
        let (frames, computed) = (resident.pages.len() as u64, resident.computed);
        if let Some(model) = self.models.get_mut(&context.model) {
            model.give_up(id, resident);
        }
        if let Some(process) = self.processes.living_mut(owner) {
            process.frames -= frames;
        }
        if computed > 0 {
            self.pages_changed(id, PageChange::Dropped, computed);
        }
        self.settle(id);
    }

    /// A context is the segment that it was opened on up to a length only: what it gets behind that is its user's
    /// own.
    pub(in crate::core) fn leave_segment(&mut self, id: ContextId, length: u32) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        let left = context.space.up_to(length);
        if left == context.space {
            return;
        }
        let before = std::mem::replace(&mut context.space, left);
        debug_assert_eq!(before.root, left.root);
        let Some(resident) = &mut context.resident else { return };
        if let Some(model) = self.models.get_mut(&context.model) {
            model.leave_tree(id, resident);
        }
        self.enroll_context(id);
    }

    /// Brings the tree to what a context has and is to compute.
    pub(in crate::core) fn enroll_context(&mut self, id: ContextId) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        if let Some(model) = self.models.get_mut(&context.model) {
            context.enroll(model);
        }
    }
}

impl Context {
    /// Brings the tree to what it has and is to compute.
    pub(in crate::core) fn enroll(&mut self, model: &mut Model) {
        let prefills = self.prefills();
        if let Some(resident) = &mut self.resident {
            let before = resident.held;
            model.enroll(self.id, resident, &self.log, &self.space, prefills);
            if self.kept.is_some() && resident.held > before {
                model.behind.add(self.id, before);
            }
        }
    }
}

impl Model {
    /// Brings the tree to what a sequence has, and, if it `prefills`, is to compute.
    pub(in crate::core) fn enroll(
        &mut self,
        id: ContextId,
        resident: &mut Resident,
        log: &[Token],
        space: &Space,
        prefills: bool,
    ) {
        if self.memory.as_ref().is_none_or(|m| !m.ranges) {
            return;
        }
        let tree = &mut self.tree;
        let held = resident.computed / PAGE_TOKENS;
        let total = if prefills { log.len() as u32 / PAGE_TOKENS } else { held };
        let wanted = prefills || !resident.computed.is_multiple_of(PAGE_TOKENS);
        if (resident.path.len() as u32, resident.held) == (total, held) && wanted && resident.tail.is_some() {
            // As nearly every token goes: it is in the page that the tail stands for.
            return;
        }
        while resident.path.len() as u32 > total {
            if let Some(node) = resident.path.pop() {
                tree.leave(node, id);
            }
        }
        let known = resident.path.len() as u32;
        for n in held.min(resident.held)..held.max(resident.held).min(known) {
            tree.hold(resident.path[n as usize], id, n < held);
        }
        for n in known..total {
            let page = &log[(n * PAGE_TOKENS) as usize..((n + 1) * PAGE_TOKENS) as usize];
            let node = tree.child(space, resident.path.last().copied(), page);
            tree.hold(node, id, n < held);
            resident.path.push(node);
        }
        resident.held = held;
        let end = resident.path.last().copied();
        if let Some((_, of)) = resident.tail
            && wanted
            && of == end
        {
            return;
        }
        let entered = wanted.then(|| (tree.enter_tail(space, end, id), end));
        if let Some((node, _)) = std::mem::replace(&mut resident.tail, entered)
            && entered.is_none_or(|(now, _)| now != node)
        {
            tree.leave_tail(node, id);
        }
    }

    /// Takes a sequence out of the tree.
    pub(in crate::core) fn leave_tree(&mut self, id: ContextId, resident: &mut Resident) {
        while let Some(node) = resident.path.pop() {
            self.tree.leave(node, id);
        }
        resident.held = 0;
        if let Some((node, _)) = resident.tail.take() {
            self.tree.leave_tail(node, id);
        }
    }

    /// Takes back what a sequence had of the pool, and has the worker drop it.
    pub(super) fn give_up(&mut self, id: ContextId, mut resident: Resident) {
        self.leave_tree(id, &mut resident);
        let asid = resident.lease.asid();
        if !self.forget_shared(asid) {
            if resident.sampler.is_some() {
                self.ops.push(Op::SamplerClose { asid });
            }
            self.ops.push(Op::Drop { asid, from: 0 });
        }
        let Some(memory) = &mut self.memory else { return };
        resident.pages.into_iter().for_each(|page| memory.pool.release(page));
        memory.asids.give_back(resident.lease);
    }
}
