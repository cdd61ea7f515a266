//! Products of matrices, by the `gemm` crate.

use super::real::Real;

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

    fn reaches(&self, rows: usize, columns: usize) -> bool {
        rows == 0 || columns == 0 || (rows - 1) * self.row + (columns - 1) * self.column < self.numbers.len()
    }
}

/// Where a product goes: rows that begin `row` numbers apart.
#[derive(Debug)]
pub struct Output<'m, T> {
    numbers: &'m mut [T],
    row: usize,
    add: bool,
}

impl<'m, T: Real> Output<'m, T> {
    /// The product takes the place of what is there.
    pub fn set(numbers: &'m mut [T], row: usize) -> Self {
        Output { numbers, row, add: false }
    }

    /// The product is added to what is there, if `add` says so.
    pub fn add(numbers: &'m mut [T], row: usize, add: bool) -> Self {
        Output { numbers, row, add }
    }
}

/// `output = factor · a · b` with `a` of `m` × `k` and `b` of `k` × `n`, on all threads.
pub fn product<T: Real>(sizes: [usize; 3], output: Output<'_, T>, a: Matrix<'_, T>, b: Matrix<'_, T>) {
    // Below some 100,000 multiplications a second thread costs more than it brings.
    let large = sizes.iter().product::<usize>() > 1 << 17 && rayon::current_num_threads() > 1;
    let threads = if large { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    compute(sizes, output, a, b, T::one(), threads);
}

/// The same on the calling thread, times a factor, for work that is already spread over threads.
pub fn product_here<T: Real>(
    sizes: [usize; 3],
    output: Output<'_, T>,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    factor: T,
) {
    compute(sizes, output, a, b, factor, gemm::Parallelism::None);
}

fn compute<T: Real>(
    [m, n, k]: [usize; 3],
    output: Output<'_, T>,
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    factor: T,
    threads: gemm::Parallelism,
) {
    assert!(a.reaches(m, k) && b.reaches(k, n), "a product of {m}×{k} and {k}×{n} reads past its matrices");
    let last = m.saturating_sub(1) * output.row + n.saturating_sub(1);
    assert!(m == 0 || n == 0 || last < output.numbers.len(), "a product of {m}×{n} writes past its output");
    assert!(m <= 1 || output.row >= n, "rows of {n} overlap: they begin {} apart", output.row);
    // SAFETY: the assertions above keep all reads and writes inside of the slices, the output's rows do not overlap,
    // and being borrowed mutably it overlaps neither of the others.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            output.numbers.as_mut_ptr(),
            1,
            output.row as isize,
            output.add,
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
