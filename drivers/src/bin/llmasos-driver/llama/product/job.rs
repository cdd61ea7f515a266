//! One product, as the threads work on it: first they quantise the rows of the pass, and when all are done, they
//! multiply panels of weights with them. Of a few rows each thread quantises all for itself, which is sooner done than
//! the others are waited for.

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use llama_cpp_sys_2 as sys;

use super::super::accelerator::{Outcome, Team};
use super::{BLOCK, Block, Blocks, CHUNK, COLUMNS, COLUMNS_TILED, Columns, Kernel, PANEL, Shape};

/// Units of work for each thread, so that one that is held up leaves its share to others.
const UNITS_EACH: usize = 8;
/// Rows of a pass below which a panel is not computed in parts: to bring its weights would take too much of the time.
const COLUMNS_APART: usize = 32;
/// Rows of a pass from which on a tile is faster than vectors, though it computes as many as it has room for.
const COLUMNS_TILED_MIN: usize = 9;
/// How far behind the weights that are multiplied memory is told to bring others, in blocks, where a pass has so few rows
/// that it does nothing but wait for weights.
const BLOCKS_AHEAD: usize = 2;
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
    /// Makes room for so many blocks, and behind them for those of the rows that a tile may read beyond the last.
    fn room(&mut self, blocks: usize) -> Columns {
        let blocks = blocks + COLUMNS_TILED * CHUNK;
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

#[derive(Default)]
struct Scratch {
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
    /// The node is a product that [`supports`](super::supports) let pass, with its weights packed, and the other tensors
    /// in host memory.
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
            job.multiply(number, &rows, &mut own.sums, stop);
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
        PerThread(UnsafeCell::new(Scratch::default()))
    }
}

/// Rows of floats, wherever each one lies.
#[derive(Clone, Copy)]
struct Matrix {
    data: *mut u8,
    /// Rows of the inner dimensions, the first of which count the rows.
    counts: [usize; 2],
    /// Bytes from one row to the next in each dimension.
    steps: [usize; 3],
}

impl Matrix {
    fn of(tensor: &sys::ggml_tensor) -> Matrix {
        let counts = [tensor.ne[1] as usize, tensor.ne[2] as usize];
        Matrix { data: tensor.data.cast(), counts, steps: [tensor.nb[1], tensor.nb[2], tensor.nb[3]] }
    }

    /// Where a row begins. Whoever reads or writes there vouches for it.
    fn row(&self, row: usize) -> *mut f32 {
        let [inner, middle] = self.counts;
        let (at, outer) = (row % inner, row / inner);
        let places = [at, outer % middle, outer / middle];
        let bytes: usize = places.iter().zip(self.steps).map(|(place, step)| place * step).sum();
        self.data.wrapping_add(bytes).cast()
    }
}

