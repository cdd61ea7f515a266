//! One attention operation, as the threads work on it.
//!
//! Everything here is read by all threads; what a thread writes is its own [`Scratch`], the rows of the result that
//! its units own, and its units' partial results.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use llama_cpp_sys_2 as sys;

use super::micro::{Kernels, ROWS, TILE, UNSEEN, WIDTH_MAX};
use super::plan::{BLOCK_ROWS, Mask, Plan};
use super::share::Share;
use super::unit;

/// A tensor of rows of numbers: one for each head and each token or cell.
#[derive(Clone, Copy)]
pub struct View {
    data: *const u8,
    row: usize,
    head: usize,
}

impl View {
    /// # Safety
    ///
    /// The tensor lives, in host memory, as long as the view is used.
    unsafe fn new(tensor: *const sys::ggml_tensor) -> View {
        // SAFETY: the caller's condition.
        let tensor = unsafe { &*tensor };
        View { data: tensor.data.cast(), row: tensor.nb[1], head: tensor.nb[2] }
    }

    /// Where a row begins. Whoever reads there vouches for both numbers.
    pub fn at(&self, row: usize, head: usize) -> *const u8 {
        self.data.wrapping_add(row * self.row + head * self.head)
    }
}

/// The numbers of an operation.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Numbers of a key.
    pub key: usize,
    /// Numbers of a value.
    pub value: usize,
    /// Heads of keys and values.
    pub heads: usize,
    /// Heads of queries that share one of them.
    pub sharers: usize,
}

impl Sizes {
    /// # Safety
    ///
    /// The node is an attention operation with its sources.
    pub unsafe fn of(node: &sys::ggml_tensor) -> Sizes {
        // SAFETY: the caller's condition.
        let (q, k, v) = unsafe { (&*node.src[0], &*node.src[1], &*node.src[2]) };
        let heads = k.ne[2] as usize;
        Sizes { key: k.ne[0] as usize, value: v.ne[0] as usize, heads, sharers: q.ne[2] as usize / heads }
    }

    /// Numbers of a partial result: for each row of a block a maximum, a sum and a value.
    pub fn partial(&self) -> usize {
        BLOCK_ROWS * self.sharers * (2 + self.value)
    }
}

/// One operation.
pub struct Job<'a> {
    pub kernels: &'static Kernels,
    pub sizes: Sizes,
    pub queries: View,
    pub keys: View,
    pub values: View,
    pub mask: Mask,
    pub result: *mut f32,
    /// What scores are multiplied with; log₂e is in it.
    pub scale: f32,
    max_bias: f32,
    pub plan: &'a Plan,
    pub share: &'a Share,
    pub partials: *mut f32,
    /// Units of each group that are not finished.
    pub unfinished: &'a [AtomicUsize],
    next: AtomicUsize,
    stopped: AtomicBool,
}

// SAFETY: what the pointers lead to is only read, but for the result and the partials, of which every unit owns its
// own part; units are handed out once.
unsafe impl Sync for Job<'_> {}

impl<'a> Job<'a> {
    /// # Safety
    ///
    /// The node is an operation that the device said it supports, and its tensors live in host memory as long as the
    /// job is used. The plan and the share are of its mask and sizes; there is room for the share's partials.
    pub unsafe fn new(
        node: &sys::ggml_tensor,
        kernels: &'static Kernels,
        (plan, share): (&'a Plan, &'a Share),
        partials: *mut f32,
        unfinished: &'a [AtomicUsize],
    ) -> Job<'a> {
        let parameter = |at: usize| f32::from_bits(node.op_params[at].cast_unsigned());
        // SAFETY: the caller's conditions.
        unsafe {
            Job {
                kernels,
                sizes: Sizes::of(node),
                queries: View::new(node.src[0]),
                keys: View::new(node.src[1]),
                values: View::new(node.src[2]),
                mask: mask_of(node),
                result: node.data.cast(),
                scale: parameter(0) * std::f32::consts::LOG2_E,
                max_bias: parameter(1),
                plan,
                share,
                partials,
                unfinished,
                next: AtomicUsize::new(0),
                stopped: AtomicBool::new(false),
            }
        }
    }

    /// Takes units until none is left. `stop` is asked between them, and ends the work of all threads.
    pub fn work(&self, scratch: &mut Scratch, stop: impl Fn() -> bool) {
        while !self.stopped.load(Ordering::Relaxed) {
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(unit) = self.share.units.get(next) else { return };
            unit::compute(self, unit, scratch);
            if stop() {
                self.stopped.store(true, Ordering::Relaxed);
            }
        }
    }

    /// The work was stopped before it was done.
    pub fn was_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// What the mask's numbers are multiplied with for a head of queries (Press et al., "Train Short, Test Long").
    pub fn slope(&self, head: usize) -> f32 {
        if self.max_bias == 0.0 {
            return std::f32::consts::LOG2_E;
        }
        let heads = self.sizes.heads * self.sizes.sharers;
        let even = 1 << heads.ilog2();
        let slope = if head < even {
            (-self.max_bias / even as f32).exp2().powi(head as i32 + 1)
        } else {
            (-self.max_bias / 2.0 / even as f32).exp2().powi(2 * (head - even) as i32 + 1)
        };
        slope * std::f32::consts::LOG2_E
    }
}

/// The mask of an operation.
///
/// # Safety
///
/// The node is an attention operation with its sources.
pub unsafe fn mask_of(node: &sys::ggml_tensor) -> Mask {
    // SAFETY: the caller's condition.
    let (q, k, mask) = unsafe { (&*node.src[0], &*node.src[1], &*node.src[3]) };
    Mask { data: mask.data.cast(), stride: mask.nb[1], rows: q.ne[1] as usize, cells: k.ne[1] as usize }
}

/// Sixteen floats, where vectors like them to lie.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; WIDTH_MAX]);

/// Floats that lie on the boundaries of cache lines.
#[derive(Default)]
pub struct Floats(Vec<Line>);

impl Floats {
    /// Makes room; what was there is lost.
    pub fn reserve(&mut self, floats: usize) {
        let lines = floats.div_ceil(WIDTH_MAX);
        if self.0.len() < lines {
            self.0 = vec![Line([0.0; WIDTH_MAX]); lines];
        }
    }

    pub fn as_mut_ptr(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }
}

/// What a thread needs for a unit: the rows of its block with all sharers, and one tile.
#[derive(Default)]
pub struct Scratch {
    /// The queries, scaled.
    pub queries: Floats,
    /// The sums of weighted values.
    pub out: Floats,
    /// The sums of weights, one for each lane.
    pub sums: Floats,
    /// The maximum of each row's scores so far.
    pub tops: Vec<f32>,
    /// The keys of a tile, turned.
    pub keys: Floats,
    /// The values of a tile, widened.
    pub values: Floats,
    /// Scores, then weights, of a few rows.
    pub scores: Floats,
}

impl Scratch {
    /// Makes room for operations of a size.
    pub fn reserve(&mut self, sizes: &Sizes) {
        let rows = BLOCK_ROWS * sizes.sharers;
        self.queries.reserve(rows * sizes.key);
        self.out.reserve(rows * sizes.value);
        self.sums.reserve(rows * WIDTH_MAX);
        self.tops.resize(rows, UNSEEN);
        self.keys.reserve(TILE * sizes.key);
        self.values.reserve(TILE * sizes.value);
        self.scores.reserve(ROWS * TILE);
    }
}
