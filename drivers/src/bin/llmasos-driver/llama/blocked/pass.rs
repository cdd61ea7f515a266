//! The attention operations of a context's passes.
//!
//! The mask is the same for all layers of a pass, so its plan is made once. It is kept only for masks that are inputs
//! of the graph, which nobody writes while a pass runs, and forgotten when a pass begins: llama.cpp tells all backends
//! the number of threads before each graph, and in case it did not, the first operation of a pass comes round again.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use llama_cpp_sys_2 as sys;

use super::super::accelerator::{Outcome, Team};
use super::job::{Floats, Job, Scratch, Sizes, mask_of};
use super::micro::Kernels;
use super::plan::{Mask, Plan};
use super::share::Share;

/// Plans of one pass: models have one or two masks.
const PLANS_MAX: usize = 4;

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
pub struct Pass {
    kernels: &'static Kernels,
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

impl Pass {
    pub fn new(kernels: &'static Kernels) -> Pass {
        Pass {
            kernels,
            known: Vec::new(),
            first: std::ptr::null(),
            scratch: Vec::new(),
            partials: Floats::default(),
            unfinished: Vec::new(),
        }
    }

    /// Another pass begins.
    pub fn begin(&mut self) {
        self.known.clear();
        self.first = std::ptr::null();
    }

    /// Computes an operation.
    ///
    /// # Safety
    ///
    /// The node is an operation that [`supports`](super::supports) let pass, with its tensors in host memory.
    pub unsafe fn compute(&mut self, node: *const sys::ggml_tensor, team: Team) -> Outcome {
        let threads = team.threads();
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
        let scratch = &self.scratch;
        let ran = team.run(&|number, stop| {
            // SAFETY: no other thread has this number.
            let own = unsafe { &mut *scratch[number].0.get() };
            job.work(own, stop);
        });
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
    /// As for [`Pass::compute`].
    unsafe fn plan(&mut self, node: *const sys::ggml_tensor, threads: usize) -> Known {
        if self.first == node {
            self.begin();
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
