//! The inner loops with AVX-512 VNNI, which adds products of four unsigned and four signed bytes to each of sixteen
//! whole numbers at once.
//!
//! One factor is unsigned, so 128 is added to each weight, and 128 times the sum of the other factors taken away.

use std::arch::x86_64::*;

use super::{BLOCK, BLOCK_BYTES, CHUNK, COLUMNS, Columns, Kernel, PANEL, Rows, Turned};

/// Numbers of a vector of floats.
const WIDTH: usize = 16;

pub const KERNEL: Kernel = Kernel {
    quantise,
    turn,
    multiply: [
        multiply::<1>,
        multiply::<2>,
        multiply::<3>,
        multiply::<4>,
        multiply::<5>,
        multiply::<COLUMNS>,
    ],
};

/// The CPU has what the loops below need.
pub fn there() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("f16c")
}

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

/// Turns blocks, and has the memory begin to bring what comes next.
///
/// # Safety
///
/// Each row has so many blocks where it says, [`CHUNK`] at most.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
unsafe fn turn(rows: &Rows, blocks: usize, to: &mut Turned) {
    const LINE: usize = 64;
    let flip = _mm512_set1_epi8(i8::MIN);
    for block in 0..blocks {
        let at = block * BLOCK_BYTES;
        for line in 0..(PANEL * BLOCK_BYTES).div_ceil(LINE) {
            let next = rows.next.wrapping_add(block * PANEL * BLOCK_BYTES + line * LINE);
            _mm_prefetch::<_MM_HINT_T1>(next.cast());
        }
        for (half, rows) in rows.blocks.chunks_exact(WIDTH).enumerate() {
            for side in 0..2 {
                // SAFETY: the row has this block.
                let piece = |row: usize| unsafe { _mm_loadu_si128(rows[row].add(at + 2 + 16 * side).cast()) };
                // Sixteen numbers of the rows 0, 4, 8 and 12, of those behind them, and so on; then in each quarter the
                // groups of four are turned.
                let quarters = |row: usize| {
                    let all = _mm512_castsi128_si512(piece(row));
                    let all = _mm512_inserti32x4::<1>(all, piece(row + 4));
                    let all = _mm512_inserti32x4::<2>(all, piece(row + 8));
                    _mm512_inserti32x4::<3>(all, piece(row + 12))
                };
                let [a, b, c, d] = [quarters(0), quarters(1), quarters(2), quarters(3)];
                let (ab, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
                let (cd, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
                let fours = [
                    _mm512_unpacklo_epi64(ab, cd),
                    _mm512_unpackhi_epi64(ab, cd),
                    _mm512_unpacklo_epi64(ab_high, cd_high),
                    _mm512_unpackhi_epi64(ab_high, cd_high),
                ];
                for (at, four) in fours.into_iter().enumerate() {
                    let to: &mut [[u8; 4]] = &mut to.numbers[block][4 * side + at][WIDTH * half..];
                    // SAFETY: sixteen of them are left.
                    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), _mm512_xor_si512(four, flip)) };
                }
            }
            // SAFETY: a block begins with its scale.
            let scale = |row: usize| unsafe { rows[row].add(at).cast::<i16>().read_unaligned() };
            #[rustfmt::skip]
            let scales = _mm256_setr_epi16(
                scale(0), scale(1), scale(2), scale(3), scale(4), scale(5), scale(6), scale(7),
                scale(8), scale(9), scale(10), scale(11), scale(12), scale(13), scale(14), scale(15),
            );
            let to: &mut [f32] = &mut to.scales[block][WIDTH * half..];
            // SAFETY: sixteen of them are left.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), _mm512_cvtph_ps(scales)) };
        }
    }
}

/// Adds products of turned blocks with `N` rows of a pass to the sums of each, or begins these.
///
/// # Safety
///
/// So many blocks have been turned, and the rows have as many. There are [`PANEL`] sums for each row.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
unsafe fn multiply<const N: usize>(
    weights: &Turned,
    blocks: usize,
    columns: &Columns,
    sums: *mut f32,
    first: bool,
) {
    // SAFETY: the caller's conditions.
    unsafe {
        let mut floats = [[_mm512_setzero_ps(); 2]; N];
        if !first {
            for (n, [low, high]) in floats.iter_mut().enumerate() {
                *low = _mm512_loadu_ps(sums.add(n * PANEL));
                *high = _mm512_loadu_ps(sums.add(n * PANEL + WIDTH));
            }
        }
        for block in 0..blocks {
            let mut whole = [[_mm512_setzero_si512(); 2]; N];
            for (n, pair) in whole.iter_mut().enumerate() {
                *pair = [_mm512_set1_epi32(columns.offsets.add(n * CHUNK + block).read()); 2];
            }
            for (at, fours) in weights.numbers[block].iter().enumerate() {
                let low = _mm512_load_si512(fours.as_ptr().cast());
                let high = _mm512_load_si512(fours.as_ptr().add(WIDTH).cast());
                for (n, pair) in whole.iter_mut().enumerate() {
                    let four = columns.numbers.add((n * CHUNK + block) * BLOCK + 4 * at);
                    let four = _mm512_set1_epi32(four.cast::<i32>().read_unaligned());
                    pair[0] = _mm512_dpbusd_epi32(pair[0], low, four);
                    pair[1] = _mm512_dpbusd_epi32(pair[1], high, four);
                }
            }
            let scales = weights.scales[block].as_ptr();
            let scales = [_mm512_load_ps(scales), _mm512_load_ps(scales.add(WIDTH))];
            for (n, (pair, floats)) in whole.iter().zip(&mut floats).enumerate() {
                let scale = _mm512_set1_ps(columns.scales.add(n * CHUNK + block).read());
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
