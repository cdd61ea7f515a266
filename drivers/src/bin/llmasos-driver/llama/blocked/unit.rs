//! One unit of work: some cells of a block of rows, for one head of keys and values.
//!
//! For each tile of cells the keys are turned and the values widened once, and all rows that see the tile are computed
//! with them, a few at a time: scores, weights, and the weighted sum of values. A unit that has seen all cells of its
//! block divides by the sum of weights and is done; others leave their sums to be merged.

use std::sync::atomic::Ordering;

use super::job::{Job, Scratch};
use super::merge::{finish, leave_partial, merge};
use super::micro::{ROWS, Scores, TILE, UNSEEN, Values, WIDTH_MAX, power_of_two};
use super::plan::{Block, Item};
use super::share::Unit;

/// Rows up to which values are widened anew by each kernel: to write them and read them again costs as much as to do
/// that three times.
const ROWS_OF_HALVES: usize = 3 * ROWS;

/// Rows up to which keys are multiplied as they lie: for more it is faster to turn them first.
const ROWS_OF_PRODUCTS: usize = 2;

/// What the pointers of cells that are not there lead to.
static ZEROS: [u16; 256] = [0; 256];

/// Computes a unit, and its group's result if it is the last one.
pub fn compute(job: &Job, unit: &Unit, scratch: &mut Scratch) {
    let block = &job.plan.blocks[unit.block];
    scratch.reserve(&job.sizes);
    fill_queries(job, block, unit.head, scratch);
    scratch.tops.fill(UNSEEN);
    for piece in &job.share.pieces[unit.pieces.clone()] {
        let item = &block.items[piece.item];
        for from in piece.cells.clone().step_by(TILE) {
            tile(job, (block, unit.head, item), from..(from + TILE).min(piece.cells.end), scratch);
        }
    }
    match unit.partial {
        None => finish(job, block, unit.head, scratch),
        Some(place) => {
            leave_partial(job, block, place, scratch);
            if job.unfinished[unit.group].fetch_sub(1, Ordering::AcqRel) == 1 {
                merge(job, block, unit, scratch);
                finish(job, block, unit.head, scratch);
            }
        }
    }
}

/// Copies the queries of all rows and sharers, scaled, to where they lie side by side.
fn fill_queries(job: &Job, block: &Block, head: usize, scratch: &mut Scratch) {
    let (width, sharers) = (job.sizes.key, job.sizes.sharers);
    let to = scratch.queries.as_mut_ptr();
    for row in 0..block.rows {
        for sharer in 0..sharers {
            let from: *const f32 = job.queries.at(block.first + row, head * sharers + sharer).cast();
            // SAFETY: the operation has a query for each row and head, and the scratch has room for those of a block.
            unsafe {
                let from = std::slice::from_raw_parts(from, width);
                let to = std::slice::from_raw_parts_mut(to.add((row * sharers + sharer) * width), width);
                for (to, from) in to.iter_mut().zip(from) {
                    *to = from * job.scale;
                }
            }
        }
    }
}

/// Computes all rows of an item with a tile of its cells.
fn tile(
    job: &Job,
    (block, head, item): (&Block, usize, &Item),
    range: std::ops::Range<usize>,
    scratch: &mut Scratch,
) {
    let cells = &item.cells[range.clone()];
    let sizes = job.sizes;
    let mut keys = [ZEROS.as_ptr(); TILE];
    for (key, cell) in keys.iter_mut().zip(cells) {
        *key = job.keys.at(*cell as usize, head).cast();
    }
    let turned = item.rows() * sizes.sharers > ROWS_OF_PRODUCTS;
    if turned {
        // SAFETY: the cells are in the pool, heads have at most as many numbers as there are zeros, and the scratch
        // has room for a tile.
        unsafe { (job.kernels.turn)(&keys, cells.len(), sizes.key, scratch.keys.as_mut_ptr()) };
    }
    let halves = item.rows() * sizes.sharers <= ROWS_OF_HALVES;
    let mut values = [std::ptr::null(); TILE];
    for (at, cell) in cells.iter().enumerate() {
        let half = job.values.at(*cell as usize, head);
        values[at] = if halves {
            half
        } else {
            // SAFETY: as above.
            unsafe {
                let wide = scratch.values.as_mut_ptr().add(at * sizes.value);
                (job.kernels.widen)(half.cast(), sizes.value, wide);
                wide.cast_const().cast()
            }
        };
    }
    let full = u64::MAX >> (TILE - cells.len());
    let seen = |row: usize| match &item.seen {
        Some(seen) => seen[range.start / TILE * block.rows + row],
        None => full,
    };
    let keys = (!turned).then_some(&keys);
    let tile = Tile { job, block, head, cells, keys, values: &values, halves, seen: &seen };
    for run in &item.runs {
        tile.rows(run.start * sizes.sharers, run.end * sizes.sharers, scratch);
    }
}

/// A tile that is ready for rows.
struct Tile<'a> {
    job: &'a Job<'a>,
    block: &'a Block,
    head: usize,
    cells: &'a [u32],
    /// The keys as they lie, if they have not been turned.
    keys: Option<&'a [*const u16; TILE]>,
    values: &'a [*const u8; TILE],
    /// The values are half floats.
    halves: bool,
    /// The cells that a row of the block sees.
    seen: &'a dyn Fn(usize) -> u64,
}

