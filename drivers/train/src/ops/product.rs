//! Products of matrices: in f32 by our own kernel where the CPU has AVX-512, by the `gemm` crate otherwise, and in mixed
//! precision by the CPU's units for bf16.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod half;
#[cfg(target_arch = "x86_64")]
mod scratch;
#[cfg(target_arch = "x86_64")]
mod target;
#[cfg(target_arch = "x86_64")]
mod turn;

use super::real::Real;

/// How matrices of f32 are multiplied. Those of f64 are multiplied in f64: they are for finding bugs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As they are.
    #[default]
    Full,
    /// Rounded to bf16, with sums in f32.
    Mixed,
}

/// A matrix in a slice: how far it is to the next row and to the next column.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'m, T> {
    numbers: &'m [T],
    row: usize,
    column: usize,
}

impl<'m, T: Real> Matrix<'m, T> {
    /// Rows that begin `row` numbers apart.
    pub fn new(numbers: &'m [T], row: usize) -> Self {
        Matrix { numbers, row, column: 1 }
    }

    /// The same, turned: its rows are the columns.
    pub fn turned(self) -> Self {
        Matrix { row: self.column, column: self.row, ..self }
    }

    /// The same, if the numbers are f32.
    fn as_f32(&self) -> Option<Matrix<'m, f32>> {
        let numbers = T::as_f32(self.numbers)?;
        Some(Matrix { numbers, row: self.row, column: self.column })
    }

    fn reaches(&self, rows: usize, columns: usize) -> bool {
        rows == 0 || columns == 0 || (rows - 1) * self.row + (columns - 1) * self.column < self.numbers.len()
    }
}

/// Where a product goes: rows that begin `row` numbers apart.
#[derive(Debug)]
pub struct Output<'m, T> {
    numbers: &'m mut [T],
    row: usize,
    begin: Begin<'m, T>,
}

/// What a product is added to.
#[derive(Clone, Copy, Debug)]
enum Begin<'m, T> {
    Nothing,
    /// What is there.
    Itself,
    /// The same numbers in each row.
    Row(&'m [T]),
}

#[cfg(target_arch = "x86_64")]
impl Output<'_, f32> {
    fn target(&mut self, factor: f32) -> target::Target {
        let first = self.numbers.as_mut_ptr();
        let from = match self.begin {
            Begin::Nothing => None,
            Begin::Itself => Some((first.cast_const(), self.row)),
            Begin::Row(bias) => Some((bias.as_ptr(), 0)),
        };
        target::Target::new(first, self.row, from, factor)
    }
}

impl<'m, T: Real> Output<'m, T> {
    /// The product takes the place of what is there.
    pub fn set(numbers: &'m mut [T], row: usize) -> Self {
        Output { numbers, row, begin: Begin::Nothing }
    }

    /// The product is added to what is there, if `add` says so.
    pub fn add(numbers: &'m mut [T], row: usize, add: bool) -> Self {
        Output { numbers, row, begin: if add { Begin::Itself } else { Begin::Nothing } }
    }

    /// The same, if the numbers are f32.
    fn into_f32(self) -> Option<Output<'m, f32>> {
        let begin = match self.begin {
            Begin::Nothing => Begin::Nothing,
            Begin::Itself => Begin::Itself,
            Begin::Row(bias) => Begin::Row(T::as_f32(bias)?),
        };
        Some(Output { numbers: T::as_f32_mut(self.numbers)?, row: self.row, begin })
    }

    /// Each row of the product has `bias`, if there is one, added to it.
    pub fn biased(numbers: &'m mut [T], row: usize, bias: Option<&'m [T]>) -> Self {
        Output { numbers, row, begin: bias.map_or(Begin::Nothing, Begin::Row) }
    }
}

/// `output = a · b` with `a` of `m` × `k` and `b` of `k` × `n`, on all threads.
pub fn product<T: Real>(
    precision: Precision,
    sizes: [usize; 3],
    output: Output<'_, T>,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
) {
    // Below some 100,000 multiplications a second thread costs more than it brings.
    let large = sizes.iter().product::<usize>() > 1 << 17 && rayon::current_num_threads() > 1;
    let threads = if large { rayon::current_num_threads() } else { 1 };
    choose(precision, sizes, output, a, b, T::one(), threads);
}

/// The same on the calling thread, times a factor, for work that is already spread over threads.
pub fn product_here<T: Real>(
    precision: Precision,
    sizes: [usize; 3],
    output: Output<'_, T>,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    factor: T,
) {
    choose(precision, sizes, output, a, b, factor, 1);
}

fn choose<T: Real>(
    precision: Precision,
    [m, n, k]: [usize; 3],
    output: Output<'_, T>,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    factor: T,
    threads: usize,
) {
    assert!(a.reaches(m, k) && b.reaches(k, n), "a product of {m}×{k} and {k}×{n} reads past its matrices");
    let last = m.saturating_sub(1) * output.row + n.saturating_sub(1);
    assert!(m == 0 || n == 0 || last < output.numbers.len(), "a product of {m}×{n} writes past its output");
    assert!(m <= 1 || output.row >= n, "rows of {n} overlap: they begin {} apart", output.row);
    if let Begin::Row(bias) = output.begin {
        assert!(bias.len() >= n, "a bias of {} numbers for rows of {n}", bias.len());
    }
    if precision == Precision::Mixed
        && let (Some(a), Some(b)) = (a.as_f32(), b.as_f32())
    {
        let output = output.into_f32().expect("the type of the others");
        return half::product(half::Unit::best(), [m, n, k], output, [a, b], factor.wide() as f32, threads);
    }
    compute([m, n, k], output, a, b, factor, threads);
}

