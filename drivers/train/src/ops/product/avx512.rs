//! Products of f32 matrices with AVX-512: the `gemm` crate's own kernel reaches a third of what the registers allow.
//!
//! A tile of the output is 8 rows by 48 columns, 24 registers of sums: enough to hide the latency of the multiply-adds,
//! and a step of the loop loads only 11 values for 24 of them. Where 32 or 16 columns are left, a tile is as narrow. `b`
//! is copied into panels as wide as tiles, which begin where lines of the cache do. `a` is read where it is if its rows
//! lie one after another, and copied into panels of 8 rows otherwise. While a tile is computed, what the
//! next ones read is asked for, and so is the tile's own place: the caches beyond the second are too far to wait for.
//! Each number of the output is summed in one order, whatever the number of threads.

mod pack;

use std::arch::x86_64::*;

use rayon::prelude::*;

use super::scratch::{self, Line};
use super::target::Target;

/// Rows and columns of a tile.
const TILE: [usize; 2] = [8, 48];

/// Numbers in a register.
const LANES: usize = 16;

/// Steps of the sum that are computed at a time, at most: a panel of them is a sixteenth of a second-level cache.
const DEPTH: usize = 512;

/// Rows of a task: with fewer, panels of `b` are not used often enough for what it costs to fetch them; with more, a
/// task's own panels do not fit the second-level cache.
const ROWS: [usize; 2] = [192, 512];

/// Steps of the sum in a turn of the loop.
const STRIDE: usize = 4;

/// Tasks for each thread, where there are rows enough: one that is late holds up the others for a part of the time.
const TASKS: usize = 4;

/// A matrix in memory: its first number, and how far it is to the next row and column.
#[derive(Clone, Copy)]
pub(super) struct Source {
    pub first: *const f32,
    pub row: usize,
    pub column: usize,
}

impl Source {
    /// The part of it from a row and a column on.
    fn part(self, row: usize, column: usize) -> Self {
        Source { first: self.first.wrapping_add(row * self.row + column * self.column), ..self }
    }
}

// SAFETY: threads only read it; the caller vouches for the memory.
unsafe impl Send for Source {}
// SAFETY: as above.
unsafe impl Sync for Source {}

/// What will be read soon: every so many numbers a line of the cache.
#[derive(Clone, Copy)]
struct Soon {
    first: *const f32,
    step: usize,
}

/// Whether this CPU can.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
}

/// Computes `c = a · b` with `a` of `m` × `k` and `b` of `k` × `n`, all of them at least 1.
///
/// # Safety
/// The CPU must have AVX-512F. All places of the three matrices must be valid, rows of `c` must not overlap each other,
/// and `c` must not overlap `a` or `b`.
pub(super) unsafe fn product([m, n, k]: [usize; 3], c: Target, a: Source, b: Source, threads: usize) {
    let most = k.div_ceil(k.div_ceil(DEPTH));
    let mut panels = scratch::take(n.next_multiple_of(LANES) * most / LANES);
    let tasks = (m / ROWS[0]).clamp(threads, TASKS * threads);
    let rows = m.div_ceil(tasks).next_multiple_of(TILE[0]).min(ROWS[1]);
    // A part of the depth after the other, so that all of its panels are near while they are used.
    for start in (0..k).step_by(most) {
        let depth = most.min(k - start);
        let c = if start > 0 { c.continued() } else { c };
        // SAFETY: the caller vouches for AVX-512 and for the places of b, and there is room for its columns.
        unsafe { pack::columns(panels.room(), b.part(start, 0), n, depth, threads) };
        let task = |task: usize| {
            let first = task * rows;
            let (c, a) = (c.part(first, 0), a.part(first, start));
            let more = start + depth < k;
            // SAFETY: the caller vouches for AVX-512 and for the places; tasks have different rows of c.
            unsafe { block([rows.min(m - first), n, depth], c, a, panels.lines(), more) };
        };
        match threads > 1 {
            true => (0..m.div_ceil(rows)).into_par_iter().for_each(task),
            false => (0..m.div_ceil(rows)).for_each(task),
        }
    }
}

/// The width of the panel that begins at a column of `n`: a whole tile's, or as many registers as the rest takes.
fn panel_width(n: usize, column: usize) -> usize {
    TILE[1].min((n - column).next_multiple_of(LANES))
}

