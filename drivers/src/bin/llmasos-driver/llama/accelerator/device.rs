//! The device as ggml sees it: an accelerator that takes attention over host memory, products with weights in
//! [memory of its own](memory), and nothing else.
//!
//! ggml's scheduler gives an operation to the first backend that supports it where memory is the same for both, and
//! accelerators come before the CPU. llama.cpp makes a backend of every accelerator in the registry for every context,
//! so whether this one takes attention is decided each time it is asked: only during the [`turn`](super::turn) of a
//! context that wants that kernel.

use std::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;

use llama_cpp_sys_2 as sys;

use super::super::{blocked, product};
use super::backend::{self, set_abort, set_threads};
use super::interface::{API_VERSION, Device, Registry};
use super::{Kernels, memory, turn};

pub const NAME: &CStr = c"llmasos";
const DESCRIPTION: &CStr = c"attention in blocks, products with quantised weights";

/// A registry entry with its device, for the life of the process.
struct Entry {
    registry: Registry,
    device: Device,
    kernels: Kernels,
}

// SAFETY: nothing in it changes.
unsafe impl Sync for Entry {}
// SAFETY: as above.
unsafe impl Send for Entry {}

static ENTRY: OnceLock<Box<Entry>> = OnceLock::new();

/// Registers the device, once in a process and before any context is made.
pub fn register(kernels: Kernels) {
    let mut new = false;
    let entry = ENTRY.get_or_init(|| {
        new = true;
        let mut entry = Box::new(entry(kernels));
        // llama.cpp finds the functions of a backend through the device, and passes it by in silence without.
        entry.device.reg = (&raw const entry.registry).cast_mut().cast();
        entry
    });
    if new {
        // SAFETY: the entry stays where it is for the life of the process, with the layout that ggml expects.
        unsafe { sys::ggml_backend_register((&raw const entry.registry).cast_mut().cast()) }
    }
}

/// The device has been registered.
pub fn registered() -> bool {
    ENTRY.get().is_some()
}

fn entry(kernels: Kernels) -> Entry {
    let registry = Registry {
        api_version: API_VERSION,
        get_name: registry_name,
        get_device_count: registry_count,
        get_device: registry_device,
        get_proc_address: registry_function,
        context: std::ptr::null_mut(),
    };
    let absent = std::ptr::null();
    let device = Device {
        get_name: device_name,
        get_description: device_description,
        get_memory: device_memory,
        get_type: device_type,
        get_props: device_props,
        init_backend: device_init,
        get_buffer_type: device_buffer_type,
        get_host_buffer_type: absent,
        buffer_from_host_ptr: absent,
        supports_op: device_supports,
        supports_buft: device_supports_buffer,
        offload_op: absent,
        event_new: absent,
        event_free: absent,
        event_synchronize: absent,
        reg: std::ptr::null_mut(),
        context: std::ptr::null_mut(),
    };
    Entry { registry, device, kernels }
}

unsafe extern "C" fn registry_name(_: sys::ggml_backend_reg_t) -> *const c_char {
    NAME.as_ptr()
}

unsafe extern "C" fn registry_count(_: sys::ggml_backend_reg_t) -> usize {
    1
}

unsafe extern "C" fn registry_device(_: sys::ggml_backend_reg_t, _: usize) -> sys::ggml_backend_dev_t {
    ENTRY.get().map_or(std::ptr::null_mut(), |entry| (&raw const entry.device).cast_mut().cast())
}

/// The functions that llama.cpp asks all backends for, by name.
unsafe extern "C" fn registry_function(_: sys::ggml_backend_reg_t, name: *const c_char) -> *mut c_void {
    // SAFETY: ggml passes a string.
    match unsafe { CStr::from_ptr(name) }.to_bytes() {
        b"ggml_backend_set_n_threads" => set_threads as *mut c_void,
        b"ggml_backend_set_abort_callback" => set_abort as *mut c_void,
        _ => std::ptr::null_mut(),
    }
}

unsafe extern "C" fn device_name(_: sys::ggml_backend_dev_t) -> *const c_char {
    NAME.as_ptr()
}

unsafe extern "C" fn device_description(_: sys::ggml_backend_dev_t) -> *const c_char {
    DESCRIPTION.as_ptr()
}

/// What it has of main memory is told of the CPU.
unsafe extern "C" fn device_memory(_: sys::ggml_backend_dev_t, free: *mut usize, total: *mut usize) {
    // SAFETY: ggml passes places to write to.
    unsafe {
        free.write(0);
        total.write(0);
    }
}

unsafe extern "C" fn device_type(_: sys::ggml_backend_dev_t) -> sys::ggml_backend_dev_type {
    sys::GGML_BACKEND_DEVICE_TYPE_ACCEL
}

unsafe extern "C" fn device_props(_: sys::ggml_backend_dev_t, props: *mut sys::ggml_backend_dev_props) {
    // SAFETY: ggml passes a structure to fill, for all fields of which zeros are good values.
    unsafe {
        props.write_bytes(0, 1);
        (*props).name = NAME.as_ptr();
        (*props).description = DESCRIPTION.as_ptr();
        (*props).type_ = sys::GGML_BACKEND_DEVICE_TYPE_ACCEL;
    }
}

/// Where its tensors are: what passes compute with everybody else's, and what is loaded where it is to be packed.
unsafe extern "C" fn device_buffer_type(device: sys::ggml_backend_dev_t) -> sys::ggml_backend_buffer_type_t {
    if memory::is_packing() {
        return memory::kind(device);
    }
    // SAFETY: answers a static of ggml.
    unsafe { sys::ggml_backend_cpu_buffer_type() }
}

unsafe extern "C" fn device_supports_buffer(
    _: sys::ggml_backend_dev_t,
    kind: sys::ggml_backend_buffer_type_t,
) -> bool {
    // SAFETY: ggml passes a type of buffers.
    memory::is_kind(kind) || unsafe { sys::ggml_backend_buft_is_host(kind) }
}

unsafe extern "C" fn device_supports(_: sys::ggml_backend_dev_t, node: *const sys::ggml_tensor) -> bool {
    // SAFETY: ggml passes a tensor of a graph.
    let node = unsafe { &*node };
    match node.op {
        sys::GGML_OP_FLASH_ATTN_EXT if turn::wants_attention() => {
            // SAFETY: the node is an attention operation.
            let supported = unsafe { blocked::supports(node) };
            if !supported {
                turn::refused();
            }
            supported
        }
        // The weights themselves.
        sys::GGML_OP_NONE => memory::holds(node),
        // SAFETY: the node is a product, whose factors live.
        sys::GGML_OP_MUL_MAT => unsafe { memory::holds(&*node.src[0]) && product::supports(node) },
        _ => false,
    }
}

unsafe extern "C" fn device_init(device: sys::ggml_backend_dev_t, _: *const c_char) -> sys::ggml_backend_t {
    ENTRY.get().map_or(std::ptr::null_mut(), |entry| backend::new(device, entry.kernels))
}
