//! Frames of the KV pool, and the pages in them.
//!
//! A frame is room for [`PAGE_TOKENS`] positions. A [`Frame`] cannot be copied and only the pool makes one, so a
//! frame is free or holds one page, and freeing it twice does not compile. A page may stand in the page tables of
//! several contexts: each table has a [`PageRef`] of its own, and the frame is free when the last one is given
//! back. Dropping a `PageRef` instead of giving it back would lose the frame; [`Pool::check`] finds that.
//!
//! The pool knows whose each frame was last. When one goes to another user, [`Pool::must_clear`] says so, and what is free
//! is overwritten before anything is computed in it. Entries are written as a whole before they are read, so no call could
//! tell what was there; but what a user has given up should not lie about in memory that works for others. That takes a
//! pass over all that is free, so it should be rare: a user gets the frames that were his last, then clean ones, and those
//! of others only where nothing else is free.

use std::collections::BTreeMap;

use drivers::wire::PAGE_TOKENS;

/// One frame. Whoever has it has the right to use it.
#[derive(Debug)]
struct Frame(u32);

/// A page in a frame.
#[derive(Debug)]
struct Page {
    frame: Frame,
    owners: u32,
}

/// An entry of a page table: the right to read a page, and to write it while nobody else has one.
#[derive(Debug)]
pub(in crate::core) struct PageRef(u32);

impl PageRef {
    /// Whether another table has the same page.
    pub(in crate::core) fn is_same(&self, other: &PageRef) -> bool {
        self.0 == other.0
    }
}

/// Frames without a page: stacks, filled from the top.
#[derive(Debug, Default)]
struct Free {
    /// Those that nobody has had since they were cleared.
    clean: Vec<Frame>,
    /// Those that lie as their last user has left them.
    left: BTreeMap<u32, Vec<Frame>>,
    count: u32,
}

impl Free {
    fn push(&mut self, frame: Frame, user: Option<u32>) {
        self.count += 1;
        match user {
            Some(user) => self.left.entry(user).or_default().push(frame),
            None => self.clean.push(frame),
        }
    }

    /// The frame that it is cheapest to give to a user.
    fn pop(&mut self, user: u32) -> Option<Frame> {
        let own = self.left.get_mut(&user).and_then(Vec::pop);
        let frame = own.or_else(|| self.clean.pop()).or_else(|| self.left.values_mut().find_map(Vec::pop))?;
        self.count -= 1;
        Some(frame)
    }

    /// Forgets so many of them, or all that there are, and tells how many.
    fn forget(&mut self, most: u32) -> u32 {
        let mut next = || self.clean.pop().or_else(|| self.left.values_mut().find_map(Vec::pop));
        let forgotten = (0..most).map_while(|_| next()).count() as u32;
        self.count -= forgotten;
        forgotten
    }

    /// Notes that everything is clean, and tells of what was not.
    fn clean(&mut self, mut each: impl FnMut(&Frame)) {
        for frame in std::mem::take(&mut self.left).into_values().flatten() {
            each(&frame);
            self.clean.push(frame);
        }
        // The lowest is handed out first.
        self.clean.sort_by_key(|frame| std::cmp::Reverse(frame.0));
    }
}

/// All frames of one worker.
#[derive(Debug)]
pub(in crate::core) struct Pool {
    free: Free,
    /// The page in each frame, by the frame's number.
    pages: Vec<Option<Page>>,
    /// Frames that the worker turned out not to have.
    retired: u32,
    /// The user for whom each frame was taken last, by its number; none since it was cleared.
    users: Vec<Option<u32>>,
    /// A frame has gone from one user to another since what is free was cleared.
    crossed: bool,
    /// Frames with a page, and owners of all pages: the sums by which each step is checked.
    used: u32,
    owners: u64,
}

impl Pool {
    /// A pool of free frames with room for `tokens` positions.
    pub(in crate::core) fn new(tokens: u32) -> Self {
        let frames = tokens / PAGE_TOKENS;
        // The lowest is handed out first.
        let clean = (0..frames).rev().map(Frame).collect();
        Pool {
            free: Free { clean, left: BTreeMap::new(), count: frames },
            pages: (0..frames).map(|_| None).collect(),
            retired: 0,
            users: vec![None; frames as usize],
            crossed: false,
            used: 0,
            owners: 0,
        }
    }

