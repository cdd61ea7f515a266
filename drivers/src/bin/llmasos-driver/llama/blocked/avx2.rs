//! [`Lanes`] with AVX2, FMA and F16C: eight floats.

use std::arch::x86_64::*;

use super::lanes::{EXPONENT_MIN, Lanes};

pub struct Avx2;

// SAFETY (of every function): the trait's own conditions, that the CPU has AVX2, FMA and F16C and that pointers are
// good for eight elements, are all that these instructions ask for; loads and stores are unaligned ones.
impl Lanes for Avx2 {
    type Vector = __m256;
    const WIDTH: usize = 8;
    const ACROSS: usize = 2;

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, vector: __m256) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(to, vector) }
    }

    #[inline(always)]
    unsafe fn load_half(from: *const u16) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn max(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn round(a: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    unsafe fn shift(a: __m256, n: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe {
            let enough = _mm256_cmp_ps::<_CMP_GE_OQ>(n, _mm256_set1_ps(EXPONENT_MIN));
            let power =
                _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)));
            _mm256_and_ps(_mm256_mul_ps(a, _mm256_castsi256_ps(power)), enough)
        }
    }

    #[inline(always)]
    unsafe fn keep(a: __m256, bits: u64) -> __m256 {
        // SAFETY: as above.
        unsafe {
            let place = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits as i32), place), place);
            _mm256_blendv_ps(_mm256_set1_ps(f32::NEG_INFINITY), a, _mm256_castsi256_ps(set))
        }
    }

    #[inline(always)]
    unsafe fn largest(a: __m256) -> f32 {
        // SAFETY: as above.
        unsafe {
            let half = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let pair = _mm_max_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_max_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
        }
    }

    #[inline(always)]
    unsafe fn transpose(rows: *const *const u16, at: usize, to: *mut f32, stride: usize) {
        // SAFETY: as above; the caller vouches for eight rows and for eight places to write to.
        unsafe {
            let row = |n: usize| Self::load_half((*rows.add(n)).add(at));
            let mut pairs = [_mm256_setzero_ps(); 8];
            for n in 0..4 {
                let (a, b) = (row(2 * n), row(2 * n + 1));
                pairs[2 * n] = _mm256_unpacklo_ps(a, b);
                pairs[2 * n + 1] = _mm256_unpackhi_ps(a, b);
            }
            let mut fours = [_mm256_setzero_ps(); 8];
            for n in 0..2 {
                for high in 0..2 {
                    let (a, b) = (pairs[4 * n + high], pairs[4 * n + 2 + high]);
                    fours[4 * n + 2 * high] = _mm256_shuffle_ps::<0x44>(a, b);
                    fours[4 * n + 2 * high + 1] = _mm256_shuffle_ps::<0xee>(a, b);
                }
            }
            for n in 0..4 {
                let (a, b) = (fours[n], fours[4 + n]);
                Self::store(to.add(n * stride), _mm256_permute2f128_ps::<0x20>(a, b));
                Self::store(to.add((n + 4) * stride), _mm256_permute2f128_ps::<0x31>(a, b));
            }
        }
    }

    #[inline(always)]
    unsafe fn products(row: *const f32, rows: *const *const u16, width: usize) -> __m256 {
        // SAFETY: as above; the caller vouches for eight rows of `width` numbers.
        unsafe {
            let mut sums = [_mm256_setzero_ps(); 8];
            for at in (0..width).step_by(8) {
                let numbers = Self::load(row.add(at));
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = Self::fma(numbers, Self::load_half((*rows.add(n)).add(at)), *sum);
                }
            }
            // Each step halves the numbers of a sum and puts twice as many sums into a vector.
            let four = |n: usize| {
                let (a, b) = (_mm256_hadd_ps(sums[n], sums[n + 1]), _mm256_hadd_ps(sums[n + 2], sums[n + 3]));
                _mm256_hadd_ps(a, b)
            };
            let (low, high) = (four(0), four(4));
            let crossed = _mm256_permute2f128_ps::<0x21>(low, high);
            _mm256_add_ps(crossed, _mm256_blend_ps::<0xf0>(low, high))
        }
    }
}
