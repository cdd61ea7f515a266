//! The device as ggml sees it: an accelerator that takes attention operations over host memory and nothing else.
//!
//! ggml's scheduler gives an operation to the first backend that supports it where memory is the same for both, and
//! accelerators come before the CPU. llama.cpp makes a backend of every accelerator in the registry for every context,
//! so whether this one takes anything is decided each time it is asked: only during the [`turn`](super::turn) of a
//! context that wants this kernel.

use std::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;

use llama_cpp_sys_2 as sys;

use super::backend::{self, set_abort, set_threads};
use super::interface::{API_VERSION, Device, Registry};
use super::micro::Kernels;
use super::turn;

pub const NAME: &CStr = c"llmasos";
const DESCRIPTION: &CStr = c"attention in blocks";

/// Numbers of a head: whole vectors, and no more than there are zeros to stand in for a key.
const HEAD_WIDTHS: std::ops::RangeInclusive<i64> = 16..=256;
const HEAD_WIDTH_STEP: i64 = 16;

/// A registry entry with its device, for the life of the process.
struct Entry {
    registry: Registry,
    device: Device,
    kernels: &'static Kernels,
}

// SAFETY: nothing in it changes.
unsafe impl Sync for Entry {}
// SAFETY: as above.
unsafe impl Send for Entry {}

static ENTRY: OnceLock<Box<Entry>> = OnceLock::new();

/// Registers the device, once in a process and before any context is made.
pub fn register(kernels: &'static Kernels) {
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

fn entry(kernels: &'static Kernels) -> Entry {
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

/// It has no memory of its own.
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

unsafe extern "C" fn device_buffer_type(_: sys::ggml_backend_dev_t) -> sys::ggml_backend_buffer_type_t {
    // SAFETY: answers a static of ggml.
    unsafe { sys::ggml_backend_cpu_buffer_type() }
}

unsafe extern "C" fn device_supports_buffer(
    _: sys::ggml_backend_dev_t,
    kind: sys::ggml_backend_buffer_type_t,
) -> bool {
    // SAFETY: ggml passes one of its buffer types.
    unsafe { sys::ggml_backend_buft_is_host(kind) }
}

unsafe extern "C" fn device_supports(_: sys::ggml_backend_dev_t, node: *const sys::ggml_tensor) -> bool {
    // SAFETY: ggml passes a tensor of a graph.
    let node = unsafe { &*node };
    if node.op != sys::GGML_OP_FLASH_ATTN_EXT || !turn::is_on() {
        return false;
    }
    // SAFETY: the node is an attention operation.
    let supported = unsafe { supports(node) };
    if !supported {
        turn::refused();
    }
    supported
}

/// Whether the kernel computes this attention operation.
///
/// # Safety
///
/// The node is an attention operation of a graph.
pub unsafe fn supports(node: &sys::ggml_tensor) -> bool {
    let [q, k, v, mask, sinks] = [0, 1, 2, 3, 4].map(|at| node.src[at]);
    if mask.is_null() || !sinks.is_null() || node.type_ != sys::GGML_TYPE_F32 {
        return false;
    }
    // SAFETY: attention has queries, keys and values, and there is a mask.
    let (q, k, v, mask) = unsafe { (&*q, &*k, &*v, &*mask) };
    let half =
        |t: &sys::ggml_tensor| t.type_ == sys::GGML_TYPE_F16 && t.nb[0] == 2 && t.nb[1].is_multiple_of(2);
    let width = |n: i64| HEAD_WIDTHS.contains(&n) && n % HEAD_WIDTH_STEP == 0;
    let [_, softcap, most_cells] = [1, 2, 4].map(|at| node.op_params[at]);
    q.type_ == sys::GGML_TYPE_F32
        && q.nb[0] == 4
        && half(k)
        && half(v)
        && half(mask)
        && softcap == 0
        && most_cells == 0
        && width(k.ne[0])
        && width(v.ne[0])
        && q.ne[0] == k.ne[0]
        && k.ne[2] == v.ne[2]
        && k.ne[1] == v.ne[1]
        && k.ne[2] > 0
        && q.ne[2] % k.ne[2] == 0
        && [q.ne[3], k.ne[3], v.ne[3], mask.ne[3], mask.ne[2]] == [1; 5]
        && mask.ne[0] >= k.ne[1]
        && mask.ne[1] >= q.ne[1]
}

unsafe extern "C" fn device_init(device: sys::ggml_backend_dev_t, _: *const c_char) -> sys::ggml_backend_t {
    ENTRY.get().map_or(std::ptr::null_mut(), |entry| backend::new(device, entry.kernels))
}
