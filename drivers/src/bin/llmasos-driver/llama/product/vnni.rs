//! The inner loops with AVX-512 VNNI, which adds products of four unsigned and four signed bytes to each of sixteen
//! whole numbers at once.
//!
//! One factor is unsigned, so 128 is added to each weight, and 128 times the sum of the other factors taken away.

use std::arch::x86_64::*;

use super::{BLOCK, Block, Blocks, CHUNK, COLUMNS, Columns, Kernel, PANEL};

/// Numbers of a vector of floats.
pub(super) const WIDTH: usize = 16;

/// Bytes of a cache line.
const LINE: usize = 64;

pub const KERNEL: Kernel = Kernel {
    quantise,
    multiply: [
        multiply::<1>,
        multiply::<2>,
        multiply::<3>,
        multiply::<4>,
        multiply::<5>,
        multiply::<COLUMNS>,
    ],
    tiled: None,
};

/// Quantises a block as ggml's Q8_0 does: 127 is the greatest magnitude, and the scale is a half float. A block with
/// something that is no number has no number for a scale, and one with an infinity an infinite one.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
unsafe fn quantise(from: *const f32, to: *mut i8) -> (f32, i32) {
    // SAFETY: the caller vouches for the block's numbers, and for room for as many.
    let (low, high) = unsafe { (_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(WIDTH))) };
    // As whole numbers, magnitudes are in the order of the floats, and what is no number is the greatest.
    let magnitude = |v| _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(i32::MAX));
    let greatest = _mm512_reduce_max_epu32(_mm512_max_epu32(magnitude(low), magnitude(high)));
    let greatest = f32::from_bits(greatest);
    let inverse = _mm512_set1_ps(if greatest == 0.0 { 0.0 } else { 127.0 / greatest });
    let whole = |v| _mm512_cvtps_epi32(_mm512_mul_ps(v, inverse));
    let (low, high) = (whole(low), whole(high));
    // SAFETY: as above.
    unsafe {
        _mm_storeu_si128(to.cast(), _mm512_cvtsepi32_epi8(low));
        _mm_storeu_si128(to.add(WIDTH).cast(), _mm512_cvtsepi32_epi8(high));
    }
    let sum = _mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
    let scale = _mm_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm_set_ss(greatest / 127.0));
    (_mm_cvtss_f32(_mm_cvtph_ps(scale)), sum.wrapping_mul(-128))
}

/// Has memory begin to bring what lies behind this block, where it is its turn.
#[target_feature(enable = "sse")]
pub(super) fn fetch(blocks: &Blocks, at: usize) {
    let (bytes, these) = &blocks.ahead;
    if these.contains(&at) {
        let from = blocks.first.wrapping_add(at).cast::<i8>().wrapping_add(*bytes);
        for line in 0..size_of::<Block>() / LINE {
            _mm_prefetch::<_MM_HINT_T1>(from.wrapping_add(line * LINE));
        }
    }
}

/// The scales of one half of a panel.
///
/// # Safety
///
/// Of the two halves this is one.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn scales(block: &Block, half: usize) -> __m512 {
    // SAFETY: each half has sixteen scales.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(block.scales.as_ptr().add(half * WIDTH).cast())) }
}

/// See [`super::Multiply`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
unsafe fn multiply<const N: usize>(blocks: &Blocks, columns: &Columns, sums: *mut f32) {
    // SAFETY: the caller's conditions.
    unsafe {
        let mut floats = [[_mm512_setzero_ps(); 2]; N];
        if !blocks.begins {
            for (n, [low, high]) in floats.iter_mut().enumerate() {
                *low = _mm512_loadu_ps(sums.add(n * PANEL));
                *high = _mm512_loadu_ps(sums.add(n * PANEL + WIDTH));
            }
        }
        let unsigned = |numbers: *const [i8; 4]| {
            _mm512_xor_si512(_mm512_loadu_si512(numbers.cast()), _mm512_set1_epi8(i8::MIN))
        };
        for at in 0..blocks.count {
            fetch(blocks, at);
            let block = &*blocks.first.add(at);
            let mut whole = [[_mm512_setzero_si512(); 2]; N];
            for (n, pair) in whole.iter_mut().enumerate() {
                *pair = [_mm512_set1_epi32(columns.offsets.add(n * CHUNK + at).read()); 2];
            }
            for (group, fours) in block.numbers.iter().enumerate() {
                let low = unsigned(fours.as_ptr());
                let high = unsigned(fours.as_ptr().add(WIDTH));
                for (n, pair) in whole.iter_mut().enumerate() {
                    let four = columns.numbers.add((n * CHUNK + at) * BLOCK + 4 * group);
                    let four = _mm512_set1_epi32(four.cast::<i32>().read_unaligned());
                    pair[0] = _mm512_dpbusd_epi32(pair[0], low, four);
                    pair[1] = _mm512_dpbusd_epi32(pair[1], high, four);
                }
            }
            let scales = [scales(block, 0), scales(block, 1)];
            for (n, (pair, floats)) in whole.iter().zip(&mut floats).enumerate() {
                let scale = _mm512_set1_ps(columns.scales.add(n * CHUNK + at).read());
                for half in 0..2 {
                    let scale = _mm512_mul_ps(scales[half], scale);
                    floats[half] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(pair[half]), scale, floats[half]);
                }
            }
        }
        for (n, [low, high]) in floats.into_iter().enumerate() {
            _mm512_storeu_ps(sums.add(n * PANEL), low);
            _mm512_storeu_ps(sums.add(n * PANEL + WIDTH), high);
        }
    }
}