    /// All frames.
    pub(in crate::core) fn total(&self) -> u32 {
        self.pages.len() as u32 - self.retired
    }

    /// Never hands out again so many of the frames that are free: the worker has no room behind them. Tells how many
    /// these are.
    pub(in crate::core) fn retire(&mut self, unreal: u32) -> u32 {
        let retired = self.free.forget(unreal);
        self.retired += retired;
        retired
    }

    /// Frames without a page.
    pub(in crate::core) fn free(&self) -> u32 {
        self.free.count
    }

    /// A page for a user in a frame that was free, or none if no frame is.
    pub(in crate::core) fn allocate(&mut self, uid: u32) -> Option<PageRef> {
        let frame = self.free.pop(uid)?;
        let number = frame.0;
        let slot = &mut self.pages[number as usize];
        assert!(slot.is_none(), "frame {number} was free and held a page");
        *slot = Some(Page { frame, owners: 1 });
        self.used += 1;
        self.owners += 1;
        let before = self.users[number as usize].replace(uid);
        self.crossed |= before.is_some_and(|before| before != uid);
        Some(PageRef(number))
    }

    /// Notes that a user has the frames of this page now, free entries in it included.
    pub(in crate::core) fn hand_over(&mut self, page: &PageRef, uid: u32) {
        let before = self.users[page.0 as usize].replace(uid);
        self.crossed |= before.is_some_and(|before| before != uid);
    }

    /// Whether what is free must be cleared before the next pass, because a frame has another user; it counts as done.
    pub(in crate::core) fn must_clear(&mut self) -> bool {
        if self.crossed {
            self.free.clean(|frame| self.users[frame.0 as usize] = None);
        }
        std::mem::take(&mut self.crossed)
    }

    /// One more owner for a page.
    pub(in crate::core) fn share(&mut self, page: &PageRef) -> PageRef {
        self.page(page).owners += 1;
        self.owners += 1;
        PageRef(page.0)
    }

    /// Whether the page has other owners, so that a writer needs a copy of its own.
    pub(in crate::core) fn is_shared(&self, page: &PageRef) -> bool {
        // Where no page has two owners none is looked at: every step asks this of every context that runs.
        self.owners > u64::from(self.used)
            && self.pages[page.0 as usize].as_ref().is_some_and(|p| p.owners > 1)
    }

    /// Takes an owner off a page, and frees its frame with the last one.
    pub(in crate::core) fn release(&mut self, page: PageRef) {
        self.owners -= 1;
        let entry = self.page(&page);
        entry.owners -= 1;
        if entry.owners == 0 {
            self.used -= 1;
            let page = self.pages[page.0 as usize].take().expect("it was there a line ago");
            let user = self.users[page.frame.0 as usize];
            self.free.push(page.frame, user);
        }
    }

