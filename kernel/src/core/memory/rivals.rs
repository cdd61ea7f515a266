//! Models that share a tier: where it is full, the page that was used longest ago goes, whichever model's it is.
//!
//! First go pages that a daemon before this one has saved and nobody has asked for, and those of models that are not
//! loaded and have no contexts; then the oldest one of all. A model whose turn it is to lose its own page puts the new one
//! in that very slot (`slots.rs`). Of others it takes as many as have the room of one, since pages of models have
//! different sizes; their slots are cleared, so that files take no more of the machine than the budget says. A page that is
//! being loaded stays.

use super::super::model::Model;
use super::evict::Payment;
use super::slots::Slots;
use super::tier::TierName;
use super::tree::NodeId;

/// In which order pages go: those that somebody may come back for last, and of these the one used last.
type Age = (bool, u64);

/// A page that goes: of a rival, by its place in the list. Without a node it is one that nobody has asked for.
struct Oldest {
    age: Age,
    rival: usize,
    node: Option<NodeId>,
}

impl Payment<'_> {
    /// Makes room in one of these tiers for a page of a model, where rivals have older ones than it has itself.
    pub(super) fn take_from_rivals(&mut self, slots: &Slots, tiers: &[TierName]) {
        if self.rivals.is_empty() || slots.has_spare(tiers, self.budget) {
            return;
        }
        let usable = tiers.iter().filter(|tier| slots.can_grow(**tier) && self.reaches(**tier, slots.room()));
        let oldest = usable.filter_map(|tier| Some((self.oldest(*tier)?.age, *tier))).min();
        let Some((_, tier)) = oldest else { return };
        let own = slots.next_to_go(tiers).map(|tick| (true, tick));
        while self.budget.left(tier) < slots.room()
            && let Some(oldest) = self.oldest(tier).filter(|oldest| own.is_none_or(|own| oldest.age <= own))
        {
            self.take(&oldest);
        }
    }

    /// Whether rivals have so many bytes in a tier.
    fn reaches(&self, tier: TierName, room: u64) -> bool {
        let theirs = self.rivals.iter().map(|rival| rival.slots.could_give(tier));
        theirs.fold(self.budget.left(tier), u64::saturating_add) >= room
    }

    fn oldest(&self, tier: TierName) -> Option<Oldest> {
        let rivals = self.rivals.iter().enumerate();
        let each = rivals.filter_map(|(n, rival)| {
            let (age, node) = rival.gives_first(tier)?;
            Some(Oldest { age, rival: n, node })
        });
        each.min_by_key(|oldest| oldest.age)
    }

    fn take(&mut self, oldest: &Oldest) {
        let rival = &mut self.rivals[oldest.rival];
        let saved = oldest.node.and_then(|node| rival.tree.saved(node));
        let slot = match (oldest.node, saved) {
            (Some(node), Some(saved)) => {
                rival.slots.unlist(saved.slot, saved.tick, node);
                rival.slots.give_back(saved.slot, self.budget);
                rival.tree.set_saved(node, None);
                Some(saved.slot)
            }
            _ => rival.slots.give_up_found(self.budget),
        };
        self.out.extend(slot.map(|slot| rival.clearing(slot)));
        self.refund(saved);
    }
}

impl Model {
    /// The page of a tier that it gives before all its others, and how soon.
    fn gives_first(&self, tier: TierName) -> Option<(Age, Option<NodeId>)> {
        if let Some(tick) = self.slots.oldest_found(tier) {
            return Some(((false, tick), None));
        }
        let used = self.placement.is_some() || !self.contexts.is_empty();
        let (tick, node) = self.slots.oldest(tier, |slot| self.loads_from(slot))?;
        Some(((used, tick), Some(node)))
    }
}
