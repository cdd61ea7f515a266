//! Copies of matrices in the order in which tiles read them.

use std::arch::x86_64::*;

use rayon::prelude::*;

use super::super::scratch::Line;
use super::super::turn::turned;
use super::{LANES, Source, TILE, lanes, panel_width};

/// Panels of rows that are written together, so that what shares a line of the cache is read once.
const GROUP: usize = 16;

/// How many columns ahead lines are asked for: about as long as the third-level cache takes.
const AHEAD: usize = 8;

/// Steps that a task copies of all panels.
const STEPS: usize = 64;

/// Where panels of `b` are put.
#[derive(Clone, Copy)]
struct Room(*mut f32);

// SAFETY: tasks write different places of it.
unsafe impl Send for Room {}
// SAFETY: as above.
unsafe impl Sync for Room {}

/// Copies `b`, of `k` × `n`, into panels, with zeros for columns that are missing.
///
/// # Safety
/// The CPU must have AVX-512F, all places of `b` must be valid, and `room` must have a number for each step of each
/// column, in whole lines.
pub(super) unsafe fn columns(room: &mut [Line], b: Source, n: usize, k: usize, threads: usize) {
    assert!(room.len() >= n.div_ceil(LANES) * k);
    let out = Room(room.as_mut_ptr().cast());
    let panel = move |panel: usize| {
        let column = panel * TILE[1];
        // SAFETY: the caller vouches for the CPU and the places; a panel begins where those before it end.
        unsafe { turned_panel(Room::at(out, column * k), b.part(0, column), n - column, k) }
    };
    let steps = move |part: usize| {
        let start = part * STEPS;
        // SAFETY: as above; parts have different steps.
        unsafe { straight(out, b, n, k, [start, k.min(start + STEPS)]) }
    };
    match (b.column == 1, threads > 1) {
        (true, true) => (0..k.div_ceil(STEPS)).into_par_iter().for_each(steps),
        (true, false) => (0..k.div_ceil(STEPS)).for_each(steps),
        (false, true) => (0..n.div_ceil(TILE[1])).into_par_iter().for_each(panel),
        (false, false) => (0..n.div_ceil(TILE[1])).for_each(panel),
    }
}

impl Room {
    fn at(self, number: usize) -> *mut f32 {
        self.0.wrapping_add(number)
    }
}

/// Some steps of all panels, of a matrix whose rows lie one after another: it is read once from left to right.
#[target_feature(enable = "avx512f")]
unsafe fn straight(out: Room, b: Source, n: usize, k: usize, [start, end]: [usize; 2]) {
    for p in start..end {
        for column in (0..n).step_by(TILE[1]) {
            let panel = panel_width(n, column);
            let out = out.at(column * k + p * panel);
            let source = b.part(p, column).first;
            for j in 0..panel / LANES {
                // SAFETY: the mask keeps to the columns that b has; the panel has room for k rows of its width.
                unsafe {
                    let numbers = _mm512_maskz_loadu_ps(lanes(n - column, j), source.wrapping_add(j * LANES));
                    _mm512_store_ps(out.add(j * LANES), numbers);
                }
            }
        }
    }
}

/// One panel, with up to `count` columns, of a matrix whose columns lie one after another, or neither they nor its rows.
#[target_feature(enable = "avx512f")]
unsafe fn turned_panel(out: *mut f32, b: Source, count: usize, k: usize) {
    let panel = panel_width(count, 0);
    for j in 0..panel / LANES {
        let count = count.saturating_sub(j * LANES).min(LANES);
        let (b, out) = (b.part(0, j * LANES), out.wrapping_add(j * LANES));
        for p in (0..k).step_by(LANES) {
            let depth = LANES.min(k - p);
            let first = b.part(p, 0).first;
            // SAFETY: there are `count` columns of `depth` numbers from here on, and room for them.
            unsafe {
                let lines = match b.row {
                    1 => turned(along(first, b.column, count, depth)),
                    _ => across(first, b, count, depth),
                };
                for (i, line) in lines.into_iter().enumerate().take(depth) {
                    _mm512_store_si512(out.add((p + i) * panel).cast(), line);
                }
            }
        }
    }
}

/// The numbers of up to 16 columns that are each one after another.
#[target_feature(enable = "avx512f")]
unsafe fn along(first: *const f32, step: usize, count: usize, depth: usize) -> [__m512i; LANES] {
    let mut lines = [_mm512_setzero_si512(); LANES];
    for (i, line) in lines.iter_mut().enumerate().take(count) {
        // SAFETY: the mask keeps to the depth.
        *line = unsafe { _mm512_maskz_loadu_epi32(lanes(depth, 0), first.wrapping_add(i * step).cast()) };
    }
    lines
}

/// The rows of up to 16 columns where neither is one after another.
#[target_feature(enable = "avx512f")]
unsafe fn across(first: *const f32, b: Source, count: usize, depth: usize) -> [__m512i; LANES] {
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

/// Copies rows of `a` into panels of 8; what is put for those that are missing is never stored.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn rows(out: *mut f32, a: Source, rows: usize, depth: usize) {
    for first in (0..rows).step_by(GROUP * TILE[0]) {
        let group = (first..rows.min(first + GROUP * TILE[0])).step_by(TILE[0]);
        for p in 0..depth {
            let source = a.part(0, p).first;
            if a.row == 1 {
                for line in 0..GROUP * TILE[0] / LANES {
                    let soon = source.wrapping_add(first + AHEAD * a.column + line * LANES);
                    _mm_prefetch::<_MM_HINT_T0>(soon.cast());
                }
            }
            for row in group.clone() {
                let out = out.wrapping_add(row * depth + p * TILE[0]);
                // SAFETY: the rows and the column are a's; the panel has room for depth columns of 8.
                unsafe {
                    if a.row == 1 && row + TILE[0] <= rows {
                        _mm256_store_ps(out, _mm256_loadu_ps(source.wrapping_add(row)));
                        continue;
                    }
                    for i in 0..TILE[0] {
                        *out.add(i) = *source.wrapping_add((row + i).min(rows - 1) * a.row);
                    }
                }
            }
        }
    }
}
