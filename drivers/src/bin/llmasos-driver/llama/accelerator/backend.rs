//! The backend that a context gets from the device: ggml's handle of an [`Instance`].

use std::ffi::{c_char, c_int, c_void};

use llama_cpp_sys_2 as sys;

use super::device::NAME;
use super::instance::{Instance, Outcome};
use super::interface::Backend;
use super::{Kernels, turn};

/// Tells this backend from others, as ggml wants it: bytes that mean nothing.
static GUID: sys::ggml_guid = *b"llmasos-kernels\0";

/// A backend of the device, which ggml frees.
pub fn new(device: sys::ggml_backend_dev_t, kernels: Kernels) -> sys::ggml_backend_t {
    let absent = std::ptr::null();
    let instance = Box::into_raw(Box::new(Instance::new(kernels)));
    let backend = Backend {
        guid: &raw const GUID,
        get_name: backend_name,
        free: backend_free,
        set_tensor_async: absent,
        get_tensor_async: absent,
        set_tensor_2d_async: absent,
        get_tensor_2d_async: absent,
        cpy_tensor_async: absent,
        synchronize: absent,
        graph_plan_create: absent,
        graph_plan_free: absent,
        graph_plan_update: absent,
        graph_plan_compute: absent,
        graph_compute: backend_compute,
        event_record: absent,
        event_wait: absent,
        graph_optimize: backend_optimize,
        device,
        context: instance.cast(),
    };
    Box::into_raw(Box::new(backend)).cast()
}

unsafe extern "C" fn backend_name(_: sys::ggml_backend_t) -> *const c_char {
    NAME.as_ptr()
}

unsafe extern "C" fn backend_free(backend: sys::ggml_backend_t) {
    // SAFETY: both came from boxes in `new`, and ggml frees a backend once.
    unsafe {
        let backend = Box::from_raw(backend.cast::<Backend>());
        drop(Box::from_raw(backend.context.cast::<Instance>()));
    }
}

/// The instance behind a backend.
///
/// # Safety
///
/// The backend is one of this device, and nothing else uses it meanwhile.
unsafe fn instance<'a>(backend: sys::ggml_backend_t) -> &'a mut Instance {
    // SAFETY: the caller's condition.
    unsafe { &mut *(*backend.cast::<Backend>()).context.cast::<Instance>() }
}

pub unsafe extern "C" fn set_threads(backend: sys::ggml_backend_t, threads: c_int) {
    // SAFETY: llama.cpp calls this for a context's own backend, on the thread that computes.
    unsafe { instance(backend) }.begin(threads.max(1) as usize);
}

pub unsafe extern "C" fn set_abort(
    backend: sys::ggml_backend_t,
    ask: Option<unsafe extern "C" fn(*mut c_void) -> bool>,
    data: *mut c_void,
) {
    // SAFETY: as above.
    unsafe { instance(backend) }.set_abort(ask.map(|ask| (ask, data)));
}

/// The operations of a graph that are to be computed.
///
/// # Safety
///
/// The graph lives.
unsafe fn operations(graph: *mut sys::ggml_cgraph) -> impl Iterator<Item = *mut sys::ggml_tensor> {
    // SAFETY: the caller's condition.
    let nodes = unsafe { sys::ggml_graph_n_nodes(graph) };
    // SAFETY: as above; the places are those of its nodes.
    let node_at = move |at| unsafe { sys::ggml_graph_node(graph, at) };
    (0..nodes).map(node_at).filter(|node| {
        // SAFETY: nodes live as long as their graph.
        let node = unsafe { &**node };
        let compute = sys::GGML_TENSOR_FLAG_COMPUTE as i32;
        [sys::GGML_OP_FLASH_ATTN_EXT, sys::GGML_OP_MUL_MAT].contains(&node.op) && node.flags & compute != 0
    })
}

/// Told of every part of a graph that is given to this backend.
unsafe extern "C" fn backend_optimize(_: sys::ggml_backend_t, graph: *mut sys::ggml_cgraph, _: *mut c_void) {
    // SAFETY: ggml passes a graph, whose nodes live as long.
    let attention = unsafe { operations(graph).filter(|node| (**node).op == sys::GGML_OP_FLASH_ATTN_EXT) };
    turn::taken(attention.count());
}

unsafe extern "C" fn backend_compute(
    backend: sys::ggml_backend_t,
    graph: *mut sys::ggml_cgraph,
) -> sys::ggml_status {
    // SAFETY: ggml passes its own backend and a graph of what `supports` let pass; the pool is that of the context
    // whose turn it is.
    unsafe {
        let instance = instance(backend);
        for node in operations(graph) {
            match instance.compute(node, turn::pool()) {
                Outcome::Done => {}
                Outcome::Stopped => return sys::GGML_STATUS_ABORTED,
                Outcome::Failed => return sys::GGML_STATUS_FAILED,
            }
        }
    }
    sys::GGML_STATUS_SUCCESS
}
