//! Products of quantised weights with the rows of a pass, on CPUs with AVX-512 and its byte products (VNNI), and with matrix
//! units (AMX) where there are any.
//!
//! ggml's own kernels for Q8_0 read each weight for few rows, or compute so many rows as a matrix unit holds where there are
//! fewer. Here weights are [packed] when they are loaded, so that a vector has one group of four numbers of sixteen
//! of their rows, and a pass reads them once, in the order in which they lie: a [chunk](CHUNK) of the blocks of thirty-two
//! rows of weights is multiplied with every row of the pass while it is in the cache ([`job`]). Few rows are computed
//! with vectors ([`vnni`]), as fast as memory brings the weights, and sixteen with [`tiles`]. What the pass has is quantised as
//! ggml does it, block for block.
//!
//! # What a result depends on
//!
//! Sums of a block are whole numbers, and blocks are added in their order, by vectors and tiles alike. So a row of a pass
//! comes out the same, to the bit, whatever else is in the pass and however many threads there are.

#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]

mod check;
mod job;
mod packed;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod tiles;
#[cfg(target_arch = "x86_64")]
mod vnni;

use std::ops::Range;

use drivers::gguf::packing::PANEL_ROWS;
#[cfg(target_arch = "x86_64")]
use drivers::gguf::packing::has_byte_products;
use llama_cpp_sys_2 as sys;

pub use check::agrees;
pub use job::Products;
pub use packed::{Shape, pack};

/// Numbers of a block of Q8_0, which have a scale in common.
const BLOCK: usize = 32;
/// Bytes of a block in a file: the scale as a half float, then the numbers.
const BLOCK_BYTES: usize = 2 + BLOCK;
/// Rows of weights that are computed together: two vectors.
const PANEL: usize = PANEL_ROWS as usize;
/// Blocks of each row that are multiplied with all rows of a pass before the next ones: with them and what they are
/// multiplied with, the first cache is full.
const CHUNK: usize = 16;
/// Rows of a pass that are computed with vectors from registers.
const COLUMNS: usize = 6;
/// Rows of a pass that are computed with tiles.
const COLUMNS_TILED: usize = 16;

/// One block of each row of a panel, as it is packed. A whole number of cache lines.
#[repr(C)]
pub struct Block {
    /// For each four numbers and each row these four.
    numbers: [[[i8; 4]; PANEL]; BLOCK / 4],
    /// For each row the scale, a half float.
    scales: [u16; PANEL],
}

/// The inner loops.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// Quantises one block of numbers; gives its scale, and −128 times the sum of what the numbers have become.
    ///
    /// # Safety
    ///
    /// There are [`BLOCK`] numbers, and room for as many.
    quantise: unsafe fn(from: *const f32, to: *mut i8) -> (f32, i32),
    /// Multiplies packed blocks with one row of a pass, two, and so on.
    multiply: [Multiply; COLUMNS],
    /// The same for more rows, where there are matrix units.
    tiled: Option<Tiled>,
}

/// Adds products of blocks with rows of a pass to the sums of each, or begins these.
///
/// # Safety
///
/// There are so many blocks, [`CHUNK`] at most, the rows have as many, and there are [`PANEL`] sums for each row.
type Multiply = unsafe fn(&Blocks, &Columns, sums: *mut f32);

/// What a matrix unit needs and does.
#[derive(Clone, Copy, Debug)]
struct Tiled {
    /// Lays out this thread's tiles, and gives how they were.
    begin: fn() -> TileLayout,
    /// Lays them out so again.
    end: fn(&TileLayout),
    /// As [`Multiply`], for so many rows, [`COLUMNS_TILED`] at most. Behind the last row there is memory for as many.
    ///
    /// # Safety
    ///
    /// As there, between `begin` and `end`.
    multiply: unsafe fn(&Blocks, &Columns, count: usize, sums: *mut f32),
}

/// How a thread's tiles are laid out, as the CPU writes and reads it.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
struct TileLayout([u8; 64]);

/// Packed blocks that are multiplied.
struct Blocks {
    first: *const Block,
    count: usize,
    /// They are the first of their rows.
    begins: bool,
    /// Memory is told to bring what lies so many bytes behind these of the blocks.
    ahead: (usize, Range<usize>),
}

/// Rows of a pass, from the first block of a chunk on. The chunks of one row lie as far apart as there are rows.
#[derive(Clone, Copy)]
struct Columns {
    numbers: *mut i8,
    scales: *mut f32,
    /// −128 times the sum of a block's numbers: for kernels that have 128 added to the weights.
    offsets: *mut i32,
}

/// The kernel, where the CPU has its instructions.
#[cfg(target_arch = "x86_64")]
pub fn kernel() -> Option<Kernel> {
    has_byte_products().then(|| Kernel { tiled: tiles::there().then_some(tiles::TILED), ..vnni::KERNEL })
}

/// None: other CPUs keep ggml's kernels.
#[cfg(not(target_arch = "x86_64"))]
pub fn kernel() -> Option<Kernel> {
    None
}

/// Whether the kernel computes this product, if its weights are packed.
///
/// # Safety
///
/// The node is a product of a graph.
pub unsafe fn supports(node: &sys::ggml_tensor) -> bool {
    // SAFETY: a product has two factors.
    let (weights, rows) = unsafe { (&*node.src[0], &*node.src[1]) };
    weights.type_ == sys::GGML_TYPE_Q8_0
        && weights.nb[0] == BLOCK_BYTES
        && [rows.type_, node.type_] == [sys::GGML_TYPE_F32; 2]
        && [rows.nb[0], node.nb[0]] == [4; 2]
        && weights.ne[0] > 0
        && rows.ne[0] == weights.ne[0]
        && weights.ne[2..] == [1; 2]
}
