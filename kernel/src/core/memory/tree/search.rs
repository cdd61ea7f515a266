//! The search for the beginning of a log: one walk down the tree that finds what is in the pool, what is there without
//! computing, and what somebody is computing, each to the token.
//!
//! The three end at different depths. Where one ends between two pages, the neighbours of the next page in the order
//! of their tokens, and the sequences that end there, are compared with the rest of the log.

use std::collections::BTreeSet;

use drivers::wire::PAGE_TOKENS;
use syscalls::{ContextId, Token};

use super::{NodeId, PAGE, Space, Tree};

/// A sequence in the pool, as the search sees it.
pub(in crate::core) struct View<'a> {
    pub log: &'a [Token],
    pub computed: u32,
    /// It computes its prompt, can get on with it, and whoever searches may wait for it.
    pub active: bool,
}

/// What there is of the beginning of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::core) struct Found {
    /// So many tokens are in the pool.
    pub resident: u32,
    /// In the sequence of this one.
    pub giver: Option<ContextId>,
    /// So many tokens are in the pool or in slots.
    pub available: u32,
    /// So many tokens will be in the pool without anybody's doing.
    pub coming: u32,
    /// This one computes them, or the last of them.
    pub computing: Option<ContextId>,
}

/// Tokens that two lists have in common at their beginnings.
pub(super) fn in_common(a: &[Token], b: &[Token]) -> u32 {
    a.iter().zip(b).take_while(|(x, y)| x == y).count() as u32
}

/// The search for the beginning of a log.
struct Search<'a, V> {
    tree: &'a Tree,
    log: &'a [Token],
    /// Whoever searches, and the entries that it has itself.
    own: (ContextId, u32),
    view: V,
    found: Found,
    /// The end of each of the three has been seen.
    resident_ends: bool,
    available_ends: bool,
    coming_ends: bool,
}

impl Tree {
    /// What there is of the beginning of a log, but for what `own` has itself: of that, `available` alone knows.
    pub(in crate::core) fn find<'a>(
        &'a self,
        space: &Space,
        log: &'a [Token],
        own: (ContextId, u32),
        view: impl Fn(ContextId) -> Option<View<'a>>,
    ) -> Found {
        let (resident_ends, available_ends, coming_ends) = (false, false, false);
        let found = Found { available: own.1 - own.1 % PAGE_TOKENS, ..Found::default() };
        let mut search =
            Search { tree: self, log, own, view, found, resident_ends, available_ends, coming_ends };
        let mut next = self.roots.get(&space.root).copied();
        let mut gate = None;
        while let Some(at) = next {
            gate = self.gate_behind(space, at).or(gate);
            next = search.look(at);
        }
        // What is behind the gate may be longer than what all share.
        (search.resident_ends, search.available_ends, search.coming_ends) = (false, false, false);
        while let Some(at) = gate {
            gate = search.look(at);
        }
        search.found.available = search.found.available.max(search.found.resident).max(own.1);
        search.found
    }
}

