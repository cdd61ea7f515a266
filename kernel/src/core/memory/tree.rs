//! The prefix tree of one model: which pages of tokens exist, and who has them.
//!
//! A node is a page of tokens behind all pages above it, so a path from the root spells the beginning of a log.
//! Pages are compared token by token and never by a digest of them. A node knows the sequences whose entries in the
//! pool pass through it (of contexts, and of remnants), those that are to compute it, and the slot that it is saved
//! in. It exists as long as one of these or a node below needs it, so the tree is bounded by the pool, the slots
//! and the prompts that run. It outlives workers, as slots do.
//!
//! Each user has a root of its own, and nothing is found across roots. A published segment has a root, too, with
//! the pages that all its readers share; what a reader writes behind them is behind a gate of the reader's user.
//!
//! What is shorter than a page is a leaf where it is saved, and otherwise a tail: the last node of a sequence's
//! path lists the sequence, and its log is compared behind that.

mod search;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use drivers::wire::{PAGE_TOKENS, PageLabel, PageOwner, Slot};
use serde::{Deserialize, Serialize};
use syscalls::{ContextId, Pid, Token};

use super::digest::Digest;

use search::in_common;
pub(super) use search::{Found, View};

/// Pages on either side of the one that is looked for, in their order, that are looked at for a part in common.
/// The longest common beginning is next to it; more than one helps where that one is not in the pool.
const NEIGHBOURS: usize = 4;

/// A page in tokens, as a length of slices.
pub(super) const PAGE: usize = PAGE_TOKENS as usize;

/// A node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::core) struct NodeId(u32);

/// Whose pages these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::core) enum Root {
    /// A user's own.
    User(u32),
    /// Those of a published segment.
    Segment(u32),
}

/// Where in the tree a log belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::core) struct Space {
    pub root: Root,
    pub uid: u32,
    /// Tokens at the beginning that whoever may read the segment shares; none for a user's own log.
    pub common: u32,
    /// It is a segment itself, and nothing stands behind the common tokens.
    pub is_segment: bool,
}

impl Space {
    /// Of a log that its user alone shares.
    pub(in crate::core) fn of_user(uid: u32) -> Self {
        Space { root: Root::User(uid), uid, common: 0, is_segment: false }
    }

    /// Of a log that is the segment up to a length only.
    pub(in crate::core) fn up_to(self, length: u32) -> Self {
        Space { common: self.common.min(length), ..self }
    }

    /// The digest that all of its logs begin with, and whose the first page is.
    pub(super) fn beginning(&self) -> (Digest, PageOwner) {
        match self.root {
            Root::User(uid) => (Digest::new(0, uid), PageOwner::User(uid)),
            Root::Segment(number) => (Digest::new(1, number), PageOwner::Segment(number)),
        }
    }

    /// Whether the way on from a depth leads through the gate of the user.
    pub(super) fn gated_at(&self, depth: u32) -> bool {
        matches!(self.root, Root::Segment(_)) && !self.is_segment && depth == self.common / PAGE_TOKENS
    }
}

/// Where a page is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) struct Saved {
    pub slot: Slot,
    /// The worker has said that it is written.
    pub ready: bool,
    /// Orders saved pages by their last use.
    pub tick: u64,
    /// The process whose limit of swap it counts against.
    pub charged: Option<Pid>,
}

#[derive(Debug)]
struct Node {
    /// What it hangs on: a node, or the map of roots.
    up: Result<NodeId, Root>,
    /// Pages of the path to its end.
    depth: u32,
    tokens: Arc<[Token]>,
    /// The user whose gate it is; a gate is no page, and has the depth of the page before it.
    gate: Option<u32>,
    /// Of the user or segment and all tokens to its end.
    digest: Digest,
    /// Who may have it.
    owner: PageOwner,
    children: BTreeMap<Arc<[Token]>, NodeId>,
    gates: BTreeMap<u32, NodeId>,
    holders: BTreeSet<ContextId>,
    coming: BTreeSet<ContextId>,
    tails: BTreeSet<ContextId>,
    saved: Option<Saved>,
}

impl Node {
    fn is_needed(&self) -> bool {
        !self.children.is_empty()
            || !self.gates.is_empty()
            || !self.holders.is_empty()
            || !self.coming.is_empty()
            || !self.tails.is_empty()
            || self.saved.is_some()
    }
}

/// The tree.
#[derive(Debug, Default)]
pub(in crate::core) struct Tree {
    nodes: Vec<Option<Node>>,
    free: Vec<u32>,
    roots: BTreeMap<Root, NodeId>,
}

impl Tree {
    fn node(&self, id: NodeId) -> &Node {
        self.nodes[id.0 as usize].as_ref().expect("whoever has its number needs the node")
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes[id.0 as usize].as_mut().expect("whoever has its number needs the node")
    }

