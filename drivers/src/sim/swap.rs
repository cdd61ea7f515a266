//! The swap area of the sim driver: slots in the memory of the process that hosts it.
//!
//! A page keeps its label and its cells with their hashes, so a page that is loaded in the wrong place changes the
//! text that follows. The area may outlive the driver, as the files of the daemon outlive a worker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use syscalls::{Errno, Token};

use super::load::Script;
use crate::wire::{DriverFault, PageLabel, Slot};

/// A saved page.
#[derive(Clone)]
struct Page {
    label: PageLabel,
    cells: Vec<(Token, u64)>,
}

/// The slots, shared by all workers that are given them.
#[derive(Clone, Default)]
pub struct SimSwap {
    slots: Arc<Mutex<BTreeMap<Slot, Page>>>,
}

impl SimSwap {
    /// Slots with a page.
    pub fn pages(&self) -> usize {
        self.slots().len()
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<Slot, Page>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.slots().insert(slot, Page { label, cells });
        Ok(())
    }

    /// Reads a page that must be the one of this label.
    pub(super) fn load(&self, slot: Slot, label: PageLabel) -> Result<Vec<(Token, u64)>, DriverFault> {
        let slots = self.slots();
        let page = slots.get(&slot).filter(|page| page.label == label);
        let page = page.ok_or_else(|| damaged(slot, "another page or none"))?;
        Ok(page.cells.clone())
    }

    /// Copies a page.
    pub(super) fn copy(&self, script: &Script, from: Slot, to: Slot) -> Result<(), DriverFault> {
        within_area(script, to)?;
        let mut slots = self.slots();
        let page = slots.get(&from).cloned().ok_or_else(|| damaged(from, "none"))?;
        slots.insert(to, page);
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