    /// Frames that are in these tables, each counted once.
    pub(in crate::core) fn frames_of<'a>(&self, references: impl Iterator<Item = &'a PageRef>) -> u32 {
        if self.owners == u64::from(self.used) {
            return references.count() as u32;
        }
        let mut seen = vec![false; self.pages.len()];
        references.filter(|page| !std::mem::replace(&mut seen[page.0 as usize], true)).count() as u32
    }

    /// Frames that nobody has but the tables that these references are in.
    pub(in crate::core) fn owned_alone<'a>(&self, references: impl Iterator<Item = &'a PageRef>) -> u32 {
        let mut counts = std::collections::BTreeMap::new();
        references.for_each(|page| *counts.entry(page.0).or_insert(0) += 1);
        let alone = |(frame, count): &(&u32, &u32)| {
            self.pages[**frame as usize].as_ref().is_some_and(|page| page.owners == **count)
        };
        counts.iter().filter(alone).count() as u32
    }

    fn page(&mut self, page: &PageRef) -> &mut Page {
        self.pages[page.0 as usize].as_mut().expect("whoever has a reference has a page")
    }

    /// Checks the sums, before every step: cheap, whatever there is.
    ///
    /// # Panics
    ///
    /// Where a frame is lost, or has a page without an owner.
    pub(in crate::core) fn check_sums(&self) {
        assert_eq!(self.free.count + self.used, self.total(), "frames are lost or there twice");
        assert!(self.owners >= u64::from(self.used), "pages without owners");
    }

    /// Checks that no frame is lost and none is there twice.
    ///
    /// # Panics
    ///
    /// Where `references`, all entries of all page tables, are not just the owners that the pages count.
    pub(in crate::core) fn check(&self, references: usize) {
        let pages = self.pages.iter().flatten();
        let (allocated, owners) = pages.fold((0, 0), |(n, o), p| (n + 1, o + p.owners as usize));
        let free = self.free.clean.len() + self.free.left.values().map(Vec::len).sum::<usize>();
        assert_eq!(free + allocated, self.total() as usize, "frames are lost or there twice");
        assert_eq!(free, self.free.count as usize, "the count of free frames is wrong");
        assert_eq!(owners, references, "page tables and pages disagree about owners");
        assert_eq!((self.used as usize, self.owners as usize), (allocated, owners), "the sums are wrong");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const USER: u32 = 7;

    #[test]
    fn page_shared_is_freed_with_its_last_owner() {
        let mut pool = Pool::new(2 * PAGE_TOKENS);
        let first = pool.allocate(USER).unwrap();
        let second = pool.share(&first);
        assert!(pool.is_shared(&first));
        pool.release(first);
        assert_eq!(pool.free(), 1, "the second owner still has the page");
        assert!(!pool.is_shared(&second));
        pool.check(1);
        pool.release(second);
        assert_eq!(pool.free(), 2);
        pool.check(0);
    }

    #[test]
    fn frames_retired_are_handed_out_no_more_and_missed_by_nobody() {
        let mut pool = Pool::new(4 * PAGE_TOKENS);
        let page = pool.allocate(USER).unwrap();
        assert_eq!(pool.retire(2), 2);
        assert_eq!((pool.total(), pool.free()), (2, 1));
        assert_eq!(pool.retire(2), 1, "no more than are free");
        assert_eq!((pool.total(), pool.free()), (1, 0));
        assert!(pool.allocate(USER).is_none());
        pool.check(1);
        pool.release(page);
        assert_eq!(pool.free(), 1);
        pool.check_sums();
    }

    #[test]
    fn pool_exhausted_allocates_nothing() {
        let mut pool = Pool::new(PAGE_TOKENS + 1);
        assert_eq!(pool.total(), 1, "a part of a page is no frame");
        let page = pool.allocate(USER).unwrap();
        assert!(pool.allocate(USER).is_none());
        pool.release(page);
        assert!(pool.allocate(USER).is_some());
    }

    #[test]
    fn pool_must_be_cleared_once_where_a_frame_goes_to_another_user() {
        let mut pool = Pool::new(2 * PAGE_TOKENS);
        let pages = [pool.allocate(USER).unwrap(), pool.allocate(USER).unwrap()];
        pages.into_iter().for_each(|page| pool.release(page));
        let page = pool.allocate(USER).unwrap();
        assert!(!pool.must_clear(), "its own frame came back");
        pool.release(page);
        let page = pool.allocate(USER + 1).unwrap();
        assert!(pool.must_clear());
        assert!(!pool.must_clear(), "it is cleared");
        pool.release(page);
        let pages = [pool.allocate(USER + 1).unwrap(), pool.allocate(USER).unwrap()];
        assert!(!pool.must_clear(), "the second one was free when it was cleared");
        pool.hand_over(&pages[1], USER + 2);
        assert!(pool.must_clear());
    }

    #[test]
    fn frames_go_back_to_their_user_then_clean_ones_and_others_last() {
        let mut pool = Pool::new(3 * PAGE_TOKENS);
        let (one, other) = (pool.allocate(USER).unwrap(), pool.allocate(USER + 1).unwrap());
        let (ones, others) = (one.0, other.0);
        pool.release(one);
        pool.release(other);
        let mut taken = Vec::new();
        for expected in [ones, 2] {
            let page = pool.allocate(USER).unwrap();
            assert_eq!(page.0, expected);
            taken.push(page);
        }
        assert!(!pool.must_clear(), "nothing of another user was taken");
        taken.push(pool.allocate(USER).unwrap());
        assert_eq!(taken[2].0, others);
        assert!(pool.must_clear());
        taken.into_iter().for_each(|page| pool.release(page));
        pool.check(0);
    }

    #[test]
    fn users_by_turns_cost_no_clearing_while_there_is_room_for_all() {
        let mut pool = Pool::new(8 * PAGE_TOKENS);
        for turn in 0..100 {
            let page = pool.allocate(turn % 8).unwrap();
            assert!(!pool.must_clear());
            pool.release(page);
        }
    }
}
