//! Copies of matrices in the order in which tiles read them.

use std::arch::x86_64::*;

use super::super::turn::turned;
use super::{LANES, Source, TILE, lanes, panel_width};

/// Panels of rows that are written together, so that what shares a line of the cache is read once.
const GROUP: usize = 8;

/// How many columns ahead lines are asked for: about as long as the third-level cache takes.
const AHEAD: usize = 8;

/// Copies some columns of `b` into a panel, with zeros for those that are missing.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn columns(out: *mut f32, b: Source, first: usize, width: usize, k: usize) {
    let panel = panel_width(width);
    if b.column == 1 {
        let masks: [__mmask16; TILE[1] / LANES] = std::array::from_fn(|j| lanes(width, j));
        for p in 0..k {
            let source = b.first.wrapping_add(first + p * b.row);
            for (j, mask) in masks.into_iter().enumerate().take(panel / LANES) {
                _mm_prefetch::<_MM_HINT_T0>(source.wrapping_add(AHEAD * b.row + j * LANES).cast());
                // SAFETY: the mask keeps to the columns that b has; the panel has room for k rows of its width.
                unsafe {
                    let numbers = _mm512_maskz_loadu_ps(mask, source.wrapping_add(j * LANES));
                    _mm512_storeu_ps(out.add(p * panel + j * LANES), numbers);
                }
            }
        }
        return;
    }
    for j in 0..panel / LANES {
        let count = width.saturating_sub(j * LANES).min(LANES);
        let source = b.first.wrapping_add((first + j * LANES) * b.column);
        let out = out.wrapping_add(j * LANES);
        for p in (0..k).step_by(LANES) {
            let depth = LANES.min(k - p);
            // SAFETY: there are `count` columns of `depth` numbers from here on, and room for them.
            unsafe {
                let lines = match b.row {
                    1 => turned(along(source.wrapping_add(p), b.column, count, depth)),
                    _ => across(source.wrapping_add(p * b.row), b, count, depth),
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

/// Copies rows of `a` into panels of 6; what is put for those that are missing is never stored.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn rows(out: *mut f32, a: Source, rows: usize, depth: usize) {
    let all = lanes(TILE[0], 0);
    for first in (0..rows).step_by(GROUP * TILE[0]) {
        let group = (first..rows.min(first + GROUP * TILE[0])).step_by(TILE[0]);
        for p in 0..depth {
            let source = a.first.wrapping_add(p * a.column);
            if a.row == 1 {
                let soon = source.wrapping_add(first + AHEAD * a.column);
                for line in 0..(GROUP * TILE[0]).div_ceil(LANES) {
                    _mm_prefetch::<_MM_HINT_T0>(soon.wrapping_add(line * LANES).cast());
                }
            }
            for row in group.clone() {
                let out = out.wrapping_add(row * depth + p * TILE[0]);
                if a.row == 1 {
                    // SAFETY: the mask keeps to the rows that a has; the panel has room for depth columns of 6.
                    unsafe {
                        let here = lanes(rows - row, 0) & all;
                        _mm512_mask_storeu_ps(
                            out,
                            all,
                            _mm512_maskz_loadu_ps(here, source.wrapping_add(row)),
                        );
                    }
                    continue;
                }
                for i in 0..TILE[0] {
                    let place = source.wrapping_add((row + i).min(rows - 1) * a.row);
                    // SAFETY: the row and the column are a's; the panel has room for depth columns of 6.
                    unsafe { *out.add(i) = *place };
                }
            }
        }
    }
}