    fn add(
        &mut self,
        up: Result<NodeId, Root>,
        depth: u32,
        tokens: Arc<[Token]>,
        (digest, owner): (Digest, PageOwner),
    ) -> NodeId {
        let node = Node {
            up,
            depth,
            tokens,
            gate: None,
            digest,
            owner,
            children: BTreeMap::new(),
            gates: BTreeMap::new(),
            holders: BTreeSet::new(),
            coming: BTreeSet::new(),
            tails: BTreeSet::new(),
            saved: None,
        };
        let number = self.free.pop().unwrap_or(self.nodes.len() as u32);
        match self.nodes.get_mut(number as usize) {
            Some(place) => *place = Some(node),
            None => self.nodes.push(Some(node)),
        }
        NodeId(number)
    }

    /// The root of a space, made if need be. It goes again when the caller puts nothing there and prunes it.
    fn root(&mut self, space: &Space) -> NodeId {
        if let Some(root) = self.roots.get(&space.root) {
            return *root;
        }
        let root = self.add(Err(space.root), 0, Arc::from([]), space.beginning());
        self.roots.insert(space.root, root);
        root
    }

    /// The way on from `at` in a space: the gate, where it leads through one.
    fn through_gate(&mut self, space: &Space, at: NodeId) -> NodeId {
        let node = self.node(at);
        if !space.gated_at(node.depth) || node.gate.is_some() {
            return at;
        }
        if let Some(gate) = node.gates.get(&space.uid) {
            return *gate;
        }
        let (depth, digest) = (node.depth, node.digest.then(space.uid));
        let gate = self.add(Ok(at), depth, Arc::from([]), (digest, PageOwner::User(space.uid)));
        self.node_mut(gate).gate = Some(space.uid);
        self.node_mut(at).gates.insert(space.uid, gate);
        gate
    }

    /// The node behind `parent` (a root, if none) that is this page, made if need be.
    pub(super) fn child(&mut self, space: &Space, parent: Option<NodeId>, page: &[Token]) -> NodeId {
        let parent = parent.unwrap_or_else(|| self.root(space));
        let parent = self.through_gate(space, parent);
        let node = self.node(parent);
        if let Some(child) = node.children.get(page) {
            return *child;
        }
        let (depth, digest, owner) = (node.depth + 1, node.digest.over(page), node.owner);
        let tokens: Arc<[Token]> = page.into();
        let child = self.add(Ok(parent), depth, tokens.clone(), (digest, owner));
        self.node_mut(parent).children.insert(tokens, child);
        child
    }

    /// Removes a node that nobody needs, and those above it.
    pub(super) fn prune(&mut self, id: NodeId) {
        let mut at = id;
        while let Some(node) = self.nodes[at.0 as usize].as_ref().filter(|n| !n.is_needed()) {
            let (up, gate) = (node.up, node.gate);
            let tokens = node.tokens.clone();
            self.nodes[at.0 as usize] = None;
            self.free.push(at.0);
            match up {
                Ok(parent) => {
                    match gate {
                        Some(uid) => drop(self.node_mut(parent).gates.remove(&uid)),
                        None => drop(self.node_mut(parent).children.remove(&tokens)),
                    }
                    at = parent;
                }
                Err(root) => {
                    self.roots.remove(&root);
                    return;
                }
            }
        }
    }

    /// What a node's page is saved and loaded under.
    pub(super) fn label(&self, id: NodeId) -> PageLabel {
        let node = self.node(id);
        let from = (node.depth - 1) * PAGE_TOKENS;
        let to = from + node.tokens.len() as u32;
        PageLabel { from, to, digest: node.digest.value(), owner: node.owner }
    }

    /// Where a node's page is saved.
    pub(super) fn saved(&self, id: NodeId) -> Option<Saved> {
        self.nodes.get(id.0 as usize)?.as_ref()?.saved
    }

    /// Notes where a node's page is saved, or that it is not.
    pub(super) fn set_saved(&mut self, id: NodeId, saved: Option<Saved>) {
        self.node_mut(id).saved = saved;
        self.prune(id);
    }

    /// Notes that a sequence has, or will have, a page; and that it has and will have it no longer.
    pub(super) fn hold(&mut self, id: NodeId, holder: ContextId, has: bool) {
        let node = self.node_mut(id);
        let (into, out_of) =
            if has { (&mut node.holders, &mut node.coming) } else { (&mut node.coming, &mut node.holders) };
        into.insert(holder);
        out_of.remove(&holder);
    }

    pub(super) fn leave(&mut self, id: NodeId, holder: ContextId) {
        let node = self.node_mut(id);
        node.holders.remove(&holder);
        node.coming.remove(&holder);
        self.prune(id);
    }

