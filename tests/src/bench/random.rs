//! Prompts and arrival times from a seed, so that both sides and every run see the same.

use syscalls::Token;

/// The first token of prompts: above the bytes and the control token of every generated vocabulary.
const FIRST: u64 = 300;

/// How many tokens prompts are made of; the smallest generated vocabulary has them all.
const COUNT: u64 = 700;

/// A stream of numbers: splitmix64, in which every seed is as good as another.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number of 0..1.
    pub fn fraction(&mut self) -> f64 {
        // A double has 53 bits.
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// So many tokens of ordinary text.
    pub fn tokens(&mut self, count: u32) -> Vec<Token> {
        (0..count).map(|_| Token((FIRST + self.number() % COUNT) as u32)).collect()
    }
}
