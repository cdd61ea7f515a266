//! The inner loops: products of a few rows with a tile of keys or values, and the softmax between.
//!
//! A tile is up to 64 cells of the pool. Its keys are turned so that a vector holds the same number of several
//! cells; its values stay as they are. Then both products are a number of a row times a vector of the tile, added to
//! one of up to 24 sums in registers. Each loop is compiled once for each instruction set and shape, and found
//! through a table, [`Kernels`].
//!
//! The softmax has base 2: the factor log₂e is in the queries already. What is subtracted from a row's scores is the
//! maximum so far, rounded up to a whole number. So when it grows, sums are scaled by powers of two, which is exact,
//! and how the cells were cut into tiles leaves no trace in the result.

use super::lanes::{EXPONENT_MIN, Lanes};

/// Cells of a tile.
pub const TILE: usize = 64;

/// Rows of the tallest kernel.
pub const ROWS: usize = 6;

/// Floats of the widest vector, to lay out what vectors are kept in.
pub const WIDTH_MAX: usize = 16;

/// The maximum of a row that has seen no cell. Below all real scores.
pub const UNSEEN: f32 = -1e30;

/// `scores[row][cell] = queries[row] · keys[..][cell]`, for cells from `scores` on.
pub struct Scores {
    pub queries: *const f32,
    pub width: usize,
    pub keys: *const f32,
    pub scores: *mut f32,
}

/// `out[row] += Σ weights[row][cell] · values[cell]`, for numbers from `at` on.
pub struct Values {
    pub weights: *const f32,
    pub values: *const *const u8,
    pub cells: usize,
    pub at: usize,
    pub out: *mut f32,
    pub width: usize,
}

type ScoresFn = unsafe fn(&Scores);
type ValuesFn = unsafe fn(&Values);

/// The loops for one instruction set.
///
/// # Safety
///
/// All may be called only where the CPU has the set, with pointers that are good for what their arguments say.
pub struct Kernels {
    pub name: &'static str,
    /// Floats of a vector.
    pub width: usize,
    /// Vectors side by side, at most.
    pub across: usize,
    /// By rows − 1 and by the logarithm of the vectors side by side.
    pub scores: [[ScoresFn; 3]; ROWS],
    /// The same, with values as floats.
    pub values: [[ValuesFn; 3]; ROWS],
    /// The same, with values as half floats.
    pub halves: [[ValuesFn; 3]; ROWS],
    /// Turns the keys of a tile: cells, how many, numbers of each, and where to.
    pub turn: unsafe fn(&[*const u16; TILE], usize, usize, *mut f32),
    /// A row's products with the keys of a tile as they lie: query, cells, how many, numbers of each, and where to.
    pub products: unsafe fn(*const f32, &[*const u16; TILE], usize, usize, *mut f32),
    /// Widens a row of half floats.
    pub widen: unsafe fn(*const u16, usize, *mut f32),
    /// A row's scores become weights: scores, which cells are seen, the maximum so far, and the row's sums, of
    /// which there is one for each lane. Answers the new maximum.
    pub weigh: unsafe fn(*mut f32, usize, u64, f32, *mut f32) -> f32,
}

/// See [`Scores`]; `M` rows and `N` vectors of cells.
#[inline(always)]
pub unsafe fn scores<L: Lanes, const M: usize, const N: usize>(a: &Scores) {
    // SAFETY: the caller vouches for `M` queries of `width` numbers, as many rows of keys, and `M` rows of scores.
    unsafe {
        let mut sums = [[L::zero(); N]; M];
        for number in 0..a.width {
            let keys = a.keys.add(number * TILE);
            let mut key = [L::zero(); N];
            for (n, key) in key.iter_mut().enumerate() {
                *key = L::load(keys.add(n * L::WIDTH));
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let query = L::splat(*a.queries.add(m * a.width + number));
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = L::fma(query, key[n], *sum);
                }
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                L::store(a.scores.add(m * TILE + n * L::WIDTH), *sum);
            }
        }
    }
}

