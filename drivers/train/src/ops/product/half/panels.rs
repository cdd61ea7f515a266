//! Panels of bf16 for matrix units, and the loops around a unit's block.
//!
//! A panel has 32 rows of `a`, or 32 columns of `b`, and all of the depth, with zeros for what is missing. It is a
//! sequence of pairs of tiles, a pair for each 32 steps of depth. A tile is 16 lines of 16 pairs of numbers that follow
//! each other in depth. Of `a`, a line is a row; of `b`, a line is a pair in depth and has a pair of each column.

use std::arch::x86_64::*;

use rayon::prelude::*;

use super::super::scratch::{self, Line};
use super::super::target::Target;
use super::super::turn::turned;

/// Lines of a tile, and pairs in a line.
pub(super) const LINES: usize = 16;

/// Rows or columns of a panel, and steps of depth of a tile.
pub(super) const PANEL: usize = 2 * LINES;

/// Rows that a task computes at most: with 2,048 steps of depth, a quarter of a core's second-level cache.
const ROWS: usize = 128;

/// Lines of a panel for each `PANEL` steps of depth.
pub(super) const STEP: usize = 2 * LINES;

/// A matrix in memory: its first number, and how far it is to the next row (of `a`) or column (of `b`), and in depth.
#[derive(Clone, Copy)]
pub(super) struct Source {
    pub first: *const f32,
    pub outer: usize,
    pub depth: usize,
}

impl Source {
    /// The same from a row or column and a step of depth on.
    fn from(self, outer: usize, depth: usize) -> Self {
        Source { first: self.first.wrapping_add(outer * self.outer + depth * self.depth), ..self }
    }
}

// SAFETY: threads only read it; the caller vouches for the memory.
unsafe impl Send for Source {}
// SAFETY: as above.
unsafe impl Sync for Source {}

/// What lies side by side in a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// The pairs of one row: `a`.
    Rows,
    /// A pair of each column: `b`.
    Pairs,
}

/// Multiplies a panel of `a` and one of `b`, each of so many steps of `PANEL`, into up to 32 × 32 numbers.
pub(super) type Block = unsafe fn(steps: usize, a: *const Line, b: *const Line, c: Target, size: [usize; 2]);

/// Computes the product of `a`, `m` × `k`, and `b`, `k` × `n`, all of them at least 1. Each task calls `begin` before
/// its blocks and `end` after them.
///
/// # Safety
/// The CPU must have AVX512-BF16 and what `block` needs. All places of the three matrices must be valid, rows of `c`
/// must not overlap each other, and `c` must not overlap `a` or `b`.
#[allow(clippy::too_many_arguments, reason = "the product and the three parts of a unit")]
pub(super) unsafe fn product(
    [m, n, k]: [usize; 3],
    c: Target,
    a: Source,
    b: Source,
    threads: usize,
    begin: fn(),
    block: Block,
    end: fn(),
) {
    let steps = k.div_ceil(PANEL);
    let lines = steps * STEP;
    let panels_of = |source: Source, count: usize, order, parallel: bool| {
        let mut panels = scratch::take(count.div_ceil(PANEL) * lines);
        let room = panels.room();
        let pack = |(panel, out): (usize, &mut [Line])| {
            let first = panel * PANEL;
            // SAFETY: the caller vouches for the CPU and the places; the chunk is the whole panel.
            unsafe { pack(out.as_mut_ptr(), source, first, PANEL.min(count - first), k, order) };
        };
        match parallel {
            true => room.par_chunks_mut(lines).enumerate().for_each(pack),
            false => room.chunks_mut(lines).enumerate().for_each(pack),
        }
        panels
    };
    let right = panels_of(b, n, Order::Pairs, threads > 1);
    let rows = m.div_ceil(4 * threads).next_multiple_of(PANEL).min(ROWS);
    let task = |task: usize| {
        let first = task * rows;
        let height = rows.min(m - first);
        let left = panels_of(a.from(first, 0), height, Order::Rows, false);
        begin();
        for (column, right) in (0..n).step_by(PANEL).zip(right.lines().chunks_exact(lines)) {
            for (row, left) in (0..height).step_by(PANEL).zip(left.lines().chunks_exact(lines)) {
                let size = [PANEL.min(height - row), PANEL.min(n - column)];
                let c = c.part(first + row, column);
                // SAFETY: row and column are inside of c; the caller vouches for it and the CPU.
                unsafe { block(steps, left.as_ptr(), right.as_ptr(), c, size) };
            }
        }
        end();
    };
    match threads > 1 {
        true => (0..m.div_ceil(rows)).into_par_iter().for_each(task),
        false => (0..m.div_ceil(rows)).for_each(task),
    }
}

