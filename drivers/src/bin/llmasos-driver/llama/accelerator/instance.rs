//! A backend of one llama.cpp context: it computes what the device takes of the context's passes.

use std::ffi::c_void;

use llama_cpp_sys_2 as sys;

use super::super::blocked::Pass;
use super::super::product::Products;
use super::Kernels;
use super::crew::Crew;

/// Asked now and then whether to stop; ggml's type.
pub type Abort = (unsafe extern "C" fn(*mut c_void) -> bool, *mut c_void);

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// The callback said so.
    Stopped,
    /// ggml did not run the threads.
    Failed,
}

/// See the module's documentation.
pub struct Instance {
    threads: usize,
    abort: Option<Abort>,
    crew: Option<Crew>,
    attention: Option<Pass>,
    products: Option<Products>,
}

impl Instance {
    pub fn new(kernels: Kernels) -> Instance {
        Instance {
            threads: 1,
            abort: None,
            crew: Crew::new(),
            attention: kernels.attention.map(Pass::new),
            products: kernels.products.map(Products::new),
        }
    }

    /// A pass begins, on so many threads.
    pub fn begin(&mut self, threads: usize) {
        self.threads = threads.max(1);
        self.attention.iter_mut().for_each(Pass::begin);
    }

    pub fn set_abort(&mut self, abort: Option<Abort>) {
        self.abort = abort;
    }

    /// Computes an operation with the threads of a pool; without a pool, on this thread alone.
    ///
    /// # Safety
    ///
    /// The node is an operation that the device said it supports, with its tensors in host memory. The pool is that
    /// of the context whose pass this is.
    pub unsafe fn compute(&mut self, node: *const sys::ggml_tensor, pool: sys::ggml_threadpool_t) -> Outcome {
        let crew = self.crew.as_mut().filter(|_| !pool.is_null() && self.threads > 1);
        let threads = if crew.is_some() { self.threads } else { 1 };
        let team = Team { crew, pool, threads, abort: self.abort.map(AbortCheck) };
        // SAFETY: the caller's conditions.
        unsafe {
            match (&mut self.attention, &mut self.products) {
                (Some(attention), _) if (*node).op == sys::GGML_OP_FLASH_ATTN_EXT => {
                    attention.compute(node, team)
                }
                (_, Some(products)) if (*node).op == sys::GGML_OP_MUL_MAT => products.compute(node, team),
                _ => Outcome::Failed,
            }
        }
    }
}

/// The threads for an operation.
pub struct Team<'a> {
    crew: Option<&'a mut Crew>,
    pool: sys::ggml_threadpool_t,
    threads: usize,
    abort: Option<AbortCheck>,
}

impl Team<'_> {
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs a task on every thread, with its number and whether it is to stop, which is asked whenever it likes. False
    /// if ggml could not.
    pub fn run(self, task: &(dyn Fn(usize, &dyn Fn() -> bool) + Sync)) -> bool {
        let abort = self.abort;
        let work = |number: usize| {
            // The callback belongs to the first thread, as with ggml's own.
            task(number, &|| number == 0 && abort.as_ref().is_some_and(AbortCheck::says_so));
        };
        match self.crew {
            Some(crew) => crew.run(self.pool, self.threads, &work),
            None => {
                work(0);
                true
            }
        }
    }
}

/// The callback with its data, for the thread that asks it.
struct AbortCheck(Abort);

// SAFETY: only the thread that computes the pass asks, as ggml's own kernels do.
unsafe impl Sync for AbortCheck {}

impl AbortCheck {
    fn says_so(&self) -> bool {
        let (ask, data) = self.0;
        // SAFETY: llama.cpp was given both together.
        unsafe { ask(data) }
    }
}
