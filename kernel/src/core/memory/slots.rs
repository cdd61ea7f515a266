//! Slots: room for saved pages in host memory and on disk.
//!
//! A slot is free or has one page; which one, the tree knows, or [`Found`] of what the last daemon has saved and nobody
//! has asked for yet. Such pages go first. Numbers are handed out from 0, so the files grow no
//! further than they are used. Where a tier is full, the page in it that was used longest ago goes one tier down,
//! and from the last one it is gone; pages of a context that comes in stay where they are while others leave for it.
//! A slot that could not be written is never used again; where it was one that the file had to grow for, the tier stays
//! as small as it is.
//!
//! A slot that goes from one page to the next is overwritten as a whole. One that is free is cleared: its room is somebody
//! else's then, and what a user had there should not lie about. A page that is moved keeps the slot that it leaves until the
//! worker has it in the other one.
//!
//! All models share the budget of a tier, and ticks count for all of them: where a page has to be gone, it is the one that
//! was used longest ago, whichever model's it is (`rivals.rs`).

use std::collections::BTreeSet;

use drivers::wire::{ModelDescription, PageOwner, SavedPage, Slot};

use super::found::{Found, FoundPage};
use super::tier::{Budget, Tier, TierName};
use super::tree::NodeId;

/// What a slot's size is a multiple of, so that the worker can bypass the page cache of the system.
const ROOM_MULTIPLE: u64 = 4096;

/// The slots of one model.
#[derive(Debug)]
pub(in crate::core) struct Slots {
    host: Tier,
    disk: Tier,
    /// What the last daemon has saved in slots of the disk tier, as far as nobody has asked for it.
    found: Found,
    /// Slots whose pages are on their way to others.
    leaving: BTreeSet<Slot>,
    /// Bytes of a slot; 0 where pages of the model cannot be saved.
    room: u64,
    /// Pages that were used later than this keep their slots.
    kept_since: u64,
}

/// A free slot, and what had to be done for it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::core) struct Placed {
    pub slot: Slot,
    /// This page is gone.
    pub lost: Option<NodeId>,
    /// This page goes from `slot` to another one first.
    pub moved: Option<(NodeId, Slot)>,
}

impl Slots {
    /// No slots yet.
    pub(in crate::core) fn new() -> Self {
        let (host, disk, found) = (Tier::new(), Tier::new(), Found::default());
        Slots { host, disk, found, leaving: BTreeSet::new(), room: 0, kept_since: u64::MAX }
    }

    /// Learns how large a page of the model is.
    pub(in crate::core) fn describe(&mut self, description: &ModelDescription) {
        let savable = description.ranges && description.generates;
        self.room = if savable { description.page_bytes.next_multiple_of(ROOM_MULTIPLE) } else { 0 };
    }

    /// Takes in what a worker found on disk, as far as the budget goes: of several copies of a page, and where there
    /// are too many, what was saved last. Only the first worker's word counts, whose slots nobody has used yet. Gives how
    /// many there are, and the slots of those that are left out.
    pub(in crate::core) fn take_in(
        &mut self,
        mut pages: Vec<SavedPage>,
        budget: &mut Budget,
    ) -> (u32, Vec<Slot>) {
        if self.room == 0 || self.disk.next > 0 {
            return (0, Vec::new());
        }
        let most = budget.disk / self.room;
        let all: BTreeSet<u32> = pages.iter().map(|saved| saved.slot).collect();
        pages.retain(|saved| u64::from(saved.slot) < most && saved.is_whole());
        pages.sort_unstable_by_key(|saved| (saved.generation, saved.slot));
        let mut slots = BTreeSet::new();
        for saved in pages {
            if !slots.insert(saved.slot) {
                continue;
            }
            let page = FoundPage { slot: saved.slot, tick: budget.tick() };
            if let Some(older) = self.found.insert(saved.page.owner, saved.page.digest, page) {
                slots.remove(&older.slot);
            }
        }
        let left_out = all.difference(&slots).map(|number| Slot::Disk(*number)).collect();
        let Some(last) = slots.last().copied() else { return (0, left_out) };
        self.disk.next = last + 1;
        self.disk.free = (0..last).rev().filter(|number| !slots.contains(number)).collect();
        budget.disk -= slots.len() as u64 * self.room;
        (slots.len() as u32, left_out)
    }

    /// Takes a page out of what was found, for the tree to know of.
    pub(in crate::core) fn claim(&mut self, owner: PageOwner, digest: u128) -> Option<(Slot, u64)> {
        let page = self.found.take(owner, digest)?;
        Some((Slot::Disk(page.slot), page.tick))
    }

