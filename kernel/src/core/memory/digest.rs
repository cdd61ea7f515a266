//! Digests of token prefixes, for the labels of saved pages. A worker compares a label with what it finds in a
//! slot, and what the last daemon has saved is found by its label (`found.rs`).

use syscalls::Token;

/// FNV-1a with 128 bits: offset basis and prime of its authors. It need not withstand an attacker: pages are
/// found under their owner first, so a user who makes two texts collide misleads himself alone.
const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// The digest of what has been taken in so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digest(u128);

impl Digest {
    /// Of nothing but whose it is.
    pub(super) fn new(kind: u32, owner: u32) -> Self {
        Digest(OFFSET).then(kind).then(owner)
    }

    /// With one more number.
    pub(super) fn then(self, number: u32) -> Self {
        let step = |hash: u128, byte: u8| (hash ^ u128::from(byte)).wrapping_mul(PRIME);
        Digest(number.to_le_bytes().into_iter().fold(self.0, step))
    }

    /// With tokens behind.
    pub(super) fn over(self, tokens: &[Token]) -> Self {
        tokens.iter().fold(self, |digest, token| digest.then(token.0))
    }

    pub(super) fn value(self) -> u128 {
        self.0
    }
}