/// In the precision that the numbers have. The caller has looked at the places.
fn compute<T: Real>(
    [m, n, k]: [usize; 3],
    output: Output<'_, T>,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    factor: T,
    threads: usize,
) {
    #[cfg(target_arch = "x86_64")]
    if wide(m, k)
        && n > 0
        && avx512::available()
        && let (Some(a), Some(b)) = (a.as_f32(), b.as_f32())
    {
        let mut output = output.into_f32().expect("the type of the others");
        let source =
            |x: &Matrix<'_, f32>| avx512::Source { first: x.numbers.as_ptr(), row: x.row, column: x.column };
        let target = output.target(factor.wide() as f32);
        // SAFETY: the CPU has AVX-512, and the caller keeps to the slices.
        unsafe { avx512::product([m, n, k], target, source(&a), source(&b), threads) };
        return;
    }
    if let Begin::Row(bias) = output.begin {
        output.numbers.chunks_mut(output.row).take(m).for_each(|row| row[..n].copy_from_slice(&bias[..n]));
    }
    let threads = if threads > 1 { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    // SAFETY: the caller keeps all reads and writes inside of the slices, the output's rows do not overlap, and being
    // borrowed mutably it overlaps neither of the others.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            output.numbers.as_mut_ptr(),
            1,
            output.row as isize,
            !matches!(output.begin, Begin::Nothing),
            a.numbers.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.numbers.as_ptr(),
            b.column as isize,
            b.row as isize,
            T::one(),
            factor,
            false,
            false,
            false,
            threads,
        );
    }
}

/// Whether a product is one for our own kernel: with fewer rows than a tile has, copying `b` costs more than it brings.
#[cfg(target_arch = "x86_64")]
fn wide(m: usize, k: usize) -> bool {
    m >= 8 && k > 0
}

#[cfg(test)]
mod tests {
    use ::half::bf16;

    use super::*;
    use crate::random::Philox;

    /// How a product is computed: by the functions that operations call, or by a unit for bf16.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Way {
        Full,
        Mixed(half::Unit),
    }

    #[test]
    fn products_of_all_forms_are_the_plain_sums() {
        check(Way::Full);
    }

    #[test]
    fn products_of_every_unit_for_bf16_are_the_plain_sums_of_rounded_numbers() {
        let units = half::Unit::all();
        println!("units of this CPU: {units:?}");
        units.into_iter().for_each(|unit| check(Way::Mixed(unit)));
    }

    fn check(way: Way) {
        let round = |x: f32| if way == Way::Full { x } else { bf16::from_f32(x).to_f32() };
        let source = Philox::new(1);
        let random = |count: usize, seed: u64| -> Vec<f32> {
            (0..count as u64).map(|i| source.normal(i + seed * 1_000_000) as f32).collect()
        };
        let shapes =
            [[1, 3, 2], [8, 32, 1], [9, 33, 300], [70, 65, 17], [300, 5, 600], [16, 100, 257], [64, 96, 128]];
        for [m, n, k] in shapes {
            let (a, b, c) = (random(m * k, 1), random(k * n, 2), random(m * (n + 3), 3));
            let bias = random(n, 4);
            let turned = |x: &[f32], rows: usize, columns: usize| -> Vec<f32> {
                (0..rows * columns).map(|i| x[i % rows * columns + i / rows]).collect()
            };
            let (a_turned, b_turned) = (turned(&a, m, k), turned(&b, k, n));
            for form in 0..32 {
                let left =
                    if form & 1 == 0 { Matrix::new(&a, k) } else { Matrix::new(&a_turned, m).turned() };
                let right =
                    if form & 2 == 0 { Matrix::new(&b, n) } else { Matrix::new(&b_turned, k).turned() };
                let mut found = c.clone();
                let output = match form & 16 {
                    0 => Output::add(&mut found, n + 3, form & 4 != 0),
                    _ => Output::biased(&mut found, n + 3, (form & 4 != 0).then_some(&bias)),
                };
                let factor = if form & 8 == 0 { 1.0 } else { 0.5 };
                match (way, form & 8) {
                    (Way::Full, 0) => product(Precision::Full, [m, n, k], output, left, right),
                    (Way::Full, _) => product_here(Precision::Full, [m, n, k], output, left, right, factor),
                    (Way::Mixed(unit), 0) => half::product(unit, [m, n, k], output, [left, right], factor, 2),
                    (Way::Mixed(unit), _) => half::product(unit, [m, n, k], output, [left, right], factor, 1),
                }
                for (i, found) in found.iter().enumerate() {
                    let (row, column) = (i / (n + 3), i % (n + 3));
                    let sum: f64 = (0..k)
                        .map(|p| {
                            let (a, b) = (a[row * k + p], b[p * n + column.min(n - 1)]);
                            f64::from(round(a)) * f64::from(round(b))
                        })
                        .sum();
                    let base = match form & (4 | 16) {
                        4 => f64::from(c[i]),
                        20 => f64::from(bias[column.min(n - 1)]),
                        _ => 0.0,
                    };
                    let wanted = match column < n {
                        true => base + sum * f64::from(factor),
                        false => f64::from(c[i]),
                    };
                    let close = (f64::from(*found) - wanted).abs() < 1e-4 * (1.0 + wanted.abs());
                    assert!(
                        close,
                        "{way:?}, {m}×{n}×{k}, form {form}, {row}, {column}: {found}, wanted {wanted}"
                    );
                }
            }
        }
    }
}
