//! The memory of packed weights: a type of buffers, as ggml knows them.
//!
//! llama.cpp asks accelerators first where weights are to be. So while a model is loaded whose weights are to be
//! [packed](packing), those that the kernel for products multiplies come here, and all others stay in the file.

use std::alloc::{Layout, alloc, dealloc};
use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::sync::OnceLock;

use llama_cpp_sys_2 as sys;

use super::super::product::{Block, Shape, pack};
use super::interface::{Buffer, BufferFunctions, BufferType, ggml_backend_buffer_init};

/// Where tensors begin, in bytes: a cache line.
const ALIGNMENT: usize = 64;

/// Where buffers begin, in bytes: a huge page. With small ones a third of the time of a single row would go to looking up
/// addresses.
const HUGE_PAGE: usize = 2 << 20;

thread_local! {
    static PACKING: Cell<bool> = const { Cell::new(false) };
}

/// The type, for the life of the process.
static KIND: OnceLock<BufferType> = OnceLock::new();

/// Loads a model whose weights are packed as far as there is a kernel for them.
pub fn packing<R>(load: impl FnOnce() -> R) -> R {
    PACKING.set(true);
    let result = load();
    PACKING.set(false);
    result
}

/// A model is being loaded on this thread whose weights are to be packed.
pub fn is_packing() -> bool {
    PACKING.get()
}

/// The type, which the device is said to have.
pub fn kind(device: sys::ggml_backend_dev_t) -> sys::ggml_backend_buffer_type_t {
    let absent = std::ptr::null();
    let kind = KIND.get_or_init(|| BufferType {
        get_name: name,
        alloc_buffer: allocate,
        alloc_buffer_n: absent,
        get_alignment: alignment,
        get_max_size: absent,
        get_alloc_size: packed_bytes,
        get_alloc_size_n: absent,
        is_host: absent,
        device,
        context: std::ptr::null_mut(),
    });
    (&raw const *kind).cast_mut().cast()
}

/// It is that type.
pub fn is_kind(kind: sys::ggml_backend_buffer_type_t) -> bool {
    KIND.get().is_some_and(|own| std::ptr::eq((&raw const *own).cast(), kind.cast_const()))
}

/// Whether a tensor is in such memory.
pub fn holds(tensor: &sys::ggml_tensor) -> bool {
    // SAFETY: the buffer of a tensor lives as long as that.
    !tensor.buffer.is_null() && is_kind(unsafe { (*tensor.buffer.cast::<Buffer>()).kind })
}

unsafe extern "C" fn name(_: sys::ggml_backend_buffer_type_t) -> *const c_char {
    c"llmasos_packed".as_ptr()
}

unsafe extern "C" fn alignment(_: sys::ggml_backend_buffer_type_t) -> usize {
    ALIGNMENT
}

unsafe extern "C" fn packed_bytes(
    _: sys::ggml_backend_buffer_type_t,
    tensor: *const sys::ggml_tensor,
) -> usize {
    // SAFETY: ggml passes a tensor that is to be in such memory, so a matrix of weights.
    Shape::of(unsafe { &*tensor }).packed_blocks() * size_of::<Block>()
}

fn layout(size: usize) -> Option<Layout> {
    Layout::from_size_align(size.max(1), HUGE_PAGE).ok()
}

unsafe extern "C" fn allocate(
    kind: sys::ggml_backend_buffer_type_t,
    size: usize,
) -> sys::ggml_backend_buffer_t {
    let Some(layout) = layout(size) else { return std::ptr::null_mut() };
    // SAFETY: the size is not zero.
    let base = unsafe { alloc(layout) };
    if base.is_null() {
        return std::ptr::null_mut();
    }
    let absent = std::ptr::null();
    let functions = BufferFunctions {
        free_buffer: free,
        get_base: base_of,
        init_tensor: absent,
        memset_tensor: absent,
        set_tensor: set,
        get_tensor: absent,
        set_tensor_2d: absent,
        get_tensor_2d: absent,
        cpy_tensor: absent,
        clear,
        reset: absent,
    };
    // SAFETY: the memory is this buffer's own; without huge pages it is as good. The functions take buffers of this kind.
    unsafe {
        #[cfg(target_os = "linux")]
        libc::madvise(base.cast(), size, libc::MADV_HUGEPAGE);
        ggml_backend_buffer_init(kind, functions, base.cast(), size)
    }
}

/// A buffer's memory.
///
/// # Safety
///
/// The buffer is one of this kind and lives.
unsafe fn memory(buffer: sys::ggml_backend_buffer_t) -> (*mut u8, usize) {
    // SAFETY: the caller's condition.
    let buffer = unsafe { &*buffer.cast::<Buffer>() };
    (buffer.context.cast(), buffer.size)
}

unsafe extern "C" fn free(buffer: sys::ggml_backend_buffer_t) {
    // SAFETY: ggml frees a buffer once; its memory came from `alloc` with this layout.
    unsafe {
        let (base, size) = memory(buffer);
        if let Some(layout) = layout(size) {
            dealloc(base, layout);
        }
    }
}

unsafe extern "C" fn base_of(buffer: sys::ggml_backend_buffer_t) -> *mut c_void {
    // SAFETY: ggml passes its own buffer.
    unsafe { memory(buffer).0.cast() }
}

unsafe extern "C" fn clear(buffer: sys::ggml_backend_buffer_t, value: u8) {
    // SAFETY: as above.
    unsafe {
        let (base, size) = memory(buffer);
        base.write_bytes(value, size);
    }
}

/// Packs a tensor. llama.cpp writes each one once, and whole.
unsafe extern "C" fn set(
    _: sys::ggml_backend_buffer_t,
    tensor: *mut sys::ggml_tensor,
    data: *const c_void,
    offset: usize,
    size: usize,
) {
    assert_eq!(offset, 0, "weights are written from their beginning");
    // SAFETY: ggml passes a tensor of this buffer, where it has as much room as it was asked for, and its data.
    unsafe {
        let shape = Shape::of(&*tensor);
        let to = std::slice::from_raw_parts_mut((*tensor).data.cast(), shape.packed_blocks());
        pack(shape, std::slice::from_raw_parts(data.cast(), size), to);
    }
}
