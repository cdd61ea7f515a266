//! One operation in a graph of its own, computed by ggml and by a kernel of this program: to compare them.

use std::ffi::c_void;

use llama_cpp_sys_2 as sys;

use super::{Instance, Outcome};

/// A graph of ggml with its memory, and the operation that it is for, whose result is floats.
pub struct Graph {
    context: *mut sys::ggml_context,
    graph: *mut sys::ggml_cgraph,
    node: *mut sys::ggml_tensor,
    /// What the operation is called.
    what: &'static str,
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: it came from ggml and is freed once.
        unsafe { sys::ggml_free(self.context) }
    }
}

impl Graph {
    /// A graph with room for so many bytes of tensors.
    ///
    /// # Safety
    ///
    /// `build` makes the operation in the context that it is given, and nothing else there but its sources, fewer than
    /// thirty-two tensors of so many bytes in all.
    pub unsafe fn new(
        what: &'static str,
        bytes: usize,
        build: impl FnOnce(*mut sys::ggml_context) -> *mut sys::ggml_tensor,
    ) -> Graph {
        // SAFETY: the context has room for the tensors and the graph, by the caller's condition.
        unsafe {
            let context = sys::ggml_init(sys::ggml_init_params {
                mem_size: bytes + 32 * sys::ggml_tensor_overhead() + sys::ggml_graph_overhead(),
                mem_buffer: std::ptr::null_mut(),
                no_alloc: false,
            });
            assert!(!context.is_null(), "ggml has memory for a small context");
            let node = build(context);
            let graph = sys::ggml_new_graph(context);
            sys::ggml_build_forward_expand(graph, node);
            Graph { context, graph, node, what }
        }
    }

    /// Writes the first numbers of one of the operation's sources, as llama.cpp does before a pass.
    ///
    /// # Safety
    ///
    /// There is this source, and it has so many numbers of this type.
    #[cfg(test)]
    pub unsafe fn write_source<T>(&self, source: usize, numbers: &[T]) {
        // SAFETY: the caller's condition.
        unsafe { filled((*self.node).src[source], numbers) };
    }

    /// Does something while one of the operation's sources has its numbers elsewhere.
    ///
    /// # Safety
    ///
    /// There is this source, and whatever reads it meanwhile finds there what it expects.
    pub unsafe fn with_source<T, R>(&self, source: usize, data: *const T, work: impl FnOnce() -> R) -> R {
        // SAFETY: the node's sources live as long as the graph.
        let tensor = unsafe { (*self.node).src[source] };
        // SAFETY: as above; nothing else refers to the tensor.
        let before = unsafe { std::mem::replace(&mut (*tensor).data, data.cast_mut().cast()) };
        let result = work();
        // SAFETY: as above.
        unsafe { (*tensor).data = before };
        result
    }

    /// What ggml computes.
    pub fn by_ggml(&self) -> Result<Vec<f32>, String> {
        // SAFETY: the graph and its memory live; the backend is freed again.
        unsafe {
            let device = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
            let backend = sys::ggml_backend_dev_init(device, std::ptr::null());
            let status = sys::ggml_backend_graph_compute(backend, self.graph);
            sys::ggml_backend_free(backend);
            if status != sys::GGML_STATUS_SUCCESS {
                return Err(format!("ggml's {} fails", self.what));
            }
        }
        Ok(self.result().to_vec())
    }

    /// What an instance computes, with the threads of a pool or on this thread.
    pub fn by(
        &self,
        supports: unsafe fn(&sys::ggml_tensor) -> bool,
        instance: &mut Instance,
        pool: sys::ggml_threadpool_t,
    ) -> Result<Vec<f32>, String> {
        self.result().fill(f32::NAN);
        // SAFETY: the node and its memory live, and it is the operation that was built; it is checked that the kernel
        // supports it.
        unsafe {
            if !supports(&*self.node) {
                return Err(format!("the {} is not supported", self.what));
            }
            match instance.compute(self.node, pool) {
                Outcome::Done => Ok(self.result().to_vec()),
                other => Err(format!("the {} was not done: {other:?}", self.what)),
            }
        }
    }

    #[expect(clippy::mut_from_ref, reason = "ggml owns the memory, and nothing else refers to it")]
    fn result(&self) -> &mut [f32] {
        // SAFETY: the node is a tensor of this context with so many floats.
        unsafe {
            let node = &*self.node;
            std::slice::from_raw_parts_mut(node.data.cast(), node.ne.iter().product::<i64>() as usize)
        }
    }
}

/// Copies numbers to a new tensor.
///
/// # Safety
///
/// The tensor has memory for them.
pub unsafe fn filled<T>(tensor: *mut sys::ggml_tensor, numbers: &[T]) -> *mut sys::ggml_tensor {
    // SAFETY: the caller's condition.
    unsafe {
        let to: *mut c_void = (*tensor).data;
        to.cast::<T>().copy_from_nonoverlapping(numbers.as_ptr(), numbers.len());
    }
    tensor
}

/// Numbers between −1 and 1, by a linear congruential generator.
pub fn numbers(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}
