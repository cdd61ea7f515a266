//! Chance from a seed: splitmix64, as the kernel's own seeds.

/// A stream of random numbers. The same seed gives the same stream on every machine.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The stream that follows from a seed.
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// Another stream, for a purpose of its own: drawing more from one does not change the other.
    pub fn of(seed: u64, purpose: u64) -> Chance {
        Chance(mix(seed, purpose))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0, 0)
    }

    /// A number from 0 to below 1.
    pub fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    /// Whether something of this probability happens.
    pub fn happens(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }

    /// The time until the next of events that come independently of each other, this long apart on average.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.fraction()).ln()
    }

    /// A length whose logarithm is normally distributed, as lengths of prompts are; `spread` is the standard
    /// deviation of the logarithm.
    pub fn log_normal(&mut self, median: f64, spread: f64) -> f64 {
        // Box and Muller's transform, of which one half is enough here.
        let radius = (-2.0 * (1.0 - self.fraction()).ln()).sqrt();
        median * (spread * radius * (std::f64::consts::TAU * self.fraction()).cos()).exp()
    }
}

/// Mixes two numbers into one (the finaliser of splitmix64).
pub fn mix(a: u64, b: u64) -> u64 {
    let mut z = a ^ b.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_follow_their_distributions_and_their_seed() {
        let mut chance = Chance::new(7);
        let mean = |mut draw: Box<dyn FnMut() -> f64>| (0..20_000).map(|_| draw()).sum::<f64>() / 20_000.0;
        let mut other = chance.clone();
        assert!((mean(Box::new(move || other.exponential(3.0))) - 3.0).abs() < 0.1);
        let mut other = chance.clone();
        let logs = mean(Box::new(move || other.log_normal(100.0, 0.5).ln()));
        assert!((logs - 100f64.ln()).abs() < 0.02, "{logs}");
        assert!((0..1000).all(|_| chance.below(10) < 10));
        assert_eq!(Chance::new(7).bits(), Chance::new(7).bits());
        assert_ne!(Chance::of(7, 1).bits(), Chance::of(7, 2).bits());
    }
}
