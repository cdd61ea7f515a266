//! Compares the kernel with ggml's own fused kernel, on small shapes.
//!
//! A worker's trial does this before the kernel is used: that compilers and CPUs do what they promise is no more
//! certain here than with ggml's kernels.

use half::f16;
use llama_cpp_sys_2 as sys;

use super::super::accelerator::graph::{Graph, filled, numbers};
use super::super::accelerator::{self, Instance};
use super::{Kernels, supports};

/// How far results may be apart. Values are below 1 and results are averages of them. ggml adds them up in half floats
/// and rounds queries to half floats, each good for about 10⁻³; kernels that are wrong differ by more than 10⁻¹.
const APART_MAX: f32 = 1e-2;

/// An attention operation with random numbers.
#[derive(Clone, Debug)]
pub struct Case {
    pub key: usize,
    pub value: usize,
    pub heads: usize,
    pub sharers: usize,
    pub rows: usize,
    pub cells: usize,
    pub max_bias: f32,
    /// For each row and cell what the mask has.
    pub mask: Vec<f32>,
    pub seed: u64,
}

impl Case {
    pub fn scale(&self) -> f32 {
        1.0 / (self.key as f32).sqrt()
    }

    /// Numbers of a result.
    pub fn numbers(&self) -> usize {
        self.rows * self.heads * self.sharers * self.value
    }
}

/// A case as a graph of ggml.
pub struct Tensors {
    graph: Graph,
    /// What the tensors were filled with.
    #[cfg(test)]
    pub q: Vec<f32>,
    #[cfg(test)]
    pub k: Vec<f16>,
    #[cfg(test)]
    pub v: Vec<f16>,
}

impl Tensors {
    /// Fills the tensors of a case.
    pub fn new(case: &Case) -> Tensors {
        let mut next = numbers(case.seed);
        let all = case.heads * case.sharers;
        let q: Vec<f32> = (0..case.rows * all * case.key).map(|_| 3.0 * next()).collect();
        let k: Vec<f16> = (0..case.cells * case.heads * case.key).map(|_| f16::from_f32(next())).collect();
        let v: Vec<f16> = (0..case.cells * case.heads * case.value).map(|_| f16::from_f32(next())).collect();
        let mask: Vec<f16> = case.mask.iter().map(|m| f16::from_f32(*m)).collect();
        let bytes = 4 * (q.len() + case.numbers()) + 2 * (k.len() + v.len() + mask.len());
        // SAFETY: the shapes fit together as ggml asks; each tensor is filled with as many numbers as it has.
        let build = |context| unsafe {
            let tensor = |kind, [a, b, c]: [usize; 3]| {
                sys::ggml_new_tensor_3d(context, kind, a as i64, b as i64, c as i64)
            };
            let by_head = |tensor| sys::ggml_permute(context, tensor, 0, 2, 1, 3);
            let (f32s, f16s) = (sys::GGML_TYPE_F32, sys::GGML_TYPE_F16);
            let q_in = filled(tensor(f32s, [case.key, all, case.rows]), &q);
            let k_in = filled(tensor(f16s, [case.key, case.heads, case.cells]), &k);
            let v_in = filled(tensor(f16s, [case.value, case.heads, case.cells]), &v);
            let mask = filled(tensor(f16s, [case.cells, case.rows, 1]), &mask);
            sys::ggml_set_input(mask);
            let [q_by, k_by, v_by] = [q_in, k_in, v_in].map(by_head);
            sys::ggml_flash_attn_ext(context, q_by, k_by, v_by, mask, case.scale(), case.max_bias, 0.0)
        };
        // SAFETY: these are the tensors of so many bytes.
        let graph = unsafe { Graph::new("attention", bytes, build) };
        Tensors {
            graph,
            #[cfg(test)]
            q,
            #[cfg(test)]
            k,
            #[cfg(test)]
            v,
        }
    }

    /// Writes another mask of the same shape, as llama.cpp does before a pass.
    #[cfg(test)]
    pub fn write_mask(&self, mask: &[f32]) {
        let mask: Vec<f16> = mask.iter().map(|m| f16::from_f32(*m)).collect();
        // SAFETY: the mask's tensor has as many numbers.
        unsafe { self.graph.write_source(3, &mask) };
    }

    /// What ggml computes.
    pub fn by_ggml(&self) -> Result<Vec<f32>, String> {
        self.graph.by_ggml()
    }

    /// What the kernel computes, with the threads of a pool or on this thread.
    pub fn by(&self, instance: &mut Instance, pool: sys::ggml_threadpool_t) -> Result<Vec<f32>, String> {
        self.graph.by(supports, instance, pool)
    }
}

/// A prompt behind a prefix, rows that share the prefix, and rows that see every third cell.
fn cases() -> Vec<Case> {
    let case = |(key, heads, sharers), (rows, cells), sees: fn(usize, usize) -> bool| {
        let entry = |at: usize| if sees(at / cells, at % cells) { 0.0 } else { f32::NEG_INFINITY };
        let mask = (0..rows * cells).map(entry).collect();
        Case { key, value: key, heads, sharers, rows, cells, max_bias: 0.0, mask, seed: cells as u64 }
    };
    vec![
        case((64, 2, 7), (70, 256), |row, cell| cell <= 128 + row),
        case((128, 2, 1), (8, 512), |row, cell| cell < 300 || cell % 8 == row),
        case((32, 1, 3), (3, 256), |row, cell| cell % 3 == row),
        case((80, 3, 2), (1, 768), |_, cell| cell < 700),
    ]
}

/// A backend with these kernels alone.
pub fn instance(kernels: &'static Kernels) -> Instance {
    Instance::new(accelerator::Kernels { attention: Some(kernels), products: None })
}

/// The kernel that would be used gives what ggml's gives.
///
/// # Errors
///
/// How they differ, or that there is no kernel for this CPU.
pub fn agrees() -> Result<(), String> {
    let kernels = super::kernels().ok_or("this CPU has none of its instruction sets")?;
    cases().iter().try_for_each(|case| compare(case, kernels))
}

fn compare(case: &Case, kernels: &'static Kernels) -> Result<(), String> {
    let tensors = Tensors::new(case);
    let expected = tensors.by_ggml()?;
    let found = tensors.by(&mut instance(kernels), std::ptr::null_mut())?;
    let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    // A result that is no number is further apart than any.
    match apart.clone().all(|apart| apart <= APART_MAX) {
        true => Ok(()),
        false => Err(format!(
            "attention in blocks with {} differs from ggml's by {} of {APART_MAX} ({} heads of {})",
            kernels.name,
            apart.fold(0.0, f32::max),
            case.heads * case.sharers,
            case.key
        )),
    }
}
