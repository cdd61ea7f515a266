//! Copies of matrices whose numbers are rounded to bf16, for CPUs that have no unit for them.

use rayon::prelude::*;

use super::super::Matrix;

/// Numbers that a task rounds, at least: with fewer, handing it to another thread takes longer than doing it.
const TASK: usize = 1 << 14;

/// A copy, in lines that lie one after another in memory: the rows of the matrix, or its columns if they did there.
pub(super) struct Rounded {
    numbers: Vec<f32>,
    line: usize,
    turned: bool,
}

impl Rounded {
    /// Rounds `rows` × `columns` of a matrix, on so many threads.
    pub fn of(x: Matrix<'_, f32>, rows: usize, columns: usize, threads: usize) -> Self {
        let turned = x.row == 1 && x.column != 1;
        let (count, line, far, near) = match turned {
            true => (columns, rows, x.column, x.row),
            false => (rows, columns, x.row, x.column),
        };
        let mut numbers = vec![0.0; count * line];
        let fill = |(i, to): (usize, &mut [f32])| match near {
            1 => to.iter_mut().zip(&x.numbers[i * far..][..line]).for_each(|(to, x)| *to = round(*x)),
            _ => to.iter_mut().enumerate().for_each(|(j, to)| *to = round(x.numbers[i * far + j * near])),
        };
        match (numbers.len(), threads > 1) {
            (0, _) => (),
            (_, true) => {
                let lines = numbers.par_chunks_exact_mut(line).with_min_len(TASK.div_ceil(line));
                lines.enumerate().for_each(fill);
            }
            (_, false) => numbers.chunks_exact_mut(line).enumerate().for_each(fill),
        }
        Rounded { numbers, line, turned }
    }

    /// The copy as the matrix that it is one of.
    pub fn matrix(&self) -> Matrix<'_, f32> {
        let lines = Matrix::new(&self.numbers, self.line);
        if self.turned { lines.turned() } else { lines }
    }
}

/// The nearest number that bf16 has, of two equally near ones the even one. In whole numbers, so that the compiler can
/// do many at a time.
fn round(x: f32) -> f32 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    f32::from_bits(if x.is_nan() { bits } else { nearest })
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::round;
    use crate::random::Philox;

    #[test]
    fn rounding_is_that_of_bf16() {
        let source = Philox::new(1);
        let some = (0..100_000).map(|i| source.normal(i) as f32 * 10f32.powi(i as i32 % 77 - 38));
        let ends = [0x7f7f_ffff, 0x7f80_0000, 0x3f80_8000, 0x3f81_8000, 0x0000_0001, 0x0000_8000];
        for x in some.chain(ends.into_iter().map(f32::from_bits)) {
            for x in [x, -x] {
                assert_eq!(round(x).to_bits(), bf16::from_f32(x).to_f32().to_bits(), "{x:e}");
            }
        }
        assert!(round(f32::NAN).is_nan() && round(f32::from_bits(0xffff_ffff)).is_nan());
    }
}