impl Tile<'_> {
    /// Computes neighbouring rows (each a row of the block with one of the sharers), as many at a time as a kernel
    /// takes, and about as many each time.
    fn rows(&self, start: usize, end: usize, scratch: &mut Scratch) {
        let rounds = (end - start).div_ceil(ROWS);
        let mut from = start;
        for round in 0..rounds {
            let rows = (end - from).div_ceil(rounds - round);
            self.scores(from, rows, scratch);
            self.weigh(from, rows, scratch);
            self.sum(from, rows, scratch);
            from += rows;
        }
    }

    fn scores(&self, from: usize, rows: usize, scratch: &mut Scratch) {
        let (kernels, width) = (self.job.kernels, self.job.sizes.key);
        if let Some(keys) = self.keys {
            for at in 0..rows {
                // SAFETY: the scratch has this row of queries and of scores; the keys are those of the tile.
                unsafe {
                    let query = scratch.queries.as_mut_ptr().add((from + at) * width);
                    let scores = scratch.scores.as_mut_ptr().add(at * TILE);
                    (kernels.products)(query, keys, self.cells.len(), width, scores);
                }
            }
            return;
        }
        each_width(kernels.width, kernels.across, self.cells.len(), |at, kind| {
            // SAFETY: the scratch has these rows of queries, a tile of keys, and room for a tile of scores; a kernel
            // that computes whole vectors stays inside the tile, whose width is a multiple of theirs.
            unsafe {
                let queries = scratch.queries.as_mut_ptr().add(from * width);
                let keys = scratch.keys.as_mut_ptr().add(at);
                let scores = scratch.scores.as_mut_ptr().add(at);
                (kernels.scores[rows - 1][kind])(&Scores { queries, width, keys, scores });
            }
        });
    }

    fn weigh(&self, from: usize, rows: usize, scratch: &mut Scratch) {
        let width = self.job.sizes.value;
        for at in 0..rows {
            let row = (from + at) / self.job.sizes.sharers;
            // SAFETY: the scratch has these rows.
            let (scores, sums, out) = unsafe {
                let out = scratch.out.as_mut_ptr().add((from + at) * width);
                (
                    scratch.scores.as_mut_ptr().add(at * TILE),
                    scratch.sums.as_mut_ptr().add((from + at) * WIDTH_MAX),
                    std::slice::from_raw_parts_mut(out, width),
                )
            };
            if self.job.plan.biased {
                self.add_bias(from + at, scores);
            }
            let old = scratch.tops[from + at];
            if old == UNSEEN {
                // SAFETY: there is a place for each lane.
                unsafe { std::slice::from_raw_parts_mut(sums, WIDTH_MAX) }.fill(0.0);
                out.fill(0.0);
            }
            // SAFETY: a tile of scores, and a sum for each lane.
            let new =
                unsafe { (self.job.kernels.weigh)(scores, self.cells.len(), (self.seen)(row), old, sums) };
            if new != old && old != UNSEEN {
                let factor = power_of_two(old - new);
                out.iter_mut().for_each(|number| *number *= factor);
            }
            scratch.tops[from + at] = new;
        }
    }

    /// Adds what the mask says to a row's scores.
    fn add_bias(&self, row: usize, scores: *mut f32) {
        let sharers = self.job.sizes.sharers;
        let slope = self.job.slope(self.head * sharers + row % sharers);
        // SAFETY: the mask has a row for each of the pass and an entry for each cell; the scratch a score for each
        // cell of a tile.
        unsafe {
            let mask = self.job.mask.row(self.block.first + row / sharers);
            for (at, cell) in self.cells.iter().enumerate() {
                *scores.add(at) += slope * half::f16::from_bits(mask[*cell as usize]).to_f32();
            }
        }
    }

    fn sum(&self, from: usize, rows: usize, scratch: &mut Scratch) {
        let (kernels, width) = (self.job.kernels, self.job.sizes.value);
        let table = if self.halves { &kernels.halves } else { &kernels.values };
        each_width(kernels.width, kernels.across, width, |at, kind| {
            // SAFETY: the scratch has these rows of weights and sums; there is a pointer for each cell.
            unsafe {
                let weights = scratch.scores.as_mut_ptr();
                let out = scratch.out.as_mut_ptr().add(from * width + at);
                let values = self.values.as_ptr();
                let cells = self.cells.len();
                (table[rows - 1][kind])(&Values { weights, values, cells, at, out, width });
            }
        });
    }
}

/// Calls for pieces of a width in order: how far in, and the kind of kernel that does the most of what is left.
fn each_width(vector: usize, across: usize, width: usize, mut call: impl FnMut(usize, usize)) {
    let mut at = 0;
    while at < width {
        let vectors = (width - at).div_ceil(vector);
        let (kind, taken) = match vectors {
            n if n >= across => (2, across),
            1 => (0, 1),
            _ => (1, 2),
        };
        call(at, kind);
        at += taken * vector;
    }
}
