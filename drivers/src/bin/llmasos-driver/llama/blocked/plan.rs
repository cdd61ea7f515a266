//! Which rows of a pass see which cells, arranged so that what many rows see is read once for all of them.
//!
//! The mask says for each row and cell whether the row sees the cell. Cells lie in any order, and in a pool that many
//! sequences share most rows see few of them. So a block of up to 64 rows takes the mask by columns: the set of rows
//! that see a cell is one number. Cells with the same set become one [`Item`], wherever they lie: a shared prefix is
//! an item of all its sharers, and what one sequence holds alone is an item of that row. What is left are sets of
//! few cells, as in the triangle of a prompt, where each cell has a set of its own: rows that have such cells in
//! common become an item of their union, and carry the bits that say who sees what; or, if little of the union is
//! seen, an item for each row.
//!
//! A mask may also hold numbers to be added to the scores. Then the plan is `biased`, and who computes looks them up.

use std::collections::HashMap;
use std::ops::Range;

use super::micro::TILE;

/// Rows of a block: as many as a number has bits.
pub const BLOCK_ROWS: usize = 64;

/// Cells from which a set of rows is worth an item of its own.
const ITEM_CELLS: usize = 16;

/// What it costs to read a cell and turn its keys, in rows that are computed with them.
pub const READ_COST: usize = 6;

/// Heads that share keys and values, where the balance of reading and computing is estimated without knowing them.
const HEADS_TYPICAL: usize = 4;

const MINUS_INFINITY: u16 = 0xfc00;

/// The mask of a pass as it lies in memory: a row of half floats for each token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mask {
    pub data: *const u8,
    /// Bytes from row to row.
    pub stride: usize,
    pub rows: usize,
    pub cells: usize,
}

impl Mask {
    /// The entries of a row.
    ///
    /// # Safety
    ///
    /// The mask's memory must be as its fields say, and aligned for half floats.
    pub unsafe fn row(&self, row: usize) -> &[u16] {
        debug_assert!(row < self.rows);
        // SAFETY: the caller's condition.
        unsafe { std::slice::from_raw_parts(self.data.add(row * self.stride).cast(), self.cells) }
    }
}

/// Cells with the rows that see them.
pub struct Item {
    /// Rows of the block, in runs of neighbours.
    pub runs: Vec<Range<usize>>,
    pub cells: Vec<u32>,
    /// For each tile of the cells and then each row of the block: which cells of the tile the row sees. None where
    /// every row of the runs sees every cell.
    pub seen: Option<Vec<u64>>,
}

impl Item {
    fn new(rows: u64, cells: Vec<u32>) -> Item {
        Item { runs: runs(rows), cells, seen: None }
    }

    /// Rows of all runs.
    pub fn rows(&self) -> usize {
        self.runs.iter().map(Range::len).sum()
    }
}

/// Neighbouring rows of a pass with all that they see.
pub struct Block {
    /// Its first row in the pass.
    pub first: usize,
    pub rows: usize,
    pub items: Vec<Item>,
}

/// A pass, arranged.
pub struct Plan {
    pub blocks: Vec<Block>,
    pub biased: bool,
}

impl Plan {
    /// Reads a mask.
    ///
    /// # Safety
    ///
    /// As for [`Mask::row`].
    pub unsafe fn new(mask: &Mask) -> Plan {
        let mut plan = Plan { blocks: Vec::new(), biased: false };
        for first in (0..mask.rows).step_by(BLOCK_ROWS) {
            let rows = BLOCK_ROWS.min(mask.rows - first);
            let mut columns = vec![0u64; mask.cells];
            for row in 0..rows {
                // SAFETY: the caller's condition.
                plan.biased |= add_row(unsafe { mask.row(first + row) }, row, &mut columns);
            }
            plan.blocks.push(Block { first, rows, items: items(&columns, rows) });
        }
        plan
    }
}

