//! The kernel's own stream of seeds, for generations that bring none: splitmix64, whose every state gives another
//! value. It is the only source of chance in the kernel, and all of it follows from the seed at boot.

/// The stream.
#[derive(Clone, Debug)]
pub(super) struct Seeds(u64);

impl Seeds {
    /// The stream that follows from a seed.
    pub(super) fn new(seed: u64) -> Self {
        Seeds(seed)
    }

    /// The next seed. At most 53 bits, so that it survives JSON readers that hold numbers as doubles.
    pub(super) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) >> 11
    }
}
