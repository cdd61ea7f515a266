//! The swap area of the sim driver: slots in the memory of the process that hosts it.
//!
//! A page keeps its label and its cells with their hashes, so a page that is loaded in the wrong place changes the
//! text that follows. The area may outlive the driver, as the files of the daemon outlive a worker, and its disk the
//! daemon.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use syscalls::{Errno, Token};

use super::script::Script;
use crate::wire::{DriverFault, PageLabel, SavedPage, SavedPages, Slot};

/// A saved page.
#[derive(Clone)]
struct Page {
    label: PageLabel,
    cells: Vec<(Token, u64)>,
    generation: u64,
    /// Something has happened to it on the disk.
    damaged: bool,
}

#[derive(Clone, Default)]
struct Area {
    slots: BTreeMap<Slot, Page>,
    /// The model that the pages on disk are of.
    fingerprint: Option<u64>,
    generations: u64,
}

/// The slots, shared by all workers that are given them.
#[derive(Clone, Default)]
pub struct SimSwap(Arc<Mutex<Area>>);

impl SimSwap {
    /// Slots with a page.
    pub fn pages(&self) -> usize {
        self.area().slots.len()
    }

    fn area(&self) -> MutexGuard<'_, Area> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is the same area.
    pub fn is(&self, other: &SimSwap) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What is left of it when the daemon has gone: the disk.
    pub fn disk(&self) -> SimSwap {
        let mut left = self.area().clone();
        left.slots.retain(|slot, _| matches!(slot, Slot::Disk(_)));
        SimSwap(Arc::new(Mutex::new(left)))
    }

    /// Forgets what a slot has.
    pub fn clear(&self, slot: Slot) {
        self.area().slots.remove(&slot);
    }

    /// Damages the pages on disk that are chosen, by their slots. Gives how many they are.
    pub fn damage(&self, mut chosen: impl FnMut(u32) -> bool) -> usize {
        let mut area = self.area();
        let hit = area.slots.iter_mut().filter(|(slot, _)| matches!(slot, Slot::Disk(n) if chosen(*n)));
        hit.map(|(_, page)| page.damaged = true).count()
    }

    /// Lets a worker of a model begin: what pages there are on disk. Those of another model go.
    pub(super) fn take_over(&self, fingerprint: u64) -> SavedPages {
        let mut area = self.area();
        if area.fingerprint.replace(fingerprint).is_some_and(|of| of != fingerprint) {
            let had = area.slots.len();
            area.slots.clear();
            let dropped = (had > 0).then(|| "they are of another model file".into());
            return SavedPages { pages: Vec::new(), dropped };
        }
        let on_disk = |(slot, page): (&Slot, &Page)| match slot {
            Slot::Disk(number) => {
                Some(SavedPage { slot: *number, page: page.label, generation: page.generation })
            }
            Slot::Host(_) => None,
        };
        SavedPages { pages: area.slots.iter().filter_map(on_disk).collect(), dropped: None }
    }

    /// Writes a page, if the script lets this slot exist.
    pub(super) fn save(
        &self,
        script: &Script,
        slot: Slot,
        label: PageLabel,
        cells: Vec<(Token, u64)>,
    ) -> Result<(), DriverFault> {
        within_area(script, slot)?;
        let mut area = self.area();
        area.generations += 1;
        let generation = area.generations;
        area.slots.insert(slot, Page { label, cells, generation, damaged: false });
        Ok(())
    }

    /// Reads a page that must be the one of this label.
    pub(super) fn load(&self, slot: Slot, label: PageLabel) -> Result<Vec<(Token, u64)>, DriverFault> {
        let area = self.area();
        let page = area.slots.get(&slot).filter(|page| page.label == label && !page.damaged);
        let page = page.ok_or_else(|| damaged(slot, "another page or none"))?;
        Ok(page.cells.clone())
    }

    /// Copies a page.
    pub(super) fn copy(&self, script: &Script, from: Slot, to: Slot) -> Result<(), DriverFault> {
        within_area(script, to)?;
        let mut area = self.area();
        let page = area.slots.get(&from).filter(|page| !page.damaged).cloned();
        area.slots.insert(to, page.ok_or_else(|| damaged(from, "none"))?);
        Ok(())
    }
}

fn within_area(script: &Script, slot: Slot) -> Result<(), DriverFault> {
    let (tier, number, most) = match slot {
        Slot::Host(number) => ("host", number, script.host_pages),
        Slot::Disk(number) => ("disk", number, script.disk_pages),
    };
    if number < most {
        return Ok(());
    }
    let message = format!("the {tier} tier has room for {most} pages, so none for number {number}");
    Err(DriverFault::new(Errno::ENOSPC, message))
}

/// What a page is refused with that is not the one that was saved.
pub(super) fn damaged(slot: Slot, has: &str) -> DriverFault {
    DriverFault::new(Errno::EIO, format!("{slot:?} does not have the page that was saved, but {has}"))
}