/// Some rows of the product: for each panel of `b` all rows. `more` says that `a` goes on to the right.
#[target_feature(enable = "avx512f")]
unsafe fn block([m, n, k]: [usize; 3], c: Target, a: Source, packed: &[Line], more: bool) {
    let packed: *const f32 = packed.as_ptr().cast();
    let direct = a.column == 1;
    let mut left = scratch::take(if direct { 0 } else { m.next_multiple_of(TILE[0]) * k / LANES + 1 });
    let left: *mut f32 = left.room().as_mut_ptr().cast();
    if !direct {
        // SAFETY: there is room for the rows in panels of this depth, and they are a's.
        unsafe { pack::rows(left, a, m, k) };
    }
    for column in (0..n).step_by(TILE[1]) {
        let width = TILE[1].min(n - column);
        let b = packed.wrapping_add(column * k);
        for row in (0..m).step_by(TILE[0]) {
            // Of b, as many lines of each step as the next panel is wide; then, once, those of a that are copied next.
            let number = row / TILE[0];
            let later = number.wrapping_sub(TILE[1] / LANES).wrapping_mul(LANES);
            let soon = if number < TILE[1] / LANES && column + TILE[1] < n {
                Soon { first: b.wrapping_add((TILE[1] + number * LANES) * k), step: LANES }
            } else if column == 0 && a.row == 1 && more && later < m {
                Soon { first: a.part(later, k).first, step: a.column }
            } else {
                Soon { first: b, step: 0 }
            };
            let size = [TILE[0].min(m - row), width];
            let c = c.part(row, column);
            let (there, panel) = (a.part(row, 0).first, left.cast_const().wrapping_add(row * k));
            // SAFETY: row and column are inside of a and c, and the panels have the numbers of this depth.
            unsafe {
                match (direct, width.div_ceil(LANES)) {
                    (true, 1) => tile::<false, 1>(k, there, a.row, b, c, size, soon),
                    (true, 2) => tile::<false, 2>(k, there, a.row, b, c, size, soon),
                    (true, _) => tile::<false, 3>(k, there, a.row, b, c, size, soon),
                    (false, 1) => tile::<true, 1>(k, panel, 1, b, c, size, soon),
                    (false, 2) => tile::<true, 2>(k, panel, 1, b, c, size, soon),
                    (false, _) => tile::<true, 3>(k, panel, 1, b, c, size, soon),
                }
            }
        }
    }
}

/// One tile of `WIDE` registers in a row. A packed `a` has the rows' numbers of a column one after another.
#[target_feature(enable = "avx512f")]
unsafe fn tile<const PACKED: bool, const WIDE: usize>(
    depth: usize,
    a: *const f32,
    a_row: usize,
    b: *const f32,
    c: Target,
    [height, width]: [usize; 2],
    soon: Soon,
) {
    for i in 0..height {
        for j in 0..WIDE {
            _mm_prefetch::<_MM_HINT_ET0>(c.at(i, j * LANES).cast());
        }
    }
    let mut sums = [[_mm512_setzero_ps(); WIDE]; TILE[0]];
    // Rows below the last one repeat it; their sums are not stored.
    let rows: [*const f32; TILE[0]] = std::array::from_fn(|i| {
        // SAFETY: the row is one of a's.
        unsafe { if PACKED { a.add(i) } else { a.add(i.min(height - 1) * a_row) } }
    });
    let step = if PACKED { TILE[0] } else { 1 };
    let (mut b, mut line, mut place) = (b, soon.first, 0usize);
    // A step from the one at `b` and `place` on. No closure: the compiler makes a call of it in some builds, and all sums
    // go through memory for each. Checks for overflow would take a good part of the time, too.
    macro_rules! advance {
        ($p:expr) => {
            let columns: [__m512; WIDE] = std::array::from_fn(|j| {
                // SAFETY: as many steps as the depth stay inside of the panels.
                unsafe { _mm512_load_ps(b.wrapping_add(($p * WIDE + j) * LANES)) }
            });
            for (sums, row) in sums.iter_mut().zip(rows) {
                // SAFETY: as above.
                let a = _mm512_set1_ps(unsafe { *row.wrapping_add(place).wrapping_add($p * step) });
                for (sum, b) in sums.iter_mut().zip(columns) {
                    *sum = _mm512_fmadd_ps(a, b, *sum);
                }
            }
        };
    }
    for _ in 0..depth / STRIDE {
        for p in 0..STRIDE {
            _mm_prefetch::<_MM_HINT_T1>(line.cast());
            line = line.wrapping_add(soon.step);
            advance!(p);
        }
        (b, place) = (b.wrapping_add(STRIDE * WIDE * LANES), place.wrapping_add(STRIDE * step));
    }
    for _ in 0..depth % STRIDE {
        advance!(0);
        (b, place) = (b.wrapping_add(WIDE * LANES), place.wrapping_add(step));
    }
    let masks: [__mmask16; WIDE] = std::array::from_fn(|j| lanes(width, j));
    let factor = _mm512_set1_ps(c.factor);
    let row = |i: usize| {
        if i >= height {
            return;
        }
        for (j, (sum, mask)) in sums[i].into_iter().zip(masks).enumerate() {
            // SAFETY: the mask keeps to the columns that the output has.
            unsafe {
                let product = _mm512_mul_ps(sum, factor);
                let sum = match c.from(i, j * LANES) {
                    Some(from) => _mm512_add_ps(_mm512_maskz_loadu_ps(mask, from), product),
                    None => product,
                };
                _mm512_mask_storeu_ps(c.at(i, j * LANES), mask, sum);
            }
        }
    };
    // One by one, since a loop over them would have the sums in memory first.
    row(0);
    row(1);
    row(2);
    row(3);
    row(4);
    row(5);
    row(6);
    row(7);
}

/// Which lanes of register number `j` have one of `width` columns.
fn lanes(width: usize, j: usize) -> __mmask16 {
    ((1u32 << width.saturating_sub(j * LANES).min(LANES)) - 1) as __mmask16
}