impl<'a, V: Fn(ContextId) -> Option<View<'a>>> Search<'a, V> {
    /// Looks at what is behind a node, and tells the node of the whole next page.
    fn look(&mut self, at: NodeId) -> Option<NodeId> {
        let start = self.tree.node(at).depth * PAGE_TOKENS;
        let rest = &self.log[(start as usize).min(self.log.len())..];
        let next = rest.get(..PAGE).and_then(|page| self.tree.node(at).children.get(page)).copied();
        let holder = next.and_then(|n| self.holder(n));
        match holder {
            Some(holder) => {
                self.take_resident(start + PAGE_TOKENS, holder);
            }
            None if !self.resident_ends => {
                self.resident_ends = true;
                self.part_in_pool(at, start, rest);
            }
            None => {}
        }
        let saved = next.is_some_and(|n| self.tree.node(n).saved.is_some());
        let reaches = self.found.available >= start && !self.available_ends;
        if reaches && (holder.is_some() || saved) {
            self.found.available = self.found.available.max(start + PAGE_TOKENS);
        } else if reaches && self.found.available < start + PAGE_TOKENS {
            self.available_ends = true;
            self.part_in_slot(at, start, rest);
        }
        if let Some(computing) = next.and_then(|n| self.who_computes(n)) {
            self.take_coming(start + PAGE_TOKENS, computing);
        } else if !self.coming_ends && holder.is_none() {
            self.coming_ends = true;
            self.part_coming(at, start, rest);
        }
        next
    }

    fn take_resident(&mut self, length: u32, holder: ContextId) {
        if length > self.found.resident {
            self.found.resident = length;
            self.found.giver = Some(holder);
        }
    }

    /// Another sequence with the whole page of a node.
    fn holder(&self, id: NodeId) -> Option<ContextId> {
        self.tree.node(id).holders.iter().find(|h| **h != self.own.0).copied()
    }

    fn take_coming(&mut self, length: u32, computing: ContextId) {
        if length > self.found.coming {
            self.found.coming = length;
            self.found.computing = Some(computing);
        }
    }

    fn who_computes(&self, id: NodeId) -> Option<ContextId> {
        let mut coming = self.others(&self.tree.node(id).coming);
        coming.find(|holder| (self.view)(*holder).is_some_and(|v| v.active))
    }

    fn others<'b>(&self, set: &'b BTreeSet<ContextId>) -> impl Iterator<Item = ContextId> + use<'b, 'a, V> {
        let own = self.own.0;
        set.iter().copied().filter(move |h| *h != own)
    }

    /// The longest part of the next page that somebody has in the pool.
    fn part_in_pool(&mut self, at: NodeId, start: u32, rest: &[Token]) {
        let mut best: Vec<(u32, ContextId)> = Vec::new();
        for holder in self.others(&self.tree.node(at).tails) {
            let Some(v) = (self.view)(holder) else { continue };
            let Some(tail) = v.log.get(start as usize..v.computed as usize) else { continue };
            best.push((start + in_common(tail, rest).min(PAGE_TOKENS), holder));
        }
        for (child, common) in self.tree.around(at, rest) {
            let node = self.tree.node(child);
            best.extend(self.others(&node.holders).next().map(|h| (start + common, h)));
            for holder in self.others(&node.coming) {
                let computed = (self.view)(holder).map_or(0, |v| v.computed);
                best.push(((start + common).min(computed), holder));
            }
        }
        let longest =
            best.into_iter().filter(|(length, _)| *length > start).max_by_key(|(length, _)| *length);
        if let Some((length, holder)) = longest {
            self.take_resident(length, holder);
        }
    }

    /// The longest part of the next page that is saved.
    fn part_in_slot(&mut self, at: NodeId, start: u32, rest: &[Token]) {
        let around = self.tree.around(at, rest).filter(|(child, _)| self.tree.node(*child).saved.is_some());
        let longest = around.map(|(_, common)| common).max().unwrap_or(0);
        self.found.available = self.found.available.max(start + longest);
    }

    /// The longest part of the next page that somebody is to compute.
    fn part_coming(&mut self, at: NodeId, start: u32, rest: &[Token]) {
        let mut longest: Option<(u32, ContextId)> = None;
        let mut note = |common: u32, computing: ContextId| {
            if common > longest.map_or(0, |(length, _)| length) {
                longest = Some((common, computing));
            }
        };
        for holder in self.others(&self.tree.node(at).tails) {
            let Some(v) = (self.view)(holder).filter(|v| v.active) else { continue };
            let Some(tail) = v.log.get(start as usize..) else { continue };
            note(in_common(tail, rest), holder);
        }
        for (child, common) in self.tree.around(at, rest) {
            self.who_computes(child).into_iter().for_each(|computing| note(common, computing));
        }
        if let Some((length, computing)) = longest {
            self.take_coming(start + length, computing);
        }
    }
}
