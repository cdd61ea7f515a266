//! Turning square blocks in registers: rows become columns.

use std::arch::x86_64::*;

/// Numbers in a register.
const LANES: usize = 16;

/// 16 registers of 16 numbers of 32 bits, or of pairs of 16 bits, turned: four rounds, each of which swaps what is 1, 2,
/// 4 and 8 apart.
#[target_feature(enable = "avx512f")]
pub(super) fn turned(lines: [__m512i; LANES]) -> [__m512i; LANES] {
    let mut by_1 = lines;
    for i in (0..LANES).step_by(2) {
        by_1[i] = _mm512_unpacklo_epi32(lines[i], lines[i + 1]);
        by_1[i + 1] = _mm512_unpackhi_epi32(lines[i], lines[i + 1]);
    }
    let mut by_2 = by_1;
    for i in (0..LANES).step_by(4) {
        by_2[i] = _mm512_unpacklo_epi64(by_1[i], by_1[i + 2]);
        by_2[i + 1] = _mm512_unpackhi_epi64(by_1[i], by_1[i + 2]);
        by_2[i + 2] = _mm512_unpacklo_epi64(by_1[i + 1], by_1[i + 3]);
        by_2[i + 3] = _mm512_unpackhi_epi64(by_1[i + 1], by_1[i + 3]);
    }
    // Line 4·g + j now has, in its quarter q, number 4·q + j of lines 4·g … 4·g + 3.
    let mut by_4 = by_2;
    for j in 0..4 {
        for pair in 0..2 {
            let (low, high) = (by_2[8 * pair + j], by_2[8 * pair + 4 + j]);
            by_4[8 * pair + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(low, high);
            by_4[8 * pair + 4 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(low, high);
        }
    }
    let mut by_8 = by_4;
    for j in 0..4 {
        for odd in 0..2 {
            let (low, high) = (by_4[4 * odd + j], by_4[8 + 4 * odd + j]);
            by_8[4 * odd + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(low, high);
            by_8[8 + 4 * odd + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(low, high);
        }
    }
    by_8
}
