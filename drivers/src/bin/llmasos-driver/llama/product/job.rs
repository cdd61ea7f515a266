//! One product, as the threads work on it: first they quantise the rows of the pass, and when all are done, they
//! multiply panels of weights with them. Of a few rows each thread quantises all for itself, which is sooner done than
//! the others are waited for.

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use llama_cpp_sys_2 as sys;

use super::super::accelerator::{Outcome, Team};
use super::{BLOCK, BLOCK_BYTES, CHUNK, COLUMNS, Columns, Kernel, PANEL, Rows, Turned};

/// Units of work for each thread, so that one that is held up leaves its share to others.
const UNITS_EACH: usize = 8;
/// Rows of a pass below which a panel is not computed in parts: turning it would take too much of the time.
const COLUMNS_APART: usize = 32;
/// Blocks of a pass that each thread quantises for itself: some microseconds.
const BLOCKS_OWN: usize = 512;

/// The products of one context, with the memory that they need.
pub struct Products {
    kernel: Kernel,
    quantised: Quantised,
    scratch: Vec<PerThread>,
}

/// The rows of a pass, quantised: for each chunk of blocks and each row what [`Columns`] speaks of.
#[derive(Default)]
struct Quantised {
    numbers: Vec<i8>,
    scales: Vec<f32>,
    offsets: Vec<i32>,
}

impl Quantised {
    /// Makes room for so many blocks.
    fn room(&mut self, blocks: usize) -> Columns {
        self.numbers.resize(self.numbers.len().max(blocks * BLOCK), 0);
        self.scales.resize(self.scales.len().max(blocks), 0.0);
        self.offsets.resize(self.offsets.len().max(blocks), 0);
        Columns {
            numbers: self.numbers.as_mut_ptr(),
            scales: self.scales.as_mut_ptr(),
            offsets: self.offsets.as_mut_ptr(),
        }
    }
}

/// The memory of one thread, whose number it has.
struct PerThread(UnsafeCell<Scratch>);

struct Scratch {
    turned: Box<Turned>,
    sums: Vec<f32>,
    quantised: Quantised,
}

// SAFETY: each thread takes the one with its number and no other.
unsafe impl Sync for PerThread {}

impl Products {
    pub fn new(kernel: Kernel) -> Products {
        Products { kernel, quantised: Quantised::default(), scratch: Vec::new() }
    }

    /// Computes a product.
    ///
    /// # Safety
    ///
    /// The node is a product that [`supports`](super::supports) let pass, with its tensors in host memory.
    pub unsafe fn compute(&mut self, node: *const sys::ggml_tensor, team: Team) -> Outcome {
        let threads = team.threads();
        self.scratch.resize_with(threads.max(self.scratch.len()), PerThread::new);
        // SAFETY: the caller's conditions.
        let job = unsafe { Job::new(&*node, self.kernel, &mut self.quantised, threads) };
        let scratch = &self.scratch;
        let ran = team.run(&|number, stop| {
            // SAFETY: no other thread has this number.
            let own = unsafe { &mut *scratch[number].0.get() };
            let rows = job.quantise(&mut own.quantised);
            job.multiply(&rows, own, stop);
        });
        match ran {
            false => Outcome::Failed,
            true if job.stopped.load(Ordering::Relaxed) => Outcome::Stopped,
            true => Outcome::Done,
        }
    }
}

impl PerThread {
    fn new() -> PerThread {
        let scales = [[0.0; PANEL]; CHUNK];
        let turned = Box::new(Turned { numbers: [[[[0; 4]; PANEL]; BLOCK / 4]; CHUNK], scales });
        PerThread(UnsafeCell::new(Scratch { turned, sums: Vec::new(), quantised: Quantised::default() }))
    }
}

/// A matrix of floats, by rows.
#[derive(Clone, Copy)]
struct Matrix {
    data: *mut u8,
    row_bytes: usize,
}

