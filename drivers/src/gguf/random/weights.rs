//! Random weights, made as they are stored.

use std::io::{self, Write};

use half::f16;

use super::super::quantise::{BLOCK, store};
use super::super::tensor::TensorType;

/// Numbers made at once.
const CHUNK: usize = 64 * BLOCK;

/// A xorshift* generator: fast, and good enough for weights.
pub(super) struct Random {
    state: u64,
}

impl Random {
    /// A stream of a seed's own.
    pub(super) fn new(seed: u64) -> Random {
        Random { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Writes so many random weights of mean 0 and this standard deviation, evenly distributed.
pub(super) fn fill_random(
    kind: TensorType,
    elements: usize,
    spread: f32,
    random: &mut Random,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(CHUNK * 4);
    let mut left = elements;
    while left > 0 {
        let count = left.min(CHUNK);
        bytes.clear();
        match kind {
            TensorType::Q8_0 => (0..count / BLOCK).for_each(|_| random_q8_0(spread, random, &mut bytes)),
            TensorType::Q4_0 => (0..count / BLOCK).for_each(|_| random_q4_0(spread, random, &mut bytes)),
            _ => {
                // Even on −1..1 has a standard deviation of 1/√3.
                let scale = spread * 3f32.sqrt() / (1u64 << 31) as f32;
                let numbers: Vec<f32> =
                    (0..count).map(|_| (random.next() as u32 as i32) as f32 * scale).collect();
                store(kind, &numbers, &mut bytes);
            }
        }
        out.write_all(&bytes)?;
        left -= count;
    }
    Ok(())
}

/// Even on −127..=127 has a standard deviation of 73.6.
fn random_q8_0(spread: f32, random: &mut Random, out: &mut Vec<u8>) {
    out.extend(f16::from_f32(spread / 73.6).to_le_bytes());
    for _ in 0..BLOCK / 8 {
        out.extend(random.next().to_le_bytes().map(|byte| (byte as i8).max(-127) as u8));
    }
}

/// Half-bytes are levels around 8. With every 0 made an 8, they are even on −7..=7 apart from twice as many zeros,
/// and have a standard deviation of 4.18 and no bias.
fn random_q4_0(spread: f32, random: &mut Random, out: &mut Vec<u8>) {
    const LOWEST_BITS: u64 = 0x1111_1111_1111_1111;
    out.extend(f16::from_f32(spread / 4.18).to_le_bytes());
    for _ in 0..BLOCK / 16 {
        let levels = random.next();
        let zeros = !(levels | levels >> 1 | levels >> 2 | levels >> 3) & LOWEST_BITS;
        out.extend((levels | zeros << 3).to_le_bytes());
    }
}