    /// Whether nobody has asked yet for something that was found of this owner.
    pub(in crate::core) fn has_found(&self, owner: PageOwner) -> bool {
        self.found.has(owner)
    }

    /// The highest number of a segment that pages were found of.
    pub(in crate::core) fn last_segment_found(&self) -> Option<u32> {
        self.found.last_segment()
    }

    /// Bytes of a slot.
    pub(in crate::core) fn room(&self) -> u64 {
        self.room
    }

    /// Lets all pages that are used from now on keep their slots, until [`Slots::keep_none`].
    pub(super) fn keep(&mut self, budget: &Budget) {
        self.kept_since = budget.ticks;
    }

    /// Lets every page give its slot again.
    pub(super) fn keep_none(&mut self) {
        self.kept_since = u64::MAX;
    }

    /// Slots that are taken in each tier.
    pub(in crate::core) fn taken(&self) -> (u32, u32) {
        (self.host.taken(), self.disk.taken())
    }

    fn tier(&self, tier: TierName) -> &Tier {
        match tier {
            TierName::Host => &self.host,
            TierName::Disk => &self.disk,
        }
    }

    fn tier_mut(&mut self, tier: TierName) -> &mut Tier {
        match tier {
            TierName::Host => &mut self.host,
            TierName::Disk => &mut self.disk,
        }
    }

    /// Finds a slot for a page, in the highest tier that can have one, or for one that should outlive the daemon on
    /// disk. None where there is no tier at all, or where all is taken by pages that are on their way.
    pub(in crate::core) fn place(&mut self, budget: &mut Budget, lasting: bool) -> Option<Placed> {
        if self.room == 0 {
            return None;
        }
        if lasting && let Some(placed) = self.place_lasting(budget, |_| false) {
            return Some(placed);
        }
        if let Some(number) = self.host.take(&mut budget.host, self.room) {
            return Some(Placed { slot: Slot::Host(number), lost: None, moved: None });
        }
        let Some(((_, down), number)) = self.host.give_way(self.kept_since) else {
            let (slot, lost) = self.place_on_disk(budget)?;
            return Some(Placed { slot, lost, moved: None });
        };
        let slot = Slot::Host(number);
        Some(match self.place_on_disk(budget) {
            Some((to, lost)) => Placed { slot, lost, moved: Some((down, to)) },
            None => Placed { slot, lost: Some(down), moved: None },
        })
    }

    /// Finds a slot on disk alone, in place of no page that is to be kept.
    pub(in crate::core) fn place_lasting(
        &mut self,
        budget: &mut Budget,
        keep: impl Fn(NodeId) -> bool,
    ) -> Option<Placed> {
        if self.room == 0 {
            return None;
        }
        let oldest = self.disk.used.first_key_value().map(|((_, node), _)| *node);
        let displaces = self.disk.free(budget.disk, self.room) == 0 && self.found.is_empty();
        if displaces && oldest.is_none_or(keep) {
            return None;
        }
        let (slot, lost) = self.place_on_disk(budget)?;
        Some(Placed { slot, lost, moved: None })
    }

    /// Whether one of these tiers has a slot for which no page has to go that anybody has asked for.
    pub(super) fn has_spare(&self, tiers: &[TierName], budget: &Budget) -> bool {
        let free = |tier: &TierName| self.tier(*tier).free(budget.left(*tier), self.room) > 0;
        tiers.iter().any(free) || (tiers.contains(&TierName::Disk) && !self.found.is_empty())
    }

    /// When the page was used that has to go for one more in these tiers, if one does.
    pub(super) fn next_to_go(&self, tiers: &[TierName]) -> Option<u64> {
        // From the host tier a page goes down, and from the disk tier it is gone.
        tiers.iter().rev().find_map(|tier| self.tier(*tier).oldest(self.kept_since))
    }

    /// Whether a tier can have one more page of the model, where the budget has room for it.
    pub(super) fn can_grow(&self, tier: TierName) -> bool {
        self.room > 0 && self.tier(tier).has_number()
    }

    /// Bytes of a tier that the model could give to another one.
    pub(super) fn could_give(&self, tier: TierName) -> u64 {
        let found = if tier == TierName::Disk { self.found.len() } else { 0 };
        (self.tier(tier).used.len() + found) as u64 * self.room
    }

    /// When the page of a tier was used that nobody has asked for and was saved first.
    pub(super) fn oldest_found(&self, tier: TierName) -> Option<u64> {
        self.found.oldest().filter(|_| tier == TierName::Disk)
    }

