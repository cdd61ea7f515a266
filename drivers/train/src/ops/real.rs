//! The two types of number that models are trained in.

use candle_core::{CpuStorage, WithDType};

use crate::ranks::Number;

/// f32 or f64, with the functions that layers need. Those of f32 are polynomials that the compiler turns into vector
/// instructions; those of f64 are the standard library's, since f64 is for finding bugs and not for speed.
pub trait Real:
    WithDType
    + Number
    + num_traits::Float
    + std::iter::Sum
    + std::ops::AddAssign
    + std::ops::SubAssign
    + std::ops::MulAssign
{
    /// eˣ, to a unit or two in the last place.
    fn fast_exp(self) -> Self;
    /// The hyperbolic tangent.
    fn fast_tanh(self) -> Self;
    /// The error function.
    fn erf(self) -> Self;
    /// The number in f64.
    fn wide(self) -> f64;
    /// The number nearest to `value`.
    fn of(value: f64) -> Self;
    /// The same numbers, if this type is f32.
    fn as_f32(numbers: &[Self]) -> Option<&[f32]>;
    /// The same numbers, if this type is f32.
    fn as_f32_mut(numbers: &mut [Self]) -> Option<&mut [f32]>;
    /// The numbers of a storage of this type.
    fn slice_mut(storage: &mut CpuStorage) -> &mut [Self];
}

impl Real for f32 {
    #[inline(always)]
    fn fast_exp(self) -> Self {
        // 2ⁿ · e^r with |r| ≤ ln 2 / 2. Adding 1.5 · 2²³ rounds to a whole number in the low bits.
        const MAGIC: f32 = 12_582_912.0;
        // ln 2 in two parts, the first short enough that n times it is exact (Cody and Waite).
        const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
        let x = self.clamp(-87.0, 88.0);
        let shifted = x * std::f32::consts::LOG2_E + MAGIC;
        let n = shifted - MAGIC;
        let r = (x - n * LN2[0]) - n * LN2[1];
        // Coefficients of the Cephes library's expf.
        let mut p = 1.987_569_1e-4;
        for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = p * r + c;
        }
        let p = p * r * r + r + 1.0;
        let bits = shifted.to_bits().wrapping_sub(MAGIC.to_bits()).wrapping_add(127) << 23;
        let power = f32::from_bits(bits);
        if self < -87.0 { 0.0 } else { p * power }
    }

    #[inline(always)]
    fn fast_tanh(self) -> Self {
        // Near zero the quotient below loses digits that the series has.
        let square = self * self;
        let series =
            self * (1.0 + square * (-0.333_333_34 + square * (0.133_333_34 - square * 0.053_968_254)));
        let e = (2.0 * self).fast_exp();
        let quotient = 1.0 - 2.0 / (e + 1.0);
        if square < 0.01 { series } else { quotient }
    }

    #[inline(always)]
    fn erf(self) -> Self {
        // Abramowitz and Stegun 7.1.26 has 1.5e-7; near zero its difference of ones loses digits, the series does not.
        let a = self.abs();
        let square = a * a;
        let t = 1.0 / (1.0 + 0.327_591_1 * a);
        let poly =
            t * (0.254_829_6 + t * (-0.284_496_74 + t * (1.421_413_7 + t * (-1.453_152 + t * 1.061_405_4))));
        let far = 1.0 - poly * (-square).fast_exp();
        let mut near = -1.0 / 1320.0;
        for c in [1.0 / 216.0, -1.0 / 42.0, 0.1, -1.0 / 3.0, 1.0] {
            near = near * square + c;
        }
        let near = std::f32::consts::FRAC_2_SQRT_PI * a * near;
        let value = if a < 0.5 { near } else { far };
        value.copysign(self)
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }

    fn of(value: f64) -> Self {
        value as f32
    }

    fn as_f32(numbers: &[Self]) -> Option<&[f32]> {
        Some(numbers)
    }

    fn as_f32_mut(numbers: &mut [Self]) -> Option<&mut [f32]> {
        Some(numbers)
    }

    fn slice_mut(storage: &mut CpuStorage) -> &mut [Self] {
        match storage {
            CpuStorage::F32(values) => values,
            _ => unreachable!("the caller looked at the type"),
        }
    }
}

impl Real for f64 {
    #[inline(always)]
    fn fast_exp(self) -> Self {
        self.exp()
    }

    #[inline(always)]
    fn fast_tanh(self) -> Self {
        self.tanh()
    }

    #[inline(always)]
    fn erf(self) -> Self {
        candle_core::cpu::erf::erf_f64(self)
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }

    fn of(value: f64) -> Self {
        value
    }

    fn as_f32(_: &[Self]) -> Option<&[f32]> {
        None
    }

    fn as_f32_mut(_: &mut [Self]) -> Option<&mut [f32]> {
        None
    }

    fn slice_mut(storage: &mut CpuStorage) -> &mut [Self] {
        match storage {
            CpuStorage::F64(values) => values,
            _ => unreachable!("the caller looked at the type"),
        }
    }
}