struct Job {
    kernel: Kernel,
    /// Packed.
    weights: *const Block,
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
    /// For each thread how many units of its part have been taken.
    next_unit: Vec<AtomicUsize>,
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
        let Shape { blocks, rows: outputs } = Shape::of(weights);
        let columns = rows.ne[1..].iter().product::<i64>() as usize;
        let all = blocks.div_ceil(CHUNK) * columns * CHUNK;
        let own = threads == 1 || blocks * columns <= BLOCKS_OWN;
        let panels = outputs.div_ceil(PANEL);
        let wanted = threads * UNITS_EACH;
        let parts = if threads > 1 { wanted.div_ceil(panels.max(1)) } else { 1 };
        Job {
            kernel,
            weights: weights.data.cast_const().cast(),
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
            next_unit: (0..threads).map(|_| AtomicUsize::new(0)).collect(),
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
                let from = self.rows.row(column).add((chunk * CHUNK + block) * BLOCK);
                let (scale, offset) = (self.kernel.quantise)(from, room.numbers.add(to * BLOCK));
                room.scales.add(to).write(scale);
                room.offsets.add(to).write(offset);
            }
        }
    }

    /// Takes units until none is left. `stop` is asked between panels, and ends the work of all threads.
    fn multiply(&self, number: usize, rows: &Columns, sums: &mut Vec<f32>, stop: &dyn Fn() -> bool) {
        let tiled = self.kernel.tiled.filter(|_| self.columns >= COLUMNS_TILED_MIN);
        let before = tiled.map(|tiled| (tiled, (tiled.begin)()));
        while let Some((panels, columns)) = self.unit(number) {
            for panel in panels {
                if self.stopped.load(Ordering::Relaxed) {
                    break;
                }
                self.panel(panel, columns.clone(), rows, sums);
                if stop() {
                    self.stopped.store(true, Ordering::Relaxed);
                }
            }
        }
        if let Some((tiled, before)) = before {
            (tiled.end)(&before);
        }
    }

    /// A unit that nobody has taken yet: panels of weights, and for which rows of the pass. Each thread goes through a part
    /// of its own, so that its weights come one behind the other, and then helps the others.
    fn unit(&self, number: usize) -> Option<(Range<usize>, Range<usize>)> {
        let threads = self.next_unit.len();
        let units = self.outputs.div_ceil(PANEL).div_ceil(self.panels) * self.parts;
        let unit = (0..threads).map(|at| (number + at) % threads).find_map(|part| {
            let (from, to) = (part * units / threads, (part + 1) * units / threads);
            let unit = from + self.next_unit[part].fetch_add(1, Ordering::Relaxed);
            (unit < to).then_some(unit)
        })?;
        let (first, part) = (unit / self.parts * self.panels, unit % self.parts);
        let columns = part * self.columns / self.parts..(part + 1) * self.columns / self.parts;
        Some((first..self.outputs.div_ceil(PANEL).min(first + self.panels), columns))
    }

    /// Multiplies a panel of weights with these rows of the pass.
    fn panel(&self, panel: usize, columns: Range<usize>, rows: &Columns, sums: &mut Vec<f32>) {
        sums.resize(sums.len().max(columns.len() * PANEL), 0.0);
        let sums = sums.as_mut_ptr();
        let groups = Groups::of(columns.len(), self.kernel.tiled.is_some());
        for chunk in 0..self.chunks() {
            let (from, count) = (chunk * CHUNK, self.blocks_of(chunk));
            for group in 0..groups.count() {
                let here = groups.at(group);
                let at = (chunk * self.columns + columns.start + here.start) * CHUNK;
                // One group has no time to spare, and several bring the next chunk together.
                let ahead = match groups.count() {
                    1 => (BLOCKS_AHEAD, 0..count),
                    groups => (count, group * count / groups..(group + 1) * count / groups),
                };
                let blocks = Blocks {
                    first: self.weights.wrapping_add(panel * self.blocks + from),
                    count,
                    begins: chunk == 0,
                    ahead: (ahead.0 * size_of::<Block>(), ahead.1),
                };
                // SAFETY: the weights have this panel with these blocks. All chunks of the rows have been quantised, these
                // among them, and there are sums for every row.
                unsafe {
                    let columns = Columns {
                        numbers: rows.numbers.add(at * BLOCK),
                        scales: rows.scales.add(at),
                        offsets: rows.offsets.add(at),
                    };
                    let sums = sums.add(here.start * PANEL);
                    match self.kernel.tiled {
                        Some(tiled) if here.len() > COLUMNS => {
                            (tiled.multiply)(&blocks, &columns, here.len(), sums);
                        }
                        _ => self.kernel.multiply[here.len() - 1](&blocks, &columns, sums),
                    }
                }
            }
        }
        let first = panel * PANEL;
        for (at, column) in columns.enumerate() {
            // SAFETY: the result has this row with so many numbers, and this thread alone was given this part of it.
            unsafe {
                let to = self.result.row(column).add(first);
                to.copy_from_nonoverlapping(sums.add(at * PANEL), PANEL.min(self.outputs - first));
            }
        }
    }
}

/// How rows are divided into groups, each of which a kernel takes at once: as many as a tile has, and then what vectors
/// take.
struct Groups {
    rows: usize,
    tiled: usize,
    /// Groups behind those for tiles, of about equal size.
    rest: usize,
}

impl Groups {
    fn of(rows: usize, tiles: bool) -> Groups {
        let last = usize::from(rows % COLUMNS_TILED >= COLUMNS_TILED_MIN);
        let tiled = if tiles { rows / COLUMNS_TILED + last } else { 0 };
        Groups { rows, tiled, rest: rows.saturating_sub(tiled * COLUMNS_TILED).div_ceil(COLUMNS) }
    }

    fn count(&self) -> usize {
        self.tiled + self.rest
    }

    fn at(&self, group: usize) -> Range<usize> {
        if group < self.tiled {
            let from = group * COLUMNS_TILED;
            return from..self.rows.min(from + COLUMNS_TILED);
        }
        let (from, group) = (self.tiled * COLUMNS_TILED, group - self.tiled);
        let rows = self.rows - from;
        from + group * rows / self.rest..from + (group + 1) * rows / self.rest
    }
}
