//! Sums and the like over slices, in lanes: the compiler must keep the order of additions of floats, so a plain loop
//! would be one long chain of them.

use super::real::Real;

/// As many f32 as two AVX-512 registers hold.
const LANES: usize = 32;

macro_rules! in_lanes {
    ($x:expr, $y:expr, $init:expr, $step:expr, $merge:expr) => {{
        let (x, y) = ($x, &$y[..$x.len()]);
        let mut lanes = [$init; LANES];
        let (mut xs, mut ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
        for (x, y) in (&mut xs).zip(&mut ys) {
            for i in 0..LANES {
                lanes[i] = $step(lanes[i], x[i], y[i]);
            }
        }
        for (i, (x, y)) in xs.remainder().iter().zip(ys.remainder()).enumerate() {
            lanes[i] = $step(lanes[i], *x, *y);
        }
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[i] = $merge(lanes[i], lanes[i + width]);
            }
            width /= 2;
        }
        lanes[0]
    }};
}

/// Σ x
#[inline]
pub fn sum<T: Real>(x: &[T]) -> T {
    in_lanes!(x, x, T::zero(), |s, x, _| s + x, |a, b| a + b)
}

/// Σ x·y
#[inline]
pub fn dot<T: Real>(x: &[T], y: &[T]) -> T {
    in_lanes!(x, y, T::zero(), |s: T, x: T, y: T| x.mul_add(y, s), |a, b| a + b)
}

/// Σ (x − mean)²
#[inline]
pub fn squares_around<T: Real>(x: &[T], mean: T) -> T {
    in_lanes!(x, x, T::zero(), |s: T, x: T, _| (x - mean).mul_add(x - mean, s), |a, b| a + b)
}

/// The greatest number; −∞ of none.
#[inline]
pub fn max<T: Real>(x: &[T]) -> T {
    let greater = |a: T, b: T| if b > a { b } else { a };
    in_lanes!(x, x, T::neg_infinity(), |s, x, _| greater(s, x), greater)
}

/// Puts e^(x − shift) in the place of each x and returns the sum of them.
#[inline]
pub fn exp_sum<T: Real>(x: &mut [T], shift: T) -> T {
    x.iter_mut().for_each(|x| *x = (*x - shift).fast_exp());
    sum(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_of_every_length_give_what_plain_loops_give() {
        for length in 0..100 {
            let x: Vec<f64> = (0..length).map(|i| ((i * 37) % 11) as f64 - 4.5).collect();
            let y: Vec<f64> = (0..length).map(|i| ((i * 17) % 7) as f64 - 2.5).collect();
            assert_eq!(sum(&x), x.iter().sum::<f64>());
            assert_eq!(dot(&x, &y), x.iter().zip(&y).map(|(a, b)| a * b).sum::<f64>());
            assert_eq!(squares_around(&x, 0.5), x.iter().map(|a| (a - 0.5) * (a - 0.5)).sum::<f64>());
            assert_eq!(max(&x), x.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        }
    }
}
