//! The order of examples: a permutation that is computed, not stored.
//!
//! A Feistel network over the next power of four, walked until the result is below the length, permutes any number of
//! examples in no memory. It depends on the seed and the epoch alone, so a position in training is two numbers.

use serde::{Deserialize, Serialize};

use crate::random::{self, Philox};

/// Rounds of the network: four make a strong permutation of a pseudo-random function (Luby and Rackoff, 1988).
const ROUNDS: u32 = 4;

/// In which order examples come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Each one once an epoch, in an order of each epoch's own.
    #[default]
    Shuffled,
    /// As they stand in the data.
    Sequential,
    /// Drawn anew each time, with repetition, beginning at any token: as nanoGPT does.
    Random,
}

/// A number below `bound` that depends on these numbers alone, and evenly so up to 2⁻⁶⁴ of it.
pub fn draw(seed: u64, purpose: &str, index: u64, bound: u64) -> u64 {
    let bits = Philox::new(seed ^ random::hash(purpose)).integer(index);
    ((u128::from(bits) * u128::from(bound)) >> 64) as u64
}

/// A permutation of `0..length`.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    length: u64,
    half_bits: u32,
    epoch: u64,
    source: Philox,
}

impl Permutation {
    /// The permutation of an epoch.
    ///
    /// # Panics
    ///
    /// Where there is nothing to permute.
    pub fn new(length: u64, seed: u64, epoch: u64) -> Permutation {
        assert!(length > 0, "an empty data set is refused before it is shuffled");
        let bits = (u64::BITS - (length - 1).leading_zeros()).max(2);
        let source = Philox::new(seed ^ random::hash("order"));
        Permutation { length, half_bits: bits.div_ceil(2), epoch, source }
    }

    /// Where the example at this place of the order stands in the data.
    pub fn at(&self, place: u64) -> u64 {
        assert!(place < self.length, "{place} is not below {}", self.length);
        let mut x = place;
        loop {
            x = self.encrypt(x);
            if x < self.length {
                return x;
            }
        }
    }

    fn encrypt(&self, x: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (x >> self.half_bits, x & mask);
        for round in 0..ROUNDS {
            let counter = [right as u32, (right >> 32) as u32, self.epoch as u32, round];
            let [low, high, ..] = self.source.block(counter);
            let mixed = (u64::from(high) << 32 | u64::from(low)) & mask;
            (left, right) = (right, left ^ mixed);
        }
        left << self.half_bits | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutation_meets_every_example_once() {
        for length in [1, 2, 3, 5, 16, 17, 1000, 4097] {
            let order = Permutation::new(length, 7, 3);
            let mut seen: Vec<u64> = (0..length).map(|place| order.at(place)).collect();
            seen.sort_unstable();
            assert!(seen.iter().copied().eq(0..length), "{length}");
        }
    }

    #[test]
    fn order_depends_on_seed_and_epoch() {
        let order = |seed, epoch| {
            let order = Permutation::new(1000, seed, epoch);
            (0..1000).map(|place| order.at(place)).collect::<Vec<_>>()
        };
        assert_eq!(order(1, 0), order(1, 0));
        assert_ne!(order(1, 0), order(1, 1));
        assert_ne!(order(1, 0), order(2, 0));
        // Few examples stay where they were: one is expected.
        let fixed = order(1, 0).iter().zip(0..).filter(|(at, place)| **at == *place).count();
        assert!(fixed < 10, "{fixed}");
    }

    #[test]
    fn draws_cover_their_range_evenly() {
        let mut counts = [0u32; 10];
        (0..10_000).for_each(|index| counts[draw(1, "test", index, 10) as usize] += 1);
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
