//! Vectors of 32-bit floats, as the kernels see them.
//!
//! One implementation for each instruction set. The functions are inlined into kernels that are compiled for the
//! set; nothing else may call them, since a CPU without the set stops at the first one.

/// A vector register of floats.
pub trait Lanes {
    /// The register.
    type Vector: Copy;
    /// Floats in it.
    const WIDTH: usize;
    /// Registers side by side in the widest kernel: with six rows they and their operands fill the register file.
    const ACROSS: usize;

    /// All lanes 0.
    ///
    /// # Safety
    ///
    /// As for all functions here: the CPU has the instruction set, and pointers are good for a whole vector.
    unsafe fn zero() -> Self::Vector;
    /// All lanes the same.
    unsafe fn splat(value: f32) -> Self::Vector;
    unsafe fn load(from: *const f32) -> Self::Vector;
    unsafe fn store(to: *mut f32, vector: Self::Vector);
    /// As many half floats, widened.
    unsafe fn load_half(from: *const u16) -> Self::Vector;
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn sub(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a · b + c, rounded once.
    unsafe fn fma(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    unsafe fn max(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// To the nearest whole number.
    unsafe fn round(a: Self::Vector) -> Self::Vector;
    /// a · 2ⁿ for a between ½ and 2 and whole n of at most 0; 0 where n is below [`EXPONENT_MIN`].
    unsafe fn shift(a: Self::Vector, n: Self::Vector) -> Self::Vector;
    /// The lanes whose bit is set; −∞ in the others.
    unsafe fn keep(a: Self::Vector, bits: u64) -> Self::Vector;
    /// The greatest lane.
    unsafe fn largest(a: Self::Vector) -> f32;
    /// Reads a square of half floats, one row at each pointer, and writes its columns as rows of floats that lie
    /// `stride` apart.
    unsafe fn transpose(rows: *const *const u16, at: usize, to: *mut f32, stride: usize);
    /// The products of a row of floats with as many rows of half floats as there are lanes.
    unsafe fn products(row: *const f32, rows: *const *const u16, width: usize) -> Self::Vector;
}

/// Powers of two below this are 0: what they would add to a sum that has a 1 in it is lost in any case, and
/// numbers below 2⁻¹²⁶ are slow on some CPUs.
pub const EXPONENT_MIN: f32 = -126.0;
