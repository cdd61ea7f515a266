//! Cuts a pass into units of about equal work, for the threads to take one after another.
//!
//! A *group* is a block of rows with one head of keys and values. A group that is small enough is one unit. The others
//! are cut by cells: each unit then leaves a partial result, and the thread that finishes the last unit of the group
//! merges them, in their order, so that the result does not depend on which thread was when ready.

use std::ops::Range;

use super::micro::TILE;
use super::plan::{Block, Plan, READ_COST};

/// Units for each thread, so that one who is slow holds nobody up for long.
const UNITS_PER_THREAD: usize = 4;

/// The least work of a unit, in rows times cells: below it the hand-over costs more than it saves.
const UNIT_COST_MIN: usize = 2048;

/// Cells of an item.
pub struct Piece {
    pub item: usize,
    /// In multiples of a tile, but for the end.
    pub cells: Range<usize>,
}

/// What one thread does at a time.
pub struct Unit {
    pub group: usize,
    pub block: usize,
    pub head: usize,
    pub pieces: Range<usize>,
    /// Where its partial result goes among those of all units. None where it computes its whole group.
    pub partial: Option<usize>,
}

/// The units of one group.
pub struct Group {
    pub units: usize,
    /// The first partial result of the group.
    pub partials: usize,
}

/// A pass, cut.
pub struct Share {
    pub pieces: Vec<Piece>,
    pub units: Vec<Unit>,
    pub groups: Vec<Group>,
    pub partials: usize,
}

impl Share {
    /// Cuts a plan for heads of keys and values that `sharers` heads of queries share each.
    pub fn new(plan: &Plan, heads: usize, sharers: usize, threads: usize) -> Share {
        let costs: Vec<usize> = plan.blocks.iter().map(|block| cost(block, sharers)).collect();
        let all = heads * costs.iter().sum::<usize>();
        let target = (all / (threads * UNITS_PER_THREAD)).max(UNIT_COST_MIN);
        let mut share = Share { pieces: Vec::new(), units: Vec::new(), groups: Vec::new(), partials: 0 };
        // The dearest first: who comes last should have little left to do.
        let mut order: Vec<usize> = (0..plan.blocks.len()).collect();
        order.sort_by_key(|block| std::cmp::Reverse(costs[*block]));
        for block in order {
            let whole = threads == 1 || costs[block] <= target + target / 2;
            let parts = cut(&plan.blocks[block], sharers, if whole { usize::MAX } else { target });
            let start = share.pieces.len();
            let ends: Vec<usize> = parts
                .iter()
                .scan(start, |at, part| {
                    *at += part.len();
                    Some(*at)
                })
                .collect();
            share.pieces.extend(parts.into_iter().flatten());
            for head in 0..heads {
                share.add_group(block, head, start, &ends);
            }
        }
        share
    }

    fn add_group(&mut self, block: usize, head: usize, start: usize, ends: &[usize]) {
        let group = self.groups.len();
        self.groups.push(Group { units: ends.len(), partials: self.partials });
        let mut from = start;
        for end in ends {
            let partial = (ends.len() > 1).then_some(self.partials);
            self.partials += usize::from(partial.is_some());
            self.units.push(Unit { group, block, head, pieces: from..*end, partial });
            from = *end;
        }
    }
}

fn cost(block: &Block, sharers: usize) -> usize {
    block.items.iter().map(|item| item.cells.len() * (item.rows() * sharers + READ_COST)).sum()
}

/// The pieces of each part of a block. There is at least one part, which may have nothing to do.
fn cut(block: &Block, sharers: usize, target: usize) -> Vec<Vec<Piece>> {
    let mut parts = vec![Vec::new()];
    let mut room = target;
    for (item, about) in block.items.iter().enumerate() {
        let each = about.rows() * sharers + READ_COST;
        let mut from = 0;
        while from < about.cells.len() {
            let left = about.cells.len() - from;
            let fits = (room / each).max(1).next_multiple_of(TILE);
            let cells = if left <= fits.saturating_add(TILE / 2) { left } else { fits };
            parts.last_mut().expect("there is one").push(Piece { item, cells: from..from + cells });
            from += cells;
            room = room.saturating_sub(cells * each);
            if room < each * (TILE / 2) && (from < about.cells.len() || item + 1 < block.items.len()) {
                parts.push(Vec::new());
                room = target;
            }
        }
    }
    parts
}