/// See [`Values`]; `M` rows and `N` vectors of numbers.
#[inline(always)]
pub unsafe fn values<L: Lanes, const M: usize, const N: usize, const HALF: bool>(a: &Values) {
    // SAFETY: the caller vouches for `M` rows of weights and of sums, and for a row of values for each cell.
    unsafe {
        let mut sums = [[L::zero(); N]; M];
        for (m, sums) in sums.iter_mut().enumerate() {
            for (n, sum) in sums.iter_mut().enumerate() {
                *sum = L::load(a.out.add(m * a.width + n * L::WIDTH));
            }
        }
        for cell in 0..a.cells {
            let from = *a.values.add(cell);
            let mut value = [L::zero(); N];
            for (n, value) in value.iter_mut().enumerate() {
                let at = a.at + n * L::WIDTH;
                *value = if HALF {
                    L::load_half(from.cast::<u16>().add(at))
                } else {
                    L::load(from.cast::<f32>().add(at))
                };
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let weight = L::splat(*a.weights.add(m * TILE + cell));
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = L::fma(weight, value[n], *sum);
                }
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                L::store(a.out.add(m * a.width + n * L::WIDTH), *sum);
            }
        }
    }
}

/// See [`Kernels::turn`]. The pointers of cells that are not there lead to zeros.
#[inline(always)]
pub unsafe fn turn<L: Lanes>(cells: &[*const u16; TILE], count: usize, width: usize, to: *mut f32) {
    for first in (0..count).step_by(L::WIDTH) {
        for number in (0..width).step_by(L::WIDTH) {
            // SAFETY: the caller vouches for the cells and for `width` rows of a tile to write to.
            unsafe { L::transpose(cells.as_ptr().add(first), number, to.add(number * TILE + first), TILE) };
        }
    }
}

/// See [`Kernels::products`]. As with [`turn`], the cells that are not there lead to zeros.
#[inline(always)]
pub unsafe fn products<L: Lanes>(
    query: *const f32,
    cells: &[*const u16; TILE],
    count: usize,
    width: usize,
    to: *mut f32,
) {
    for first in (0..count).step_by(L::WIDTH) {
        // SAFETY: the caller vouches for the cells, for `width` numbers, and for a tile of scores.
        unsafe { L::store(to.add(first), L::products(query, cells.as_ptr().add(first), width)) };
    }
}

/// See [`Kernels::widen`].
#[inline(always)]
pub unsafe fn widen<L: Lanes>(from: *const u16, width: usize, to: *mut f32) {
    for number in (0..width).step_by(L::WIDTH) {
        // SAFETY: the caller vouches for `width` numbers on both sides.
        unsafe { L::store(to.add(number), L::load_half(from.add(number))) };
    }
}

/// 2ˣ for x of at most 0; 0 for −∞.
#[inline(always)]
unsafe fn power<L: Lanes>(x: L::Vector) -> L::Vector {
    /// (ln 2)ᵏ / k!: the Taylor series on −½..½ is true to a float's last bit with seven terms.
    const SERIES: [f32; 7] = [
        1.525_273_4e-5,
        1.540_353_1e-4,
        1.333_355_8e-3,
        9.618_129e-3,
        5.550_411e-2,
        0.240_226_5,
        std::f32::consts::LN_2,
    ];
    // SAFETY: no memory is touched.
    unsafe {
        let x = L::max(x, L::splat(2.0 * EXPONENT_MIN));
        let whole = L::round(x);
        let part = L::sub(x, whole);
        let mut sum = L::splat(SERIES[0]);
        for term in &SERIES[1..] {
            sum = L::fma(sum, part, L::splat(*term));
        }
        L::shift(L::fma(sum, part, L::splat(1.0)), whole)
    }
}

/// 2ⁿ for whole n of at most 0.
pub fn power_of_two(n: f32) -> f32 {
    if n < EXPONENT_MIN { 0.0 } else { f32::from_bits(((n as i32 + 127) as u32) << 23) }
}

/// See [`Kernels::weigh`]; works on whole vectors that hold `cells`, the rest of which becomes 0.
#[inline(always)]
pub unsafe fn weigh<L: Lanes>(row: *mut f32, cells: usize, seen: u64, old: f32, sums: *mut f32) -> f32 {
    // SAFETY: the caller vouches for a tile of scores and for a vector of sums.
    unsafe {
        let mut top = L::splat(UNSEEN);
        for at in (0..cells).step_by(L::WIDTH) {
            let kept = L::keep(L::load(row.add(at)), seen >> at);
            L::store(row.add(at), kept);
            top = L::max(kept, top);
        }
        let new = L::largest(top).ceil().max(old);
        let mut sum = L::mul(L::load(sums), L::splat(power_of_two(old - new)));
        for at in (0..cells).step_by(L::WIDTH) {
            let weight = power::<L>(L::sub(L::load(row.add(at)), L::splat(new)));
            L::store(row.add(at), weight);
            sum = L::add(sum, weight);
        }
        L::store(sums, sum);
        new
    }
}