/// Writes one panel.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack(out: *mut Line, x: Source, first: usize, count: usize, k: usize, order: Order) {
    for step in 0..k.div_ceil(PANEL) {
        for half in 0..2 {
            let (outer, depth) = (half * LINES, step * PANEL);
            let (height, width) = (count.saturating_sub(outer).min(LINES), PANEL.min(k - depth));
            let corner = x.from(first + outer, depth);
            // SAFETY: the caller vouches for height rows or columns, and for width steps of depth.
            let (lines, given) = unsafe {
                match (x.outer, x.depth) {
                    (_, 1) => (along_depth(corner, height, width), Order::Rows),
                    (1, _) => (across_depth(corner, height, width), Order::Pairs),
                    _ => (along_depth_of_copy(corner, height, width), Order::Rows),
                }
            };
            let lines = if given == order { lines } else { turned(lines) };
            for (i, line) in lines.into_iter().enumerate() {
                // SAFETY: the panel has room for STEP lines of each step.
                unsafe { _mm512_store_si512(out.add(step * STEP + half * LINES + i).cast(), line) };
            }
        }
    }
}

/// The first `count` of 16 lanes.
fn lanes(count: usize) -> __mmask16 {
    ((1u32 << count.min(LINES)) - 1) as __mmask16
}

/// A line for each row or column, of numbers that follow each other in depth.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn along_depth(x: Source, height: usize, width: usize) -> [__m512i; LINES] {
    let masks = [lanes(width), lanes(width.saturating_sub(LINES))];
    let mut lines = [_mm512_setzero_si512(); LINES];
    for (i, line) in lines.iter_mut().enumerate().take(height) {
        let place = x.first.wrapping_add(i * x.outer);
        // SAFETY: the masks keep to the width.
        unsafe {
            let low = _mm512_maskz_loadu_ps(masks[0], place);
            let high = _mm512_maskz_loadu_ps(masks[1], place.wrapping_add(LINES));
            *line = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
        }
    }
    lines
}

/// The same where neither direction has its numbers side by side: by way of a copy.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn along_depth_of_copy(x: Source, height: usize, width: usize) -> [__m512i; LINES] {
    let mut copy = [[0.0f32; PANEL]; LINES];
    for (i, row) in copy.iter_mut().enumerate().take(height) {
        for (p, number) in row.iter_mut().enumerate().take(width) {
            // SAFETY: the place is one of the source's.
            *number = unsafe { *x.first.add(i * x.outer + p * x.depth) };
        }
    }
    // SAFETY: the copy has all rows and all of the width.
    unsafe { along_depth(Source { first: copy.as_ptr().cast(), outer: PANEL, depth: 1 }, LINES, PANEL) }
}

/// A line for each pair in depth, of rows or columns that lie side by side.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn across_depth(x: Source, height: usize, width: usize) -> [__m512i; LINES] {
    let mask = lanes(height);
    // Word number 2·i of a line is number i of the first half, and word 2·i + 1 that of the second.
    let number = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let weave =
        _mm512_or_si512(number, _mm512_slli_epi32::<16>(_mm512_add_epi32(number, _mm512_set1_epi32(16))));
    let mut lines = [_mm512_setzero_si512(); LINES];
    for (i, line) in lines.iter_mut().enumerate().take(width.div_ceil(2)) {
        let place = x.first.wrapping_add(2 * i * x.depth);
        let second = if 2 * i + 1 < width { mask } else { 0 };
        // SAFETY: the masks keep to the height and to the width.
        unsafe {
            let low = _mm512_maskz_loadu_ps(mask, place);
            let high = _mm512_maskz_loadu_ps(second, place.wrapping_add(x.depth));
            let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            *line = _mm512_permutexvar_epi16(weave, both);
        }
    }
    lines
}

/// Puts the sums of a block, 32 in a row, into the places that the output has.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn put(sums: &[[f32; PANEL]; PANEL], c: Target, [height, width]: [usize; 2]) {
    let factor = _mm512_set1_ps(c.factor);
    for (i, sums) in sums.iter().enumerate().take(height) {
        for half in 0..2 {
            let mask = lanes(width.saturating_sub(half * LINES));
            // SAFETY: the mask keeps to the columns that the output has.
            unsafe {
                let product = _mm512_mul_ps(_mm512_loadu_ps(sums.as_ptr().add(half * LINES)), factor);
                let sum = match c.from(i, half * LINES) {
                    Some(from) => _mm512_add_ps(_mm512_maskz_loadu_ps(mask, from), product),
                    None => product,
                };
                _mm512_mask_storeu_ps(c.at(i, half * LINES), mask, sum);
            }
        }
    }
}
