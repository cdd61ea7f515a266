//! Blocks with AVX512-BF16: an instruction adds 16 sums of two products.

use std::arch::x86_64::*;

use super::super::scratch::Line;
use super::super::target::Target;
use super::panels::{PANEL, STEP, put};

/// Rows whose sums are in registers at a time, with two registers a row.
const ROWS: usize = 8;

/// Whether this CPU can.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512bf16")
}

/// See [`super::panels::Block`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn block(steps: usize, a: *const Line, b: *const Line, c: Target, size: [usize; 2]) {
    let mut all = [[0.0f32; PANEL]; PANEL];
    for (rows, out) in all.chunks_exact_mut(ROWS).enumerate().take(size[0].div_ceil(ROWS)) {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        for step in 0..steps {
            for pair in 0..STEP / 2 {
                // SAFETY: both panels have STEP lines of 16 pairs for each step.
                unsafe {
                    let line = |i: usize| b.add(step * STEP + i).cast();
                    let b = [_mm512_load_si512(line(pair)), _mm512_load_si512(line(STEP / 2 + pair))];
                    let b = b.map(|line| std::mem::transmute::<__m512i, __m512bh>(line));
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let row: *const i32 = a.add(step * STEP + rows * ROWS + i).cast();
                        let a = _mm512_set1_epi32(*row.add(pair));
                        let a = std::mem::transmute::<__m512i, __m512bh>(a);
                        *sums = [_mm512_dpbf16_ps(sums[0], a, b[0]), _mm512_dpbf16_ps(sums[1], a, b[1])];
                    }
                }
            }
        }
        for (out, sums) in out.iter_mut().zip(sums) {
            // SAFETY: a row has 32 numbers.
            unsafe {
                _mm512_storeu_ps(out.as_mut_ptr(), sums[0]);
                _mm512_storeu_ps(out.as_mut_ptr().add(PANEL / 2), sums[1]);
            }
        }
    }
    // SAFETY: the caller vouches for the places of c.
    unsafe { put(&all, c, size) };
}
