//! Kernels of this program in llama.cpp's graphs: an accelerator over main memory, as ggml knows them.
//!
//! ggml's scheduler gives an operation to the first backend that supports it where memory is the same for both, so
//! llama.cpp's graphs find the kernels by themselves ([`interface`], [`device`]), and ggml's own threads do the work
//! ([`crew`]). There are two: attention in [blocks](super::blocked), which contexts ask for, and
//! [products](super::product) with quantised weights, for models that are loaded with them [packed](memory). What they do
//! not support is left to ggml's.
//!
//! Each is compared with ggml's kernel in a trial before it is used.

mod backend;
mod crew;
mod device;
pub mod graph;
mod instance;
mod interface;
mod memory;
mod turn;

use std::sync::atomic::{AtomicBool, Ordering};

use llama_cpp_sys_2 as sys;

#[cfg(test)]
pub use instance::Abort;
pub use instance::{Instance, Outcome, Team};
pub use memory::packing;

use super::{blocked, product};

/// A kernel that this program brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kernel {
    /// Attention in blocks.
    Attention,
    /// Products with quantised weights.
    Products,
}

impl Kernel {
    pub fn name(self) -> &'static str {
        match self {
            Kernel::Attention => "attention",
            Kernel::Products => "products",
        }
    }

    /// Whether it has been written for a CPU such as this.
    pub fn is_known(self) -> bool {
        match self {
            Kernel::Attention => blocked::kernels().is_some(),
            Kernel::Products => product::kernel().is_some(),
        }
    }
}

/// The kernels of this CPU: none where it lacks their instruction sets.
#[derive(Clone, Copy, Default)]
pub struct Kernels {
    pub attention: Option<&'static blocked::Kernels>,
    pub products: Option<product::Kernel>,
}

/// Kernels that have failed their comparison with ggml's, and are not used.
static DISTRUSTED: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];

/// Makes the kernels known to ggml, where this CPU and this ggml are such that they can run. Once in a process, after
/// the CPU backend is there and before any context is.
pub fn register() {
    let kernels = Kernels { attention: blocked::kernels(), products: product::kernel() };
    if (kernels.attention.is_some() || kernels.products.is_some()) && interface::fits() {
        let attention = kernels.attention.map_or("none", |kernels| kernels.name);
        tracing::debug!("attention in blocks: {attention}; products: {}", kernels.products.is_some());
        device::register(kernels);
    }
}

/// Leaves a kernel out from now on.
pub fn distrust(kernel: Kernel) {
    DISTRUSTED[kernel as usize].store(true, Ordering::Relaxed);
}

/// Whether contexts may use a kernel here.
pub fn usable(kernel: Kernel) -> bool {
    device::registered() && kernel.is_known() && !DISTRUSTED[kernel as usize].load(Ordering::Relaxed)
}

/// Whether the kernel of this CPU gives what ggml's gives.
///
/// # Errors
///
/// How they differ, or that there is none for this CPU.
pub fn agrees(kernel: Kernel) -> Result<(), String> {
    match kernel {
        Kernel::Attention => blocked::agrees(),
        Kernel::Products => product::agrees(),
    }
}

/// Makes a call of llama.cpp that may build or compute graphs, for a context that wants attention in blocks or does not, with
/// the pool that its threads are of, if any. Beside the result comes whether that kernel computed all the attention
/// that there was.
pub fn during<R>(attention: bool, pool: sys::ggml_threadpool_t, call: impl FnOnce() -> R) -> (R, bool) {
    let (result, account) = turn::during(attention, pool, call);
    (result, account.all_taken())
}
