//! Compares the kernel with ggml's own products, on small shapes.

use llama_cpp_sys_2 as sys;

use super::super::accelerator::graph::{Graph, filled, numbers};
use super::super::accelerator::{Instance, Kernels};
use super::{BLOCK, BLOCK_BYTES, Block, Kernel, Shape, kernel, pack, supports};

/// How far results may be apart, of the sum of the magnitudes that are added. Both quantise alike and add floats in
/// orders of their own; kernels that are wrong differ by more than a hundredth.
const APART_MAX: f32 = 1e-4;

/// A product with random numbers: `outputs` rows of weights, `columns` rows of a pass, each of so many blocks.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub blocks: usize,
    pub outputs: usize,
    pub columns: usize,
    pub seed: u64,
}

/// A case as a graph of ggml.
pub struct Tensors {
    graph: Graph,
    /// The weights as the kernel wants them.
    packed: Vec<Block>,
    /// What the tensors were filled with.
    #[cfg(test)]
    pub weights: Vec<u8>,
    #[cfg(test)]
    pub rows: Vec<f32>,
}

impl Tensors {
    /// Fills the tensors of a case.
    pub fn new(case: Case) -> Tensors {
        let mut next = numbers(case.seed);
        let width = case.blocks * BLOCK;
        let mut weights = vec![0; case.outputs * case.blocks * BLOCK_BYTES];
        for block in weights.chunks_exact_mut(BLOCK_BYTES) {
            let (scale, numbers) = block.split_at_mut(2);
            scale.copy_from_slice(&half::f16::from_f32(next() / 64.0).to_le_bytes());
            numbers.fill_with(|| (next() * 127.9) as i8 as u8);
        }
        let rows: Vec<f32> = (0..case.columns * width).map(|_| 3.0 * next()).collect();
        let bytes = weights.len() + 4 * (rows.len() + case.outputs * case.columns);
        // SAFETY: the shapes fit together as ggml asks; each tensor is filled with as many bytes as it has.
        let build = |context| unsafe {
            let tensor =
                |kind, count: usize| sys::ggml_new_tensor_2d(context, kind, width as i64, count as i64);
            let left = filled(tensor(sys::GGML_TYPE_Q8_0, case.outputs), &weights);
            let right = filled(tensor(sys::GGML_TYPE_F32, case.columns), &rows);
            sys::ggml_mul_mat(context, left, right)
        };
        // SAFETY: these are the tensors of so many bytes.
        let graph = unsafe { Graph::new("product", bytes, build) };
        let shape = Shape { blocks: case.blocks, rows: case.outputs };
        let mut packed = Vec::new();
        packed.resize_with(shape.packed_blocks(), Block::empty);
        pack(shape, &weights, &mut packed);
        Tensors {
            graph,
            packed,
            #[cfg(test)]
            weights,
            #[cfg(test)]
            rows,
        }
    }

    /// Writes other numbers into the first row of the pass.
    #[cfg(test)]
    pub fn put_row(&mut self, row: &[f32]) {
        self.rows[..row.len()].copy_from_slice(row);
        // SAFETY: the second factor has these rows.
        unsafe { self.graph.write_source(1, row) };
    }

    /// What ggml computes.
    pub fn by_ggml(&self) -> Result<Vec<f32>, String> {
        self.graph.by_ggml()
    }

    /// What the kernel computes, with the threads of a pool or on this thread.
    pub fn by(&self, instance: &mut Instance, pool: sys::ggml_threadpool_t) -> Result<Vec<f32>, String> {
        // SAFETY: the first source is a matrix of this shape, and only the kernel sees what is in its place.
        unsafe { self.graph.with_source(0, self.packed.as_ptr(), || self.graph.by(supports, instance, pool)) }
    }
}

/// A backend with this kernel alone.
pub fn instance(kernel: Kernel) -> Instance {
    Instance::new(Kernels { attention: None, products: Some(kernel) })
}

/// The kernel gives what ggml's gives.
///
/// # Errors
///
/// How they differ, or that there is no kernel for this CPU.
pub fn agrees() -> Result<(), String> {
    let kernel = kernel().ok_or("this CPU has not its instruction sets")?;
    let shapes = [(1, 1, 1), (4, 64, 2), (17, 33, 5), (28, 96, 7), (40, 50, 12), (33, 40, 31)];
    shapes.into_iter().try_for_each(|(blocks, outputs, columns)| {
        compare(Case { blocks, outputs, columns, seed: blocks as u64 }, kernel)
    })
}

fn compare(case: Case, kernel: Kernel) -> Result<(), String> {
    let tensors = Tensors::new(case);
    let expected = tensors.by_ggml()?;
    let found = tensors.by(&mut instance(kernel), std::ptr::null_mut())?;
    // Numbers of a pass are below 3, weights below 2.
    let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs() / (case.blocks * BLOCK) as f32);
    // A result that is no number is further apart than any.
    match apart.clone().all(|apart| apart <= APART_MAX) {
        true => Ok(()),
        false => Err(format!(
            "products with byte sums differ from ggml's by {} of {APART_MAX} ({case:?})",
            apart.fold(0.0, f32::max),
        )),
    }
}
