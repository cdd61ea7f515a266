//! Products of f32 matrices with AVX-512: the `gemm` crate's own kernel reaches a third of what the registers allow.
//!
//! A tile of the output is 6 rows by 64 columns, 24 registers of sums: enough to hide the latency of the multiply-adds,
//! and a step of the loop loads only 10 values for 24 of them. Where 32 columns or fewer are left, a tile has half the
//! registers. `b` is copied into panels as wide as tiles, and 256 rows of a panel are used at a time, so that they stay
//! in the caches. `a` is read where it is if its rows lie one after another, and copied into panels of 6 rows otherwise.
//! Each number of the output is summed in one order, whatever the number of threads.

use std::arch::x86_64::*;

use rayon::prelude::*;

use super::target::Target;
use super::turn::turned;

/// Rows and columns of a tile.
const TILE: [usize; 2] = [6, 64];

/// Numbers in a register.
const LANES: usize = 16;

/// Steps of the sum for which panels are kept in cache.
const DEPTH: usize = 256;

/// Rows that a task computes at most.
const ROWS: usize = 126;

/// A matrix in memory: its first number, and how far it is to the next row and column.
#[derive(Clone, Copy)]
pub(super) struct Source {
    pub first: *const f32,
    pub row: usize,
    pub column: usize,
}

// SAFETY: threads only read it; the caller vouches for the memory.
unsafe impl Send for Source {}
// SAFETY: as above.
unsafe impl Sync for Source {}

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
    let columns = n / TILE[1] * TILE[1] + panel_width(n % TILE[1]);
    let mut packed = Vec::with_capacity(columns * k);
    let pack = |(panel, out): (usize, &mut [std::mem::MaybeUninit<f32>])| {
        let first = panel * TILE[1];
        // SAFETY: the caller vouches for AVX-512 and for the places of b; the chunk is the whole panel.
        unsafe { pack_columns(out.as_mut_ptr().cast(), b, first, (n - first).min(TILE[1]), k) };
    };
    let panels = &mut packed.spare_capacity_mut()[..columns * k];
    let rows = m.div_ceil(4 * threads).next_multiple_of(TILE[0]).min(ROWS);
    if threads > 1 {
        panels.par_chunks_mut(k * TILE[1]).enumerate().for_each(pack);
    } else {
        panels.chunks_mut(k * TILE[1]).enumerate().for_each(pack);
    }
    // SAFETY: each chunk of it was written.
    unsafe { packed.set_len(columns * k) };
    let task = |task: usize| {
        let first = task * rows;
        // SAFETY: the caller vouches for AVX-512 and for the places; tasks have different rows of c.
        unsafe { block([first, rows.min(m - first)], n, k, c, a, &packed) };
    };
    if threads > 1 {
        (0..m.div_ceil(rows)).into_par_iter().for_each(task)
    } else {
        (0..m.div_ceil(rows)).for_each(task)
    }
}

/// The width of a panel for so many columns, up to a tile's: a whole tile, or half of one.
fn panel_width(columns: usize) -> usize {
    columns.next_multiple_of(TILE[1] / 2)
}

