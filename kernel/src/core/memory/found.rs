//! What the last daemon has saved on disk and nobody has asked for yet.
//!
//! A page is known here by whose it is and the digest of all tokens to its end, and nothing more: its tokens are known
//! when somebody comes with them (`claim.rs`), and then it is a page of the tree like any other. What is never asked for
//! is the first to give its slot.

use std::collections::{BTreeMap, BTreeSet};

use drivers::wire::PageOwner;

/// A page, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FoundPage {
    pub slot: u32,
    /// Orders pages by when they were saved.
    pub tick: u64,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Found {
    pages: BTreeMap<PageOwner, BTreeMap<u128, FoundPage>>,
    aged: BTreeSet<(u64, PageOwner, u128)>,
}

impl Found {
    /// Adds a page, in the place of one that is the same.
    pub(super) fn insert(&mut self, owner: PageOwner, digest: u128, page: FoundPage) -> Option<FoundPage> {
        let older = self.take(owner, digest);
        self.pages.entry(owner).or_default().insert(digest, page);
        self.aged.insert((page.tick, owner, digest));
        older
    }

    /// Takes a page out.
    pub(super) fn take(&mut self, owner: PageOwner, digest: u128) -> Option<FoundPage> {
        let of_owner = self.pages.get_mut(&owner)?;
        let page = of_owner.remove(&digest)?;
        if of_owner.is_empty() {
            self.pages.remove(&owner);
        }
        self.aged.remove(&(page.tick, owner, digest));
        Some(page)
    }

    /// Takes out the one that was saved first.
    pub(super) fn give_way(&mut self) -> Option<FoundPage> {
        let (_, owner, digest) = *self.aged.first()?;
        self.take(owner, digest)
    }

    /// When the one was saved that was saved first.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.aged.first().map(|(tick, _, _)| *tick)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.aged.len()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Whether there are pages of an owner.
    pub(super) fn has(&self, owner: PageOwner) -> bool {
        self.pages.contains_key(&owner)
    }

    /// The highest number of a segment that there are pages of.
    pub(super) fn last_segment(&self) -> Option<u32> {
        self.pages.keys().rev().find_map(|owner| match owner {
            PageOwner::Segment(number) => Some(*number),
            PageOwner::User(_) => None,
        })
    }

    /// The slots of all.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.pages.values().flat_map(|of_owner| of_owner.values().map(|page| page.slot))
    }
}
