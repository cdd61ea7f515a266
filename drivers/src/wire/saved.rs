//! Pages on disk that outlive the daemon: where they stand, and what the next worker says of them.

use serde::{Deserialize, Serialize};

use super::{PAGE_TOKENS, PageLabel};

/// Slots that have a place in the table before the slots on disk, by which the next daemon's worker finds them.
pub const SWAP_PLACES: u64 = 131_072;

/// Bytes of such a place.
pub const SWAP_PLACE_BYTES: u64 = 128;

/// Where the slots begin in the file on disk: behind a block that says whose pages these are, and the table.
pub const SWAP_SLOTS_AT: u64 = 4096 + SWAP_PLACES * SWAP_PLACE_BYTES;

/// What a worker found on disk that workers before it have saved, and can load.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPages {
    /// Pages, in the order of their slots; those that are not whole are of no use to anybody, and are told so that their
    /// slots can be cleared. What a slot has is checked when it is loaded.
    pub pages: Vec<SavedPage>,
    /// Why there are none, where there was a file.
    pub dropped: Option<String>,
}

/// A page that is in a slot of the disk tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPage {
    /// The slot's number.
    pub slot: u32,
    /// What it says that it holds.
    pub page: PageLabel,
    /// Grows with every page that is saved, over restarts too.
    pub generation: u64,
}

impl SavedPage {
    /// Whether it has all tokens of a page. The end of a log is computed again by whoever goes on with it.
    pub fn is_whole(&self) -> bool {
        let PageLabel { from, to, .. } = self.page;
        from.is_multiple_of(PAGE_TOKENS) && Some(to) == from.checked_add(PAGE_TOKENS)
    }
}