/// Some rows of the product: for each panel of `b`, which is in the first-level cache then, all rows.
#[target_feature(enable = "avx512f")]
unsafe fn block([first, rows]: [usize; 2], n: usize, k: usize, c: Target, a: Source, packed: &[f32]) {
    let direct = a.column == 1;
    let mut panels = vec![0.0; if direct { 0 } else { rows.next_multiple_of(TILE[0]) * DEPTH.min(k) }];
    for start in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - start);
        let c = if start > 0 { c.continued() } else { c };
        // SAFETY: rows and start are inside of a, as the caller vouches.
        let corner = |row: usize| unsafe { a.first.add((first + row) * a.row + start * a.column) };
        let height = |row: usize| TILE[0].min(rows - row);
        if !direct {
            for (row, panel) in (0..rows).step_by(TILE[0]).zip(panels.chunks_exact_mut(TILE[0] * depth)) {
                // SAFETY: the panel has room for its rows, and they are a's.
                unsafe {
                    pack_rows(panel.as_mut_ptr(), Source { first: corner(row), ..a }, height(row), depth)
                };
            }
        }
        for column in (0..n).step_by(TILE[1]) {
            let width = TILE[1].min(n - column);
            for row in (0..rows).step_by(TILE[0]) {
                let size = [height(row), width];
                // SAFETY: row and column are inside of c, and the panels have the numbers of this depth.
                unsafe {
                    let b = packed.as_ptr().add(column * k + start * panel_width(width));
                    let c = c.part(first + row, column);
                    let panel = panels.as_ptr().wrapping_add(row * depth);
                    match (direct, width > TILE[1] / 2) {
                        (true, true) => tile::<false, 4>(depth, corner(row), a.row, b, c, size),
                        (true, false) => tile::<false, 2>(depth, corner(row), a.row, b, c, size),
                        (false, true) => tile::<true, 4>(depth, panel, 1, b, c, size),
                        (false, false) => tile::<true, 2>(depth, panel, 1, b, c, size),
                    }
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
) {
    let mut sums = [[_mm512_setzero_ps(); WIDE]; TILE[0]];
    // Rows below the last one repeat it; their sums are not stored.
    let rows: [*const f32; TILE[0]] = std::array::from_fn(|i| {
        // SAFETY: the row is one of a's.
        unsafe { if PACKED { a.add(i) } else { a.add(i.min(height - 1) * a_row) } }
    });
    let step = if PACKED { TILE[0] } else { 1 };
    for p in 0..depth {
        let mut columns = [_mm512_setzero_ps(); WIDE];
        for (j, columns) in columns.iter_mut().enumerate() {
            // SAFETY: p is less than the depth of the panels.
            *columns = unsafe { _mm512_loadu_ps(b.add((p * WIDE + j) * LANES)) };
        }
        for (sums, row) in sums.iter_mut().zip(rows) {
            // SAFETY: as above.
            let a = _mm512_set1_ps(unsafe { *row.add(p * step) });
            for (sum, b) in sums.iter_mut().zip(columns) {
                *sum = _mm512_fmadd_ps(a, b, *sum);
            }
        }
    }
    let factor = _mm512_set1_ps(c.factor);
    // Over all rows, and not over those that there are, so that the sums stay in registers.
    for (i, sums) in sums.iter().enumerate() {
        if i >= height {
            break;
        }
        for (j, sum) in sums.iter().enumerate() {
            let mask = lanes(width, j);
            // SAFETY: the mask keeps to the columns that the output has.
            unsafe {
                let product = _mm512_mul_ps(*sum, factor);
                let sum = match c.from(i, j * LANES) {
                    Some(from) => _mm512_add_ps(_mm512_maskz_loadu_ps(mask, from), product),
                    None => product,
                };
                _mm512_mask_storeu_ps(c.at(i, j * LANES), mask, sum);
            }
        }
    }
}

/// Which lanes of register number `j` have one of `width` columns.
fn lanes(width: usize, j: usize) -> __mmask16 {
    ((1u32 << width.saturating_sub(j * LANES).min(LANES)) - 1) as __mmask16
}

/// Copies some columns of `b` into a panel, with zeros for those that are missing.
#[target_feature(enable = "avx512f")]
unsafe fn pack_columns(out: *mut f32, b: Source, first: usize, width: usize, k: usize) {
    let panel = panel_width(width);
    for j in 0..panel / LANES {
        let (mask, count) = (lanes(width, j), width.saturating_sub(j * LANES).min(LANES));
        let source = b.first.wrapping_add((first + j * LANES) * b.column);
        let out = out.wrapping_add(j * LANES);
        if b.column == 1 {
            for p in 0..k {
                // SAFETY: the mask keeps to the columns that b has; the panel has room for k rows of its width.
                unsafe {
                    _mm512_storeu_ps(
                        out.add(p * panel),
                        _mm512_maskz_loadu_ps(mask, source.wrapping_add(p * b.row)),
                    );
                }
            }
            continue;
        }
        for p in (0..k).step_by(LANES) {
            let depth = LANES.min(k - p);
            // SAFETY: there are `count` columns of `depth` numbers from here on, and room for them.
            unsafe {
                let lines = match b.row {
                    1 => turned(columns(source.wrapping_add(p), b.column, count, depth)),
                    _ => rows(source.wrapping_add(p * b.row), b, count, depth),
                };
                for (i, line) in lines.into_iter().enumerate().take(depth) {
                    _mm512_storeu_si512(out.add((p + i) * panel).cast(), line);
                }
            }
        }
    }
}

/// The numbers of up to 16 columns that are each one after another.
#[target_feature(enable = "avx512f")]
unsafe fn columns(first: *const f32, step: usize, count: usize, depth: usize) -> [__m512i; LANES] {
    let mut lines = [_mm512_setzero_si512(); LANES];
    for (i, line) in lines.iter_mut().enumerate().take(count) {
        // SAFETY: the mask keeps to the depth.
        *line = unsafe { _mm512_maskz_loadu_epi32(lanes(depth, 0), first.wrapping_add(i * step).cast()) };
    }
    lines
}

/// The rows of up to 16 columns where neither is one after another.
#[target_feature(enable = "avx512f")]
unsafe fn rows(first: *const f32, b: Source, count: usize, depth: usize) -> [__m512i; LANES] {
    let mut lines = [_mm512_setzero_si512(); LANES];
    for (p, line) in lines.iter_mut().enumerate().take(depth) {
        let mut row = [0.0f32; LANES];
        for (i, number) in row.iter_mut().enumerate().take(count) {
            // SAFETY: the place is one of b's.
            *number = unsafe { *first.wrapping_add(p * b.row + i * b.column) };
        }
        // SAFETY: the row has 16 numbers.
        *line = unsafe { _mm512_loadu_si512(row.as_ptr().cast()) };
    }
    lines
}

/// Copies up to 6 rows of `a` into a panel; what is put for those that are missing is never stored.
#[target_feature(enable = "avx512f")]
unsafe fn pack_rows(out: *mut f32, a: Source, height: usize, depth: usize) {
    if a.row == 1 {
        let (all, here) = (lanes(TILE[0], 0), lanes(height, 0));
        for p in 0..depth {
            // SAFETY: the mask keeps to the rows that a has; the panel has room for depth columns of 6.
            unsafe {
                let numbers = _mm512_maskz_loadu_ps(here, a.first.wrapping_add(p * a.column));
                _mm512_mask_storeu_ps(out.add(p * TILE[0]), all, numbers);
            }
        }
        return;
    }
    for p in 0..depth {
        for i in 0..TILE[0] {
            let place = a.first.wrapping_add(i.min(height - 1) * a.row + p * a.column);
            // SAFETY: the row and the column are a's; the panel has room for depth columns of 6.
            unsafe { *out.add(p * TILE[0] + i) = *place };
        }
    }
}