/// Sets the row's bit for the cells that it sees. True if the mask has other numbers than 0 there.
fn add_row(mask: &[u16], row: usize, columns: &mut [u64]) -> bool {
    let mut other = 0;
    for (&entry, column) in mask.iter().zip(columns) {
        let seen = entry != MINUS_INFINITY;
        *column |= u64::from(seen) << row;
        other |= if seen { entry & 0x7fff } else { 0 };
    }
    other != 0
}

/// Sorts cells by who sees them.
fn items(columns: &[u64], rows: usize) -> Vec<Item> {
    let mut alone: Vec<Vec<u32>> = vec![Vec::new(); rows];
    let mut sets: Vec<(u64, Vec<u32>)> = Vec::new();
    let mut places: HashMap<u64, usize> = HashMap::new();
    let mut last = 0;
    for (cell, &set) in columns.iter().enumerate().filter(|(_, set)| **set != 0) {
        if set.is_power_of_two() {
            alone[set.trailing_zeros() as usize].push(cell as u32);
            continue;
        }
        if sets.get(last).is_none_or(|(known, _)| *known != set) {
            last = *places.entry(set).or_insert(sets.len());
            if last == sets.len() {
                sets.push((set, Vec::new()));
            }
        }
        sets[last].1.push(cell as u32);
    }
    let (large, small): (Vec<_>, Vec<_>) = sets.into_iter().partition(|(_, cells)| cells.len() >= ITEM_CELLS);
    let mut items: Vec<Item> = large.into_iter().map(|(set, cells)| Item::new(set, cells)).collect();
    for union in unions(small) {
        if union.worthwhile() {
            items.push(union.into_item(rows));
        } else {
            union.deal_out(&mut alone);
        }
    }
    let alone = alone.into_iter().enumerate().filter(|(_, cells)| !cells.is_empty());
    items.extend(alone.map(|(row, cells)| Item::new(1 << row, cells)));
    items
}

/// Small sets of cells whose rows have some in common.
struct Union {
    rows: u64,
    cells: Vec<(u32, u64)>,
}

/// Joins sets until no row is in two of the unions.
fn unions(sets: Vec<(u64, Vec<u32>)>) -> Vec<Union> {
    let mut unions: Vec<Union> = Vec::new();
    for (set, cells) in sets {
        let mut joined = Union { rows: set, cells: cells.into_iter().map(|cell| (cell, set)).collect() };
        let (touched, apart): (Vec<_>, Vec<_>) = unions.into_iter().partition(|u| u.rows & set != 0);
        unions = apart;
        for union in touched {
            joined.rows |= union.rows;
            joined.cells.extend(union.cells);
        }
        unions.push(joined);
    }
    unions
}

impl Union {
    /// It costs less to compute all of it than to read its cells once for each row.
    fn worthwhile(&self) -> bool {
        let all = self.cells.len() * (self.rows.count_ones() as usize * HEADS_TYPICAL + READ_COST);
        let seen: usize = self.cells.iter().map(|(_, set)| set.count_ones() as usize).sum();
        all <= seen * (HEADS_TYPICAL + READ_COST)
    }

    fn into_item(mut self, rows: usize) -> Item {
        self.cells.sort_unstable();
        let mut seen = vec![0u64; self.cells.len().div_ceil(TILE) * rows];
        for (at, (_, set)) in self.cells.iter().enumerate() {
            for row in bits(*set) {
                seen[at / TILE * rows + row] |= 1 << (at % TILE);
            }
        }
        let cells = self.cells.iter().map(|(cell, _)| *cell).collect();
        Item { seen: Some(seen), ..Item::new(self.rows, cells) }
    }

    fn deal_out(self, alone: &mut [Vec<u32>]) {
        for (cell, set) in self.cells {
            for row in bits(set) {
                alone[row].push(cell);
            }
        }
    }
}

/// The places of the bits of a set, the lowest first.
fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(lowest)
    })
}

/// The runs of neighbours in a set.
fn runs(set: u64) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for row in bits(set) {
        match runs.last_mut() {
            Some(run) if run.end == row => run.end = row + 1,
            _ => runs.push(row..row + 1),
        }
    }
    runs
}
