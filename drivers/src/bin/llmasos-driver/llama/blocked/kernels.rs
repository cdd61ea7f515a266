//! The inner loops of [`micro`](super::micro), compiled for each instruction set that this program knows, and which
//! of them the CPU has.

#[cfg(target_arch = "x86_64")]
use super::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use super::avx512::Avx512;
use super::micro::Kernels;
#[cfg(target_arch = "x86_64")]
use super::micro::{self, Scores, TILE, Values};

/// Compiles the loops for a set of vectors with the CPU features that it needs.
#[cfg(target_arch = "x86_64")]
macro_rules! kernels {
    ($name:literal, $lanes:ty, $features:literal) => {{
        use super::lanes::Lanes;

        #[target_feature(enable = $features)]
        unsafe fn scores<const M: usize, const N: usize>(a: &Scores) {
            // SAFETY: the caller's conditions are the same.
            unsafe { micro::scores::<$lanes, M, N>(a) }
        }

        #[target_feature(enable = $features)]
        unsafe fn values<const M: usize, const N: usize, const HALF: bool>(a: &Values) {
            // SAFETY: the caller's conditions are the same.
            unsafe { micro::values::<$lanes, M, N, HALF>(a) }
        }

        #[target_feature(enable = $features)]
        unsafe fn turn(cells: &[*const u16; TILE], count: usize, width: usize, to: *mut f32) {
            // SAFETY: the caller's conditions are the same.
            unsafe { micro::turn::<$lanes>(cells, count, width, to) }
        }

        #[target_feature(enable = $features)]
        unsafe fn products(
            query: *const f32,
            cells: &[*const u16; TILE],
            count: usize,
            width: usize,
            to: *mut f32,
        ) {
            // SAFETY: the caller's conditions are the same.
            unsafe { micro::products::<$lanes>(query, cells, count, width, to) }
        }

        #[target_feature(enable = $features)]
        unsafe fn widen(from: *const u16, width: usize, to: *mut f32) {
            // SAFETY: the caller's conditions are the same.
            unsafe { micro::widen::<$lanes>(from, width, to) }
        }

        #[target_feature(enable = $features)]
        unsafe fn weigh(row: *mut f32, cells: usize, seen: u64, old: f32, sums: *mut f32) -> f32 {
            // SAFETY: the caller's conditions are the same.
            unsafe { micro::weigh::<$lanes>(row, cells, seen, old, sums) }
        }

        // Shapes wider than the register file holds are never asked for, and not compiled.
        const WIDEST: usize = <$lanes as Lanes>::ACROSS;

        Kernels {
            name: $name,
            width: <$lanes as Lanes>::WIDTH,
            across: WIDEST,
            scores: [
                [scores::<1, 1>, scores::<1, 2>, scores::<1, WIDEST>],
                [scores::<2, 1>, scores::<2, 2>, scores::<2, WIDEST>],
                [scores::<3, 1>, scores::<3, 2>, scores::<3, WIDEST>],
                [scores::<4, 1>, scores::<4, 2>, scores::<4, WIDEST>],
                [scores::<5, 1>, scores::<5, 2>, scores::<5, WIDEST>],
                [scores::<6, 1>, scores::<6, 2>, scores::<6, WIDEST>],
            ],
            values: [
                [values::<1, 1, false>, values::<1, 2, false>, values::<1, WIDEST, false>],
                [values::<2, 1, false>, values::<2, 2, false>, values::<2, WIDEST, false>],
                [values::<3, 1, false>, values::<3, 2, false>, values::<3, WIDEST, false>],
                [values::<4, 1, false>, values::<4, 2, false>, values::<4, WIDEST, false>],
                [values::<5, 1, false>, values::<5, 2, false>, values::<5, WIDEST, false>],
                [values::<6, 1, false>, values::<6, 2, false>, values::<6, WIDEST, false>],
            ],
            halves: [
                [values::<1, 1, true>, values::<1, 2, true>, values::<1, WIDEST, true>],
                [values::<2, 1, true>, values::<2, 2, true>, values::<2, WIDEST, true>],
                [values::<3, 1, true>, values::<3, 2, true>, values::<3, WIDEST, true>],
                [values::<4, 1, true>, values::<4, 2, true>, values::<4, WIDEST, true>],
                [values::<5, 1, true>, values::<5, 2, true>, values::<5, WIDEST, true>],
                [values::<6, 1, true>, values::<6, 2, true>, values::<6, WIDEST, true>],
            ],
            turn,
            products,
            widen,
            weigh,
        }
    }};
}

#[cfg(target_arch = "x86_64")]
static AVX512: Kernels = kernels!("AVX-512", Avx512, "avx512f");
#[cfg(target_arch = "x86_64")]
static AVX2: Kernels = kernels!("AVX2", Avx2, "avx2,fma,f16c");

/// The sets that this CPU has, the fastest first.
#[cfg(target_arch = "x86_64")]
pub fn known() -> Vec<&'static Kernels> {
    let mut found = Vec::new();
    if is_x86_feature_detected!("avx512f") {
        found.push(&AVX512);
    }
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
    {
        found.push(&AVX2);
    }
    found
}

/// None: other CPUs keep ggml's kernels.
#[cfg(not(target_arch = "x86_64"))]
pub fn known() -> Vec<&'static Kernels> {
    Vec::new()
}
