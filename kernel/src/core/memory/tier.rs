//! The tiers of the swap area: the numbers of slots that a model has in one, and the budget that all models share.

use std::collections::BTreeMap;

use drivers::wire::Slot;

use super::tree::NodeId;

/// A tier of the swap area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::core) enum TierName {
    Host,
    Disk,
}

impl TierName {
    /// The tier of a slot.
    pub(in crate::core) fn of(slot: Slot) -> Self {
        match slot {
            Slot::Host(_) => TierName::Host,
            Slot::Disk(_) => TierName::Disk,
        }
    }

    pub(super) fn slot(self, number: u32) -> Slot {
        match self {
            TierName::Host => Slot::Host(number),
            TierName::Disk => Slot::Disk(number),
        }
    }
}

/// What all models have together: bytes that may still be given to slots of each tier, and the order of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) struct Budget {
    pub host: u64,
    pub disk: u64,
    pub(super) ticks: u64,
}

impl Budget {
    /// With nothing given yet.
    pub(in crate::core) fn new(host: u64, disk: u64) -> Self {
        Budget { host, disk, ticks: 0 }
    }

    /// A number that is later than all before it.
    pub(super) fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }

    /// What is left of a tier.
    pub(super) fn left(&self, tier: TierName) -> u64 {
        match tier {
            TierName::Host => self.host,
            TierName::Disk => self.disk,
        }
    }

    pub(super) fn of(&mut self, tier: TierName) -> &mut u64 {
        match tier {
            TierName::Host => &mut self.host,
            TierName::Disk => &mut self.disk,
        }
    }
}

/// The slots of one tier of one model.
#[derive(Debug)]
pub(super) struct Tier {
    /// Numbers that have been used and are free.
    pub free: Vec<u32>,
    /// The lowest number that has never been used.
    pub next: u32,
    /// Numbers from here on do not exist: the file cannot grow further.
    pub end: u32,
    /// Numbers that could not be written.
    pub retired: u32,
    /// Pages that are written with their slots, the one used longest ago first.
    pub used: BTreeMap<(u64, NodeId), u32>,
}

impl Tier {
    pub fn new() -> Self {
        Tier { free: Vec::new(), next: 0, end: u32::MAX, retired: 0, used: BTreeMap::new() }
    }

    pub fn take(&mut self, left: &mut u64, room: u64) -> Option<u32> {
        if *left < room {
            return None;
        }
        let number = match self.free.pop() {
            Some(number) => number,
            None if self.next < self.end => {
                self.next += 1;
                self.next - 1
            }
            None => return None,
        };
        *left -= room;
        Some(number)
    }

    pub fn free(&self, left: u64, room: u64) -> u64 {
        (left / room.max(1)).min(self.free.len() as u64 + u64::from(self.end - self.next))
    }

    /// The page used longest ago, if that was not later than `kept_since`, with its slot.
    pub fn give_way(&mut self, kept_since: u64) -> Option<((u64, NodeId), u32)> {
        let oldest = self.used.first_entry()?;
        (oldest.key().0 <= kept_since).then(|| oldest.remove_entry())
    }

    /// When the page was used that [`Tier::give_way`] takes.
    pub fn oldest(&self, kept_since: u64) -> Option<u64> {
        self.used.first_key_value().map(|((tick, _), _)| *tick).filter(|tick| *tick <= kept_since)
    }

    /// Whether there is a number for one more slot, if the budget has room for it.
    pub fn has_number(&self) -> bool {
        !self.free.is_empty() || self.next < self.end
    }

    /// Slots with a page, or with one on its way.
    pub fn taken(&self) -> u32 {
        self.next - self.free.len() as u32 - self.retired
    }
}
