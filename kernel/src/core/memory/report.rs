//! What a context has of the pool and of the swap area, for whoever looks into its process. Looks through tables that no
//! step looks through, so that nothing has to be counted for it.

use std::collections::BTreeMap;

use drivers::wire::{PAGE_TOKENS, Slot};
use syscalls::reply::{PageTable, Sharer};
use syscalls::{Pid, Token};

use super::super::Kernel;
use super::super::context::Context;
use super::frame::PageRef;
use super::tree::{NodeId, PAGE, Space, Tree};

impl Kernel {
    /// The page table of a context in short, and who else has its pages in memory.
    pub(in crate::core) fn page_table(&self, context: &Context) -> (PageTable, Vec<Sharer>) {
        let Some(model) = self.models.get(&context.model) else { return Default::default() };
        let resident = context.computed().div_ceil(PAGE_TOKENS);
        let (swapped_host, swapped_disk) =
            model.tree.saved_behind_page(&context.space, &context.log, resident);
        let mut table = PageTable {
            total: context.pages(),
            resident,
            swapped_host,
            swapped_disk,
            ..PageTable::default()
        };
        table.missing = table.total - table.resident - swapped_host - swapped_disk;
        let Some((memory, own)) = model.memory.as_ref().zip(context.resident.as_ref()) else {
            return (table, Vec::new());
        };
        let pages = &own.pages[..resident as usize];
        let shared: Vec<&PageRef> = pages.iter().filter(|page| memory.pool.is_shared(page)).collect();
        table.shared = shared.len() as u32;
        if shared.is_empty() {
            return (table, Vec::new());
        }
        let contexts = model.contexts.iter().filter_map(|id| self.contexts.get(id));
        // Who else opened what is published to him is nobody's business but his own.
        let shown = |c: &Context| (c.space.uid == context.space.uid).then_some(c.owner);
        let others =
            contexts.filter(|c| c.id != context.id).filter_map(|c| Some((shown(c), c.resident.as_ref()?)));
        let remnants = memory.remnants.values().map(|remnant| (None, &remnant.resident));
        let mut sharers: BTreeMap<Option<Pid>, u32> = BTreeMap::new();
        for (pid, other) in others.chain(remnants) {
            // Pages of a beginning stand at the same places in both tables.
            let both = pages.iter().zip(&other.pages).filter(|(a, b)| a.is_same(b)).count() as u32;
            if both > 0 {
                *sharers.entry(pid).or_default() += both;
            }
        }
        let sharers = sharers.into_iter().map(|(pid, pages)| Sharer { pid, pages });
        (table, sharers.collect())
    }
}

impl Tree {
    /// How many pages of a log are saved in host memory and on disk, behind its first `held`.
    fn saved_behind_page(&self, space: &Space, log: &[Token], held: u32) -> (u32, u32) {
        let (mut host, mut disk) = (0, 0);
        let mut at = self.root_of(space);
        for (number, page) in log.chunks(PAGE).enumerate() {
            let Some(next) = at.and_then(|at| self.child_of(space, at, page)) else { break };
            match self.saved(next).filter(|_| number as u32 >= held).map(|saved| saved.slot) {
                Some(Slot::Host(_)) => host += 1,
                Some(Slot::Disk(_)) => disk += 1,
                None => {}
            }
            at = Some(next);
        }
        (host, disk)
    }

    /// The node of this page behind another, or behind the gate there.
    fn child_of(&self, space: &Space, at: NodeId, page: &[Token]) -> Option<NodeId> {
        let gate = self.gate_behind(space, at);
        [Some(at), gate].into_iter().flatten().find_map(|at| self.page_behind(at, page))
    }
}
