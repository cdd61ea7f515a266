//! Stores numbers in ggml's types, bit for bit as ggml's reference functions do.

use half::{bf16, f16};

use super::tensor::TensorType;

/// Elements of a block of Q8_0 and Q4_0.
pub const BLOCK: usize = 32;

/// Whether [`store`] knows this type.
pub fn can_store(kind: TensorType) -> bool {
    use TensorType::{BF16, F16, F32, Q4_0, Q8_0};
    matches!(kind, F32 | F16 | BF16 | Q8_0 | Q4_0)
}

/// Appends numbers to a buffer in this type.
///
/// # Panics
///
/// For a type that [`can_store`] denies, and for numbers that do not fill whole blocks.
pub fn store(kind: TensorType, numbers: &[f32], out: &mut Vec<u8>) {
    assert!((numbers.len() as u64).is_multiple_of(kind.block_elements()), "numbers fill whole blocks");
    match kind {
        TensorType::F32 => numbers.iter().for_each(|x| out.extend(x.to_le_bytes())),
        TensorType::F16 => numbers.iter().for_each(|x| out.extend(f16::from_f32(*x).to_le_bytes())),
        TensorType::BF16 => numbers.iter().for_each(|x| out.extend(bf16::from_f32(*x).to_le_bytes())),
        TensorType::Q8_0 => numbers.as_chunks::<BLOCK>().0.iter().for_each(|block| store_q8_0(block, out)),
        TensorType::Q4_0 => numbers.as_chunks::<BLOCK>().0.iter().for_each(|block| store_q4_0(block, out)),
        other => panic!("no numbers can be stored as {}", other.name()),
    }
}

/// A scale and 32 signed bytes.
fn store_q8_0(block: &[f32; BLOCK], out: &mut Vec<u8>) {
    let largest = block.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    out.extend(f16::from_f32(scale).to_le_bytes());
    out.extend(block.iter().map(|x| (x * inverse).round() as i8 as u8));
}

/// A scale, by which the number furthest from 0 becomes −8, and 32 half-bytes around 8.
fn store_q4_0(block: &[f32; BLOCK], out: &mut Vec<u8>) {
    let furthest =
        block.iter().fold(0.0f32, |furthest, x| if x.abs() > furthest.abs() { *x } else { furthest });
    let scale = furthest / -8.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let level = |x: f32| ((x * inverse + 8.5) as i8).min(15) as u8;
    out.extend(f16::from_f32(scale).to_le_bytes());
    let (low, high) = block.split_at(BLOCK / 2);
    out.extend(low.iter().zip(high).map(|(low, high)| level(*low) | (level(*high) << 4)));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn stored(kind: TensorType, numbers: &[f32]) -> Vec<u8> {
        let mut out = Vec::new();
        store(kind, numbers, &mut out);
        out
    }

    #[test]
    fn q8_0_of_a_ramp_has_the_scale_of_its_largest_and_rounds_away_from_zero() {
        let mut ramp = [0.0f32; BLOCK];
        (ramp[0], ramp[1], ramp[2]) = (-127.0, 2.5, -2.5);
        let bytes = stored(TensorType::Q8_0, &ramp);
        assert_eq!(bytes[..2], f16::from_f32(1.0).to_le_bytes());
        assert_eq!(bytes[2..5].iter().map(|b| *b as i8).collect::<Vec<_>>(), [-127, 3, -3]);
        assert_eq!(bytes.len(), 34);
    }

    #[test]
    fn q4_0_of_a_block_maps_its_furthest_number_to_level_zero() {
        let mut block = [0.0f32; BLOCK];
        (block[0], block[16], block[1]) = (4.0, -2.0, -4.0);
        let bytes = stored(TensorType::Q4_0, &block);
        assert_eq!(bytes[..2], f16::from_f32(-0.5).to_le_bytes());
        // 4 is −8 levels of −0.5; −2 is 4 levels up; −4 would be level 16 and is cut to 15; 0 is level 8.
        assert_eq!(bytes[2], 0xc0);
        assert_eq!(bytes[3], 0x8f);
        assert_eq!(bytes.len(), 18);
    }

    #[test]
    fn zeros_in_every_type_stay_zeros() {
        for kind in [TensorType::F32, TensorType::F16, TensorType::BF16, TensorType::Q8_0] {
            assert!(stored(kind, &[0.0; BLOCK]).iter().all(|byte| *byte == 0), "{}", kind.name());
        }
        // ggml divides by −8, so its scale of nothing is −0.
        assert_eq!(stored(TensorType::Q4_0, &[0.0; BLOCK])[..3], [0, 0x80, 0x88]);
    }
}
