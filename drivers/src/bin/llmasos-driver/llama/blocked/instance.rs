//! A backend of one llama.cpp context: it computes the attention operations of the context's passes.
//!
//! The mask is the same for all layers of a pass, so its plan is made once. It is kept only for masks that are inputs
//! of the graph, which nobody writes while a pass runs, and forgotten when a pass begins: llama.cpp tells all backends
//! the number of threads before each graph, and in case it did not, the first operation of a pass comes round again.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};

use llama_cpp_sys_2 as sys;

use super::crew::Crew;
use super::job::{Floats, Job, Scratch, Sizes, mask_of};
use super::micro::Kernels;
use super::plan::{Mask, Plan};
use super::share::Share;

/// Asked now and then whether to stop; ggml's type.
pub type Abort = (unsafe extern "C" fn(*mut c_void) -> bool, *mut c_void);

/// Plans of one pass: models have one or two masks.
const PLANS_MAX: usize = 4;

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// The callback said so.
    Stopped,
    /// ggml did not run the threads.
    Failed,
}

/// A plan with what it depends on.
struct Known {
    mask: Mask,
    heads: usize,
    sharers: usize,
    threads: usize,
    plan: Plan,
    share: Share,
}

/// See the module's documentation.
pub struct Instance {
    kernels: &'static Kernels,
    threads: usize,
    abort: Option<Abort>,
    crew: Option<Crew>,
    known: Vec<Known>,
    /// The first operation since the plans were forgotten, which is only compared.
    first: *const sys::ggml_tensor,
    scratch: Vec<PerThread>,
    partials: Floats,
    unfinished: Vec<AtomicUsize>,
}

/// The scratch of one thread.
#[derive(Default)]
struct PerThread(UnsafeCell<Scratch>);

// SAFETY: each thread takes the one with its number and no other.
unsafe impl Sync for PerThread {}

impl Instance {
    pub fn new(kernels: &'static Kernels) -> Instance {
        Instance {
            kernels,
            threads: 1,
            abort: None,
            crew: Crew::new(),
            known: Vec::new(),
            first: std::ptr::null(),
            scratch: Vec::new(),
            partials: Floats::default(),
            unfinished: Vec::new(),
        }
    }

    /// A pass begins, on so many threads.
    pub fn begin(&mut self, threads: usize) {
        self.threads = threads.max(1);
        self.known.clear();
        self.first = std::ptr::null();
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
        let alone = pool.is_null() || self.crew.is_none() || self.threads == 1;
        let threads = if alone { 1 } else { self.threads };
        // SAFETY: the caller's condition.
        let (known, node) = unsafe { (self.plan(node, threads), &*node) };
        let share = &known.share;
        // SAFETY: the caller's condition.
        let sizes = unsafe { Sizes::of(node) };
        self.partials.reserve(share.partials * sizes.partial());
        self.unfinished.resize_with(share.groups.len().max(self.unfinished.len()), AtomicUsize::default);
        for (left, group) in self.unfinished.iter().zip(&share.groups) {
            left.store(group.units, Ordering::Relaxed);
        }
        self.scratch.resize_with(threads.max(self.scratch.len()), PerThread::default);
        let parts = (&known.plan, share);
        // SAFETY: the caller's conditions; the plan and the share were made for this operation, and room for them.
        let job =
            unsafe { Job::new(node, self.kernels, parts, self.partials.as_mut_ptr(), &self.unfinished) };
        let (abort, scratch) = (self.abort.map(AbortCheck), &self.scratch);
        let work = |number: usize| {
            // SAFETY: no other thread has this number. The callback belongs to the first one, as with ggml's own.
            let own = unsafe { &mut *scratch[number].0.get() };
            job.work(own, || number == 0 && abort.as_ref().is_some_and(AbortCheck::says_so));
        };
        let ran = match &mut self.crew {
            Some(crew) if !alone => crew.run(pool, threads, &work),
            _ => {
                work(0);
                true
            }
        };
        let stopped = job.was_stopped();
        self.known.push(known);
        match ran {
            false => Outcome::Failed,
            true if stopped => Outcome::Stopped,
            true => Outcome::Done,
        }
    }

    /// The plan of an operation, new or known; it is taken out of the known ones and goes back there.
    ///
    /// # Safety
    ///
    /// As for [`Instance::compute`].
    unsafe fn plan(&mut self, node: *const sys::ggml_tensor, threads: usize) -> Known {
        if self.first == node {
            self.begin(self.threads);
        }
        if self.first.is_null() {
            self.first = node;
        }
        // SAFETY: the caller's condition.
        let (mask, sizes, kept) = unsafe {
            let node = &*node;
            (mask_of(node), Sizes::of(node), is_input(node.src[3]))
        };
        let Sizes { heads, sharers, .. } = sizes;
        let same =
            |k: &Known| k.mask == mask && k.heads == heads && k.sharers == sharers && k.threads == threads;
        let found = self.known.iter().position(same).map(|at| self.known.swap_remove(at));
        if let Some(known) = found
            && kept
        {
            return known;
        }
        self.known.truncate(PLANS_MAX - 1);
        // SAFETY: the mask's tensor is in host memory; ggml has seen to its alignment.
        let plan = unsafe { Plan::new(&mask) };
        let share = Share::new(&plan, heads, sharers, threads);
        Known { mask, heads, sharers, threads, plan, share }
    }
}

/// A tensor that is written before a pass and by nobody in it.
///
/// # Safety
///
/// The tensor lives.
unsafe fn is_input(tensor: *const sys::ggml_tensor) -> bool {
    // SAFETY: the caller's condition.
    let tensor = unsafe { &*tensor };
    let input = sys::GGML_TENSOR_FLAG_INPUT as i32;
    tensor.op == sys::GGML_OP_NONE && tensor.view_src.is_null() && tensor.flags & input != 0
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