impl Matrix {
    fn of(tensor: &sys::ggml_tensor) -> Matrix {
        Matrix { data: tensor.data.cast(), row_bytes: tensor.nb[1] }
    }

    /// Where a row begins. Whoever reads or writes there vouches for it.
    fn row(&self, row: usize) -> *mut u8 {
        self.data.wrapping_add(row * self.row_bytes)
    }
}

struct Job {
    kernel: Kernel,
    weights: Matrix,
    rows: Matrix,
    result: Matrix,
    /// Blocks of a row.
    blocks: usize,
    /// Rows of weights: numbers of each row of the result.
    outputs: usize,
    /// Rows of the pass.
    columns: usize,
    /// Where all threads find the quantised rows, unless each has its own.
    shared: Option<Columns>,
    /// Panels of a unit.
    panels: usize,
    /// Parts of the columns that are computed apart.
    parts: usize,
    next_chunk: AtomicUsize,
    chunks_done: AtomicUsize,
    next_unit: AtomicUsize,
    stopped: AtomicBool,
}

// SAFETY: what the pointers lead to is only read, but for quantised chunks and parts of the result, each of which is
// handed out once; chunks are read when all have been written.
unsafe impl Sync for Job {}

impl Job {
    /// # Safety
    ///
    /// The node is a product that is supported, and its tensors and the quantised rows stay where they are as long as
    /// this is used.
    unsafe fn new(node: &sys::ggml_tensor, kernel: Kernel, quantised: &mut Quantised, threads: usize) -> Job {
        // SAFETY: the caller's condition.
        let (weights, rows) = unsafe { (&*node.src[0], &*node.src[1]) };
        let [blocks, outputs, columns] =
            [weights.ne[0] / BLOCK as i64, weights.ne[1], rows.ne[1]].map(|n| n as usize);
        let all = blocks.div_ceil(CHUNK) * columns * CHUNK;
        let own = threads == 1 || blocks * columns <= BLOCKS_OWN;
        let panels = outputs.div_ceil(PANEL);
        let wanted = threads * UNITS_EACH;
        let parts = if threads > 1 { wanted.div_ceil(panels.max(1)) } else { 1 };
        Job {
            kernel,
            weights: Matrix::of(weights),
            rows: Matrix::of(rows),
            result: Matrix::of(node),
            blocks,
            outputs,
            columns,
            shared: (!own).then(|| quantised.room(all)),
            panels: (panels / wanted).max(1),
            parts: parts.min(columns / COLUMNS_APART).max(1),
            next_chunk: AtomicUsize::new(0),
            chunks_done: AtomicUsize::new(0),
            next_unit: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    /// Chunks of each row.
    fn chunks(&self) -> usize {
        self.blocks.div_ceil(CHUNK)
    }

    /// Blocks of a chunk: fewer in the last one.
    fn blocks_of(&self, chunk: usize) -> usize {
        CHUNK.min(self.blocks - chunk * CHUNK)
    }

    /// Quantises chunks until none is left, and waits for those that others have begun. Gives where they are.
    fn quantise(&self, own: &mut Quantised) -> Columns {
        let all = self.chunks() * self.columns;
        let Some(shared) = self.shared else {
            let room = own.room(all * CHUNK);
            // SAFETY: the room is this thread's own.
            (0..all).for_each(|chunk| unsafe { self.quantise_chunk(chunk, &room) });
            return room;
        };
        loop {
            let chunk = self.next_chunk.fetch_add(1, Ordering::Relaxed);
            if chunk >= all {
                break;
            }
            // SAFETY: this thread alone was given the chunk.
            unsafe { self.quantise_chunk(chunk, &shared) };
            self.chunks_done.fetch_add(1, Ordering::Release);
        }
        // Each of these is being computed by a thread at this moment, as ggml's own barriers wait.
        while self.chunks_done.load(Ordering::Acquire) < all {
            spin_loop();
        }
        shared
    }

    /// Quantises a chunk of a row; chunks are counted through all rows first.
    ///
    /// # Safety
    ///
    /// Nobody else reads or writes this chunk meanwhile.
    unsafe fn quantise_chunk(&self, at: usize, room: &Columns) {
        let (chunk, column) = (at / self.columns, at % self.columns);
        for block in 0..self.blocks_of(chunk) {
            let to = at * CHUNK + block;
            // SAFETY: the row has this block, and there is room for it.
            unsafe {
                let from = self.rows.row(column).cast::<f32>().add((chunk * CHUNK + block) * BLOCK);
                let (scale, offset) = (self.kernel.quantise)(from, room.numbers.add(to * BLOCK));
                room.scales.add(to).write(scale);
                room.offsets.add(to).write(offset);
            }
        }
    }

    /// Takes units until none is left. `stop` is asked between panels, and ends the work of all threads.
    fn multiply(&self, rows: &Columns, scratch: &mut Scratch, stop: &dyn Fn() -> bool) {
        let mut next = self.unit();
        while let Some((panels, columns)) = next {
            // Taken before it is needed, so that memory can begin to bring its weights.
            next = self.unit();
            for panel in panels.clone() {
                if self.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let after = match &next {
                    _ if panel + 1 < panels.end => panel + 1,
                    Some((panels, _)) => panels.start,
                    None => panel,
                };
                self.panel(panel, after, columns.clone(), rows, scratch);
                if stop() {
                    self.stopped.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    /// A unit that nobody has taken yet: panels of weights, and for which rows of the pass.
    fn unit(&self) -> Option<(Range<usize>, Range<usize>)> {
        let panels = self.outputs.div_ceil(PANEL);
        let unit = self.next_unit.fetch_add(1, Ordering::Relaxed);
        let (first, part) = (unit / self.parts * self.panels, unit % self.parts);
        let columns = part * self.columns / self.parts..(part + 1) * self.columns / self.parts;
        (first < panels).then(|| (first..panels.min(first + self.panels), columns))
    }

    /// Multiplies a panel of weights with these rows of the pass; another one comes after it.
    fn panel(
        &self,
        panel: usize,
        after: usize,
        columns: Range<usize>,
        rows: &Columns,
        scratch: &mut Scratch,
    ) {
        let first = panel * PANEL;
        let count = PANEL.min(self.outputs - first);
        let Scratch { turned, sums, .. } = scratch;
        sums.resize(sums.len().max(columns.len() * PANEL), 0.0);
        let sums = sums.as_mut_ptr();
        for chunk in 0..self.chunks() {
            let (from, blocks) = (chunk * CHUNK, self.blocks_of(chunk));
            let weights = Rows {
                blocks: std::array::from_fn(|row| {
                    self.weights.row(first + row.min(count - 1)).wrapping_add(from * BLOCK_BYTES).cast_const()
                }),
                next: self.weights.row(after * PANEL).wrapping_add(from * PANEL * BLOCK_BYTES),
            };
            // SAFETY: the rows have these blocks.
            unsafe { (self.kernel.turn)(&weights, blocks, turned) };
            let groups = columns.len().div_ceil(COLUMNS);
            for group in 0..groups {
                let here = group * columns.len() / groups..(group + 1) * columns.len() / groups;
                let at = (chunk * self.columns + columns.start + here.start) * CHUNK;
                // SAFETY: all chunks have been quantised, these among them, and there are sums for every column.
                unsafe {
                    let columns = Columns {
                        numbers: rows.numbers.add(at * BLOCK),
                        scales: rows.scales.add(at),
                        offsets: rows.offsets.add(at),
                    };
                    let sums = sums.add(here.start * PANEL);
                    self.kernel.multiply[here.len() - 1](turned, blocks, &columns, sums, chunk == 0);
                }
            }
        }
        for (at, column) in columns.enumerate() {
            // SAFETY: the result has this row with so many numbers, and this thread alone was given this part of it.
            unsafe {
                let to = self.result.row(column).cast::<f32>().add(first);
                to.copy_from_nonoverlapping(sums.add(at * PANEL), count);
            }
        }
    }
}