    /// Lists a sequence at the end of its path (a root, if it is empty), and tells the node.
    pub(super) fn enter_tail(&mut self, space: &Space, end: Option<NodeId>, holder: ContextId) -> NodeId {
        let end = end.unwrap_or_else(|| self.root(space));
        let end = self.through_gate(space, end);
        self.node_mut(end).tails.insert(holder);
        end
    }

    pub(super) fn leave_tail(&mut self, id: NodeId, holder: ContextId) {
        self.node_mut(id).tails.remove(&holder);
        self.prune(id);
    }

    /// Whether somebody else has a node's page in the pool.
    pub(super) fn held_by_another(&self, id: NodeId, holder: ContextId) -> bool {
        self.node(id).holders.iter().any(|h| *h != holder)
    }

    /// The saved page behind `parent` that has most in common with `rest`, and how much that is.
    pub(super) fn saved_behind(
        &self,
        space: &Space,
        parent: Option<NodeId>,
        rest: &[Token],
    ) -> Option<(NodeId, u32)> {
        let parent = parent.or_else(|| self.roots.get(&space.root).copied())?;
        let gate = self.gate_behind(space, parent);
        let around = [Some(parent), gate].into_iter().flatten().flat_map(|at| self.around(at, rest));
        let saved = around.filter(|(child, _)| self.node(*child).saved.is_some());
        saved.filter(|(_, common)| *common > 0).max_by_key(|(_, common)| *common)
    }

    /// Where the logs of a space begin, if the tree has any.
    pub(super) fn root_of(&self, space: &Space) -> Option<NodeId> {
        self.roots.get(&space.root).copied()
    }

    /// The node behind another that is this page.
    pub(super) fn page_behind(&self, at: NodeId, page: &[Token]) -> Option<NodeId> {
        self.node(at).children.get(page).copied()
    }

    pub(super) fn gate_behind(&self, space: &Space, at: NodeId) -> Option<NodeId> {
        let node = self.node(at);
        space.gated_at(node.depth).then(|| node.gates.get(&space.uid).copied()).flatten()
    }

    /// Pages behind a node that come next to `rest` in their order, with the tokens that they have in common.
    fn around<'a>(&'a self, at: NodeId, rest: &'a [Token]) -> impl Iterator<Item = (NodeId, u32)> + 'a {
        let page = &rest[..rest.len().min(PAGE)];
        let children = &self.node(at).children;
        let before = children.range::<[Token], _>((Unbounded, Excluded(page))).rev().take(NEIGHBOURS);
        let behind = children.range::<[Token], _>((Included(page), Unbounded)).take(NEIGHBOURS);
        before.chain(behind).map(move |(tokens, id)| (*id, in_common(tokens, page)))
    }
}

impl Tree {
    /// Forgets who has what in the pool and who computes, when a worker is gone. Saved pages stay.
    pub(in crate::core) fn forget_pool(&mut self) {
        let ids: Vec<NodeId> = (0..self.nodes.len() as u32).map(NodeId).collect();
        for node in self.nodes.iter_mut().flatten() {
            node.holders.clear();
            node.coming.clear();
            node.tails.clear();
        }
        ids.into_iter().for_each(|id| self.prune(id));
    }

    /// All saved pages.
    pub(in crate::core) fn all_saved(&self) -> impl Iterator<Item = (NodeId, Saved)> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter_map(|(n, node)| Some((NodeId(n as u32), node.as_ref()?.saved?)))
    }

    /// Counts of nodes that a sequence is a holder of, is to compute, and is listed at.
    pub(in crate::core) fn memberships(&self) -> BTreeMap<ContextId, [usize; 3]> {
        let mut counts: BTreeMap<ContextId, [usize; 3]> = BTreeMap::new();
        for node in self.nodes.iter().flatten() {
            for (at, set) in [&node.holders, &node.coming, &node.tails].into_iter().enumerate() {
                set.iter().for_each(|holder| counts.entry(*holder).or_default()[at] += 1);
            }
        }
        counts
    }

    /// Checks that every node hangs where it says, and is needed.
    ///
    /// # Panics
    ///
    /// Where one does not.
    pub(in crate::core) fn check(&self) {
        let alive = self.nodes.iter().flatten().count();
        assert_eq!(alive + self.free.len(), self.nodes.len(), "nodes are lost or there twice");
        let mut reached = self.roots.len();
        for node in self.nodes.iter().flatten() {
            assert!(node.is_needed(), "a node of depth {} is needed by nobody", node.depth);
            reached += node.children.len() + node.gates.len();
            for (tokens, child) in &node.children {
                let child = self.node(*child);
                assert!(child.tokens == *tokens && child.depth == node.depth + 1);
                let whole = child.tokens.len() == PAGE;
                assert!(
                    whole || (child.children.is_empty() && child.holders.is_empty()),
                    "a leaf is no page"
                );
            }
        }
        assert_eq!(reached, alive, "nodes hang nowhere");
    }
}
