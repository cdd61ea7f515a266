//! ggml's threads, which compute one pass after another.

use llama_cpp_sys_2 as sys;

/// How long idle threads look for the next pass before they sleep, in ggml's units: llama.cpp's own default.
const POLL: u32 = 50;

/// ggml's threads, kept between passes: without them ggml would start new ones for every graph.
pub struct Threadpool {
    raw: sys::ggml_threadpool_t,
    free: unsafe extern "C" fn(sys::ggml_threadpool_t),
}

type NewThreadpool = unsafe extern "C" fn(*mut sys::ggml_threadpool_params) -> sys::ggml_threadpool_t;
type FreeThreadpool = unsafe extern "C" fn(sys::ggml_threadpool_t);

impl Threadpool {
    /// None where one thread does the work, or where the CPU backend keeps no threads.
    pub fn new(threads: u32) -> Option<Threadpool> {
        if threads < 2 {
            return None;
        }
        // SAFETY: ggml's registry answers null for what it does not have; the names and types are its own. The
        // functions are looked up by name because a CPU backend that is chosen at run time is not linked.
        unsafe {
            let device = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
            if device.is_null() {
                return None;
            }
            let registry = sys::ggml_backend_dev_backend_reg(device);
            let new = sys::ggml_backend_reg_get_proc_address(registry, c"ggml_threadpool_new".as_ptr());
            let free = sys::ggml_backend_reg_get_proc_address(registry, c"ggml_threadpool_free".as_ptr());
            if new.is_null() || free.is_null() {
                return None;
            }
            let new: NewThreadpool = std::mem::transmute(new);
            let free: FreeThreadpool = std::mem::transmute(free);
            let mut params = sys::ggml_threadpool_params_default(threads as i32);
            params.poll = POLL;
            let raw = new(&mut params);
            (!raw.is_null()).then_some(Threadpool { raw, free })
        }
    }

    /// For calls of ggml, which may use the threads as long as this lives.
    pub fn raw(&self) -> sys::ggml_threadpool_t {
        self.raw
    }
}

impl Drop for Threadpool {
    fn drop(&mut self) {
        // SAFETY: the pool came from ggml, and the context that used it is gone.
        unsafe { (self.free)(self.raw) }
    }
}
