//! [`Lanes`] with AVX-512: sixteen floats.

use std::arch::x86_64::*;

use super::lanes::{EXPONENT_MIN, Lanes};

pub struct Avx512;

// SAFETY (of every function): the trait's own conditions, that the CPU has AVX-512F and that pointers are good for
// sixteen elements, are all that these instructions ask for; loads and stores are unaligned ones.
impl Lanes for Avx512 {
    type Vector = __m512;
    const WIDTH: usize = 16;
    const ACROSS: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, vector: __m512) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(to, vector) }
    }

    #[inline(always)]
    unsafe fn load_half(from: *const u16) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn round(a: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    unsafe fn shift(a: __m512, n: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let enough = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(n, _mm512_set1_ps(EXPONENT_MIN));
            _mm512_maskz_scalef_ps(enough, a, n)
        }
    }

    #[inline(always)]
    unsafe fn keep(a: __m512, bits: u64) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_mask_blend_ps(bits as __mmask16, _mm512_set1_ps(f32::NEG_INFINITY), a) }
    }

    #[inline(always)]
    unsafe fn largest(a: __m512) -> f32 {
        // SAFETY: as above.
        unsafe { _mm512_reduce_max_ps(a) }
    }

    #[inline(always)]
    unsafe fn transpose(rows: *const *const u16, at: usize, to: *mut f32, stride: usize) {
        // SAFETY: as above; the caller vouches for sixteen rows and for sixteen places to write to.
        unsafe {
            let row = |n: usize| Self::load_half((*rows.add(n)).add(at));
            let mut pairs = [_mm512_setzero_ps(); 16];
            for n in 0..8 {
                let (a, b) = (row(2 * n), row(2 * n + 1));
                pairs[2 * n] = _mm512_unpacklo_ps(a, b);
                pairs[2 * n + 1] = _mm512_unpackhi_ps(a, b);
            }
            // Each lane of four floats now goes together with the same lane of the rows two further on.
            let mut fours = [_mm512_setzero_ps(); 16];
            for n in 0..4 {
                for high in 0..2 {
                    let a = _mm512_castps_pd(pairs[4 * n + high]);
                    let b = _mm512_castps_pd(pairs[4 * n + 2 + high]);
                    fours[4 * n + 2 * high] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                    fours[4 * n + 2 * high + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
                }
            }
            for n in 0..4 {
                let [a, b, c, d] = [fours[n], fours[4 + n], fours[8 + n], fours[12 + n]];
                let (even, odd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
                let (even2, odd2) = (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
                Self::store(to.add(n * stride), _mm512_shuffle_f32x4::<0x88>(even, even2));
                Self::store(to.add((n + 4) * stride), _mm512_shuffle_f32x4::<0x88>(odd, odd2));
                Self::store(to.add((n + 8) * stride), _mm512_shuffle_f32x4::<0xdd>(even, even2));
                Self::store(to.add((n + 12) * stride), _mm512_shuffle_f32x4::<0xdd>(odd, odd2));
            }
        }
    }

    #[inline(always)]
    unsafe fn products(row: *const f32, rows: *const *const u16, width: usize) -> __m512 {
        // SAFETY: as above; the caller vouches for sixteen rows of `width` numbers.
        unsafe {
            let mut sums = [_mm512_setzero_ps(); 16];
            for at in (0..width).step_by(16) {
                let numbers = Self::load(row.add(at));
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = Self::fma(numbers, Self::load_half((*rows.add(n)).add(at)), *sum);
                }
            }
            // Each step halves the numbers of a sum and puts twice as many sums into a vector.
            let mut pairs = [_mm512_setzero_ps(); 8];
            for (n, pair) in pairs.iter_mut().enumerate() {
                let (a, b) = (sums[2 * n], sums[2 * n + 1]);
                *pair = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            }
            let mut fours = [_mm512_setzero_ps(); 4];
            for (n, four) in fours.iter_mut().enumerate() {
                let (a, b) = (_mm512_castps_pd(pairs[2 * n]), _mm512_castps_pd(pairs[2 * n + 1]));
                let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
                *four = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
            }
            let halves = |a: __m512, b: __m512| {
                _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b))
            };
            halves(halves(fours[0], fours[1]), halves(fours[2], fours[3]))
        }
    }
}
