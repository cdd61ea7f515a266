//! ggml's interface for backends, which its public headers leave out: the tables of functions of a registry entry, a
//! device, a backend, a type of buffers and a buffer, as in `ggml-backend-impl.h`.
//!
//! The layouts are those of one version of ggml. The crate that brings ggml is pinned to it, and [`fits`] compares
//! what ggml itself says at run time. Functions that are never given have the type of a bare pointer.

use std::ffi::{CStr, c_char, c_int, c_void};

use llama_cpp_sys_2 as sys;

/// `GGML_BACKEND_API_VERSION` of these layouts.
pub const API_VERSION: c_int = 3;

/// A function of the table that this program leaves out.
pub type Absent = *const c_void;

/// `struct ggml_backend_reg`.
#[repr(C)]
pub struct Registry {
    pub api_version: c_int,
    pub get_name: unsafe extern "C" fn(sys::ggml_backend_reg_t) -> *const c_char,
    pub get_device_count: unsafe extern "C" fn(sys::ggml_backend_reg_t) -> usize,
    pub get_device: unsafe extern "C" fn(sys::ggml_backend_reg_t, usize) -> sys::ggml_backend_dev_t,
    pub get_proc_address: unsafe extern "C" fn(sys::ggml_backend_reg_t, *const c_char) -> *mut c_void,
    pub context: *mut c_void,
}

/// `struct ggml_backend_device`.
#[repr(C)]
pub struct Device {
    pub get_name: unsafe extern "C" fn(sys::ggml_backend_dev_t) -> *const c_char,
    pub get_description: unsafe extern "C" fn(sys::ggml_backend_dev_t) -> *const c_char,
    pub get_memory: unsafe extern "C" fn(sys::ggml_backend_dev_t, *mut usize, *mut usize),
    pub get_type: unsafe extern "C" fn(sys::ggml_backend_dev_t) -> sys::ggml_backend_dev_type,
    pub get_props: unsafe extern "C" fn(sys::ggml_backend_dev_t, *mut sys::ggml_backend_dev_props),
    pub init_backend: unsafe extern "C" fn(sys::ggml_backend_dev_t, *const c_char) -> sys::ggml_backend_t,
    pub get_buffer_type: unsafe extern "C" fn(sys::ggml_backend_dev_t) -> sys::ggml_backend_buffer_type_t,
    pub get_host_buffer_type: Absent,
    pub buffer_from_host_ptr: Absent,
    pub supports_op: unsafe extern "C" fn(sys::ggml_backend_dev_t, *const sys::ggml_tensor) -> bool,
    pub supports_buft: unsafe extern "C" fn(sys::ggml_backend_dev_t, sys::ggml_backend_buffer_type_t) -> bool,
    pub offload_op: Absent,
    pub event_new: Absent,
    pub event_free: Absent,
    pub event_synchronize: Absent,
    pub reg: sys::ggml_backend_reg_t,
    pub context: *mut c_void,
}

/// `struct ggml_backend`.
#[repr(C)]
pub struct Backend {
    pub guid: *const sys::ggml_guid,
    pub get_name: unsafe extern "C" fn(sys::ggml_backend_t) -> *const c_char,
    pub free: unsafe extern "C" fn(sys::ggml_backend_t),
    pub set_tensor_async: Absent,
    pub get_tensor_async: Absent,
    pub set_tensor_2d_async: Absent,
    pub get_tensor_2d_async: Absent,
    pub cpy_tensor_async: Absent,
    pub synchronize: Absent,
    pub graph_plan_create: Absent,
    pub graph_plan_free: Absent,
    pub graph_plan_update: Absent,
    pub graph_plan_compute: Absent,
    pub graph_compute: unsafe extern "C" fn(sys::ggml_backend_t, *mut sys::ggml_cgraph) -> sys::ggml_status,
    pub event_record: Absent,
    pub event_wait: Absent,
    pub graph_optimize: unsafe extern "C" fn(sys::ggml_backend_t, *mut sys::ggml_cgraph, *mut c_void),
    pub device: sys::ggml_backend_dev_t,
    pub context: *mut c_void,
}

/// `struct ggml_backend_buffer_type`.
#[repr(C)]
pub struct BufferType {
    pub get_name: unsafe extern "C" fn(sys::ggml_backend_buffer_type_t) -> *const c_char,
    pub alloc_buffer:
        unsafe extern "C" fn(sys::ggml_backend_buffer_type_t, usize) -> sys::ggml_backend_buffer_t,
    pub alloc_buffer_n: Absent,
    pub get_alignment: unsafe extern "C" fn(sys::ggml_backend_buffer_type_t) -> usize,
    pub get_max_size: Absent,
    pub get_alloc_size:
        unsafe extern "C" fn(sys::ggml_backend_buffer_type_t, *const sys::ggml_tensor) -> usize,
    pub get_alloc_size_n: Absent,
    pub is_host: Absent,
    pub device: sys::ggml_backend_dev_t,
    pub context: *mut c_void,
}

// SAFETY: nothing in it changes once it is made.
unsafe impl Sync for BufferType {}
// SAFETY: as above.
unsafe impl Send for BufferType {}

/// `struct ggml_backend_buffer_i`.
#[repr(C)]
pub struct BufferFunctions {
    pub free_buffer: unsafe extern "C" fn(sys::ggml_backend_buffer_t),
    pub get_base: unsafe extern "C" fn(sys::ggml_backend_buffer_t) -> *mut c_void,
    pub init_tensor: Absent,
    pub memset_tensor: Absent,
    pub set_tensor:
        unsafe extern "C" fn(sys::ggml_backend_buffer_t, *mut sys::ggml_tensor, *const c_void, usize, usize),
    pub get_tensor: Absent,
    pub set_tensor_2d: Absent,
    pub get_tensor_2d: Absent,
    pub cpy_tensor: Absent,
    pub clear: unsafe extern "C" fn(sys::ggml_backend_buffer_t, u8),
    pub reset: Absent,
}

/// The beginning of `struct ggml_backend_buffer`.
#[repr(C)]
pub struct Buffer {
    pub functions: BufferFunctions,
    pub kind: sys::ggml_backend_buffer_type_t,
    pub context: *mut c_void,
    pub size: usize,
}

unsafe extern "C" {
    /// Makes a buffer, which ggml frees.
    pub fn ggml_backend_buffer_init(
        kind: sys::ggml_backend_buffer_type_t,
        functions: BufferFunctions,
        context: *mut c_void,
        size: usize,
    ) -> sys::ggml_backend_buffer_t;
}

/// The ggml that is linked or loaded has these layouts, by its CPU backend's own word, and that backend is there.
pub fn fits() -> bool {
    // SAFETY: looks into ggml's registry, which answers null for what it does not have. Every registry entry begins
    // with the version, whatever follows it.
    unsafe {
        let cpu = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
        if cpu.is_null() {
            return false;
        }
        let registry = sys::ggml_backend_dev_backend_reg(cpu);
        !registry.is_null() && *registry.cast::<c_int>() == API_VERSION
    }
}

/// A function of the CPU backend that is looked up by name, because that backend may be chosen at run time and is
/// then not linked.
pub fn cpu_function(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: as in `fits`; the name ends with a zero.
    unsafe {
        let cpu = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
        if cpu.is_null() {
            return None;
        }
        let registry = sys::ggml_backend_dev_backend_reg(cpu);
        let found = sys::ggml_backend_reg_get_proc_address(registry, name.as_ptr());
        (!found.is_null()).then_some(found)
    }
}
