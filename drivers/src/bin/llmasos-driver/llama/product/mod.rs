//! Products of quantised weights with the rows of a pass, on CPUs with AVX-512 and its byte products (VNNI).
//!
//! ggml repacks some types of weights when they are loaded, and has matrix units for some; Q8_0 on x86 without AMX is left
//! with a kernel that reads each weight for few rows and turns each block's sum into floats at once. This kernel takes
//! weights as the file has them, thirty-two rows of them at a time ([`job`]): it turns a [chunk](CHUNK) of their blocks so
//! that a vector has one group of four numbers of sixteen rows, and then multiplies that with every row of the pass
//! while it is in the cache ([`vnni`]). What the pass has is quantised as ggml does it, block for block. One row is as fast as
//! memory brings the weights, and two cost hardly more than one.
//!
//! # What a result depends on
//!
//! Sums of a block are whole numbers, and blocks are added in their order. So a row of a pass comes out the same, to the
//! bit, whatever else is in the pass and however many threads there are.

#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]

mod check;
mod job;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod vnni;

use llama_cpp_sys_2 as sys;

pub use check::agrees;
pub use job::Products;

/// Numbers of a block of Q8_0, which have a scale in common.
const BLOCK: usize = 32;
/// Bytes of a block: the scale as a half float, then the numbers.
const BLOCK_BYTES: usize = 2 + BLOCK;
/// Rows of weights that are computed together: two vectors.
const PANEL: usize = 32;
/// Blocks of each row that are turned at a time: with them and what they are multiplied with, the first cache is full.
const CHUNK: usize = 16;
/// Rows of a pass that are computed from registers.
const COLUMNS: usize = 6;

/// The inner loops.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// Quantises one block of numbers; gives its scale, and −128 times the sum of what the numbers have become.
    ///
    /// # Safety
    ///
    /// There are [`BLOCK`] numbers, and room for as many.
    quantise: unsafe fn(from: *const f32, to: *mut i8) -> (f32, i32),
    /// Turns blocks of a panel.
    ///
    /// # Safety
    ///
    /// See [`vnni::turn`].
    turn: unsafe fn(&Rows, blocks: usize, &mut Turned),
    /// Multiplies turned blocks with one row of a pass, two, and so on.
    ///
    /// # Safety
    ///
    /// See [`vnni::multiply`].
    multiply: [Multiply; COLUMNS],
}

type Multiply = unsafe fn(&Turned, blocks: usize, &Columns, sums: *mut f32, first: bool);

/// The rows of a panel, from the blocks on that are to be turned.
struct Rows {
    /// Where each row has its next block. Panels at a matrix's end have their last row several times.
    blocks: [*const u8; PANEL],
    /// What will be read after this panel.
    next: *const u8,
}

/// A chunk of a panel's blocks, turned.
#[repr(C, align(64))]
struct Turned {
    /// For each block, each four numbers in it and each row these four, with 128 added to every one.
    numbers: [[[[u8; 4]; PANEL]; BLOCK / 4]; CHUNK],
    /// For each block and row the scale.
    scales: [[f32; PANEL]; CHUNK],
}

/// Rows of a pass, from the first block of a chunk on. The chunks of one row lie as far apart as there are rows.
#[derive(Clone, Copy)]
struct Columns {
    numbers: *mut i8,
    scales: *mut f32,
    /// −128 times the sum of a block's numbers: takes back what was added to the weights.
    offsets: *mut i32,
}

/// The kernel, where the CPU has its instructions.
#[cfg(target_arch = "x86_64")]
pub fn kernel() -> Option<Kernel> {
    vnni::there().then_some(vnni::KERNEL)
}

/// None: other CPUs keep ggml's kernels.
#[cfg(not(target_arch = "x86_64"))]
pub fn kernel() -> Option<Kernel> {
    None
}

/// Whether the kernel computes this product.
///
/// # Safety
///
/// The node is a product of a graph.
pub unsafe fn supports(node: &sys::ggml_tensor) -> bool {
    // SAFETY: a product has two factors.
    let (weights, rows) = unsafe { (&*node.src[0], &*node.src[1]) };
    // SAFETY: the buffer of a tensor lives as long as that.
    let elsewhere = !weights.buffer.is_null() && unsafe { !sys::ggml_backend_buffer_is_host(weights.buffer) };
    weights.type_ == sys::GGML_TYPE_Q8_0
        && !elsewhere
        && weights.nb[0] == BLOCK_BYTES
        && [rows.type_, node.type_] == [sys::GGML_TYPE_F32; 2]
        && [rows.nb[0], node.nb[0]] == [4; 2]
        && weights.ne[0] > 0
        && rows.ne[0] == weights.ne[0]
        && rows.ne[1] > 0
        && [weights.ne[2], weights.ne[3], rows.ne[2], rows.ne[3]] == [1; 4]
}