    /// The page of a tier that was used longest ago, but for those in slots that are `busy`.
    pub(super) fn oldest(&self, tier: TierName, busy: impl Fn(Slot) -> bool) -> Option<(u64, NodeId)> {
        let used = self.tier(tier).used.iter();
        used.map(|(key, number)| (*key, tier.slot(*number)))
            .find(|(_, slot)| !busy(*slot))
            .map(|(key, _)| key)
    }

    /// Gives up what nobody has asked for and was saved first, and tells its slot.
    pub(super) fn give_up_found(&mut self, budget: &mut Budget) -> Option<Slot> {
        let slot = Slot::Disk(self.found.give_way()?.slot);
        self.give_back(slot, budget);
        Some(slot)
    }

    /// Pages that can be saved without another one having to go.
    pub(in crate::core) fn free(&self, budget: &Budget) -> u64 {
        self.host.free(budget.host, self.room) + self.disk.free(budget.disk, self.room)
    }

    /// A slot on disk, in place of the page used longest ago if need be.
    fn place_on_disk(&mut self, budget: &mut Budget) -> Option<(Slot, Option<NodeId>)> {
        if let Some(number) = self.disk.take(&mut budget.disk, self.room) {
            return Some((Slot::Disk(number), None));
        }
        if let Some(page) = self.found.give_way() {
            return Some((Slot::Disk(page.slot), None));
        }
        let ((_, lost), number) = self.disk.give_way(self.kept_since)?;
        Some((Slot::Disk(number), Some(lost)))
    }

    /// Lists a page that is written among those that may go.
    pub(in crate::core) fn list(&mut self, slot: Slot, tick: u64, node: NodeId) {
        self.tier_mut(TierName::of(slot)).used.insert((tick, node), number_of(slot));
    }

    /// Takes a page off that list.
    pub(in crate::core) fn unlist(&mut self, slot: Slot, tick: u64, node: NodeId) {
        self.tier_mut(TierName::of(slot)).used.remove(&(tick, node));
    }

    /// Gives a slot back.
    pub(in crate::core) fn give_back(&mut self, slot: Slot, budget: &mut Budget) {
        let (tier, number) = (TierName::of(slot), number_of(slot));
        *budget.of(tier) += self.room;
        self.tier_mut(tier).free.push(number);
    }

    /// Keeps a slot until the page in it is in another one.
    pub(super) fn leave(&mut self, slot: Slot) {
        self.leaving.insert(slot);
    }

    /// Gives a slot back whose page is in another one now, if this is one.
    pub(super) fn has_left(&mut self, slot: Slot, budget: &mut Budget) -> bool {
        let left = self.leaving.remove(&slot);
        if left {
            self.give_back(slot, budget);
        }
        left
    }

    /// Slots whose pages are on their way to others.
    pub(super) fn leaving(&self) -> impl Iterator<Item = Slot> {
        self.leaving.iter().copied()
    }

    /// Never uses a slot again that could not be written. Tells whether the tier is smaller for good than it might
    /// have been.
    pub(in crate::core) fn retire(&mut self, slot: Slot, budget: &mut Budget) -> bool {
        let (name, number) = (TierName::of(slot), number_of(slot));
        *budget.of(name) += self.room;
        let tier = self.tier_mut(name);
        tier.retired += 1;
        let grew = number + 1 == tier.next && tier.end == u32::MAX;
        if grew {
            tier.end = tier.next;
        }
        grew
    }

    /// Gives the whole budget back, when the model goes.
    pub(in crate::core) fn give_all_back(&self, budget: &mut Budget) {
        budget.host += u64::from(self.host.taken()) * self.room;
        budget.disk += u64::from(self.disk.taken()) * self.room;
    }

    /// Checks that no slot is lost.
    ///
    /// # Panics
    ///
    /// Where the slots of all saved pages, and those that are being left, are not just those that are taken.
    pub(in crate::core) fn check(&self, saved: impl Iterator<Item = Slot>) {
        let mut seen = BTreeSet::new();
        let (mut host, mut disk) = (0, 0);
        for slot in saved.chain(self.found.slots().map(Slot::Disk)).chain(self.leaving()) {
            assert!(seen.insert(slot), "two pages are in {slot:?}");
            match slot {
                Slot::Host(_) => host += 1,
                Slot::Disk(_) => disk += 1,
            }
        }
        assert_eq!(self.taken(), (host, disk), "slots are lost or there twice");
        let free = self.host.free.iter().map(|n| TierName::Host.slot(*n));
        let mut free = free.chain(self.disk.free.iter().map(|n| TierName::Disk.slot(*n)));
        assert!(free.all(|slot| !seen.contains(&slot)), "a free slot has a page");
    }
}

fn number_of(slot: Slot) -> u32 {
    match slot {
        Slot::Host(number) | Slot::Disk(number) => number,
    }
}
