//! Products of f32 matrices whose numbers are first rounded to bf16, with sums in f32: mixed precision.
//!
//! A product of two bf16 numbers is exact in f32, so all ways of computing it differ in the order of the sums alone.
//! Where the CPU has matrix units (AMX-BF16) or dot products (AVX512-BF16), they do it, from panels that are the same
//! for both; on other CPUs rounded copies go through the products of f32.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod dot;
#[cfg(target_arch = "x86_64")]
mod panels;
mod rounded;

use rounded::Rounded;

use super::{Matrix, Output, compute};

/// What computes products of bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The products of f32, on rounded numbers.
    Rounded,
    /// AVX512-BF16: 32 products an instruction.
    #[cfg(target_arch = "x86_64")]
    Dot,
    /// AMX-BF16: 8,192 products an instruction.
    #[cfg(target_arch = "x86_64")]
    Tiles,
}

impl Unit {
    /// All that this CPU has, the fastest first.
    pub fn all() -> Vec<Unit> {
        let mut units = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            units.extend(amx::available().then_some(Unit::Tiles));
            units.extend(dot::available().then_some(Unit::Dot));
        }
        units.push(Unit::Rounded);
        units
    }

    /// The fastest one.
    pub fn best() -> Unit {
        static BEST: std::sync::OnceLock<Unit> = std::sync::OnceLock::new();
        *BEST.get_or_init(|| Unit::all()[0])
    }
}

/// `output = factor · a · b` of numbers rounded to bf16. The caller has checked that all of it is inside of the slices.
pub(super) fn product(
    unit: Unit,
    sizes: [usize; 3],
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))] mut output: Output<'_, f32>,
    [a, b]: [Matrix<'_, f32>; 2],
    factor: f32,
    threads: usize,
) {
    let [m, n, k] = sizes;
    #[cfg(target_arch = "x86_64")]
    if unit != Unit::Rounded && m > 0 && n > 0 && k > 0 {
        let source =
            |x: Matrix<'_, f32>, outer, depth| panels::Source { first: x.numbers.as_ptr(), outer, depth };
        let target = output.target(factor);
        let (a, b) = (source(a, a.row, a.column), source(b, b.column, b.row));
        // SAFETY: the caller checked the places, and `unit` is one that this CPU has.
        unsafe {
            match unit {
                Unit::Tiles => {
                    panels::product(sizes, target, a, b, threads, amx::begin, amx::block, amx::end)
                }
                _ => panels::product(sizes, target, a, b, threads, || (), dot::block, || ()),
            }
        }
        return;
    }
    let _ = unit;
    let (a, b) = (Rounded::of(a, m, k, threads), Rounded::of(b, k, n, threads));
    compute(sizes, output, a.matrix(), b.matrix(), factor, threads);
}
