//! Random numbers that depend on a counter alone: Philox 4×32-10 (Salmon et al., "Parallel random numbers: as easy as
//! 1, 2, 3", 2011). A number is a function of the key and of what it is for, so the same numbers come out whatever
//! the order, the threads and the layout of ranks.

/// The multipliers and the increments of the key, from the paper.
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const INCREMENTS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Ten rounds of Philox on a counter of 128 bits.
#[inline(always)]
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(MULTIPLIERS[0]).wrapping_mul(u64::from(counter[0]));
        let b = u64::from(MULTIPLIERS[1]).wrapping_mul(u64::from(counter[2]));
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(INCREMENTS[0]), key[1].wrapping_add(INCREMENTS[1])];
    }
    counter
}

/// A hash of a name that stays the same (64-bit FNV-1a).
pub fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Random numbers under one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
}

impl Philox {
    /// Numbers of this seed.
    pub fn new(seed: u64) -> Self {
        Philox { key: [seed as u32, (seed >> 32) as u32] }
    }

    /// Four numbers of 32 bits for a counter.
    #[inline(always)]
    pub fn block(&self, counter: [u32; 4]) -> [u32; 4] {
        philox(counter, self.key)
    }

    fn pair(&self, index: u64) -> (u64, u64) {
        let [a, b, c, d] = self.block([index as u32, (index >> 32) as u32, 0, 0]);
        (u64::from(a) << 32 | u64::from(b), u64::from(c) << 32 | u64::from(d))
    }

    /// A number below 2^64.
    pub fn integer(&self, index: u64) -> u64 {
        self.pair(index).0
    }

    /// A number in [0, 1).
    pub fn uniform(&self, index: u64) -> f64 {
        unit(self.pair(index).0)
    }

    /// A number of the standard normal distribution (Box and Muller).
    pub fn normal(&self, index: u64) -> f64 {
        let (a, b) = self.pair(index);
        let radius = (-2.0 * (1.0 - unit(a)).ln()).sqrt();
        radius * (std::f64::consts::TAU * unit(b)).cos()
    }
}

fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that come with the authors' Random123.
    #[test]
    fn philox_known_counters_give_known_numbers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(
            philox(pi, [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn normal_has_mean_zero_and_deviation_one() {
        let source = Philox::new(7);
        let count = 100_000;
        let values: Vec<f64> = (0..count).map(|i| source.normal(i)).collect();
        let mean = values.iter().sum::<f64>() / count as f64;
        let square = values.iter().map(|v| v * v).sum::<f64>() / count as f64;
        assert!(mean.abs() < 0.02 && (square - 1.0).abs() < 0.02, "mean {mean}, square {square}");
    }
}
