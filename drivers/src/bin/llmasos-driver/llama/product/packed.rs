//! Weights in the order in which the kernels read them: each [panel](PANEL) of rows has its blocks one after the other.

use llama_cpp_sys_2 as sys;

use super::{BLOCK, BLOCK_BYTES, Block, PANEL};

/// How large a matrix of weights is.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Blocks of each row.
    pub blocks: usize,
    pub rows: usize,
}

impl Shape {
    pub fn of(weights: &sys::ggml_tensor) -> Shape {
        Shape { blocks: weights.ne[0] as usize / BLOCK, rows: weights.ne[1] as usize }
    }

    /// Bytes of the matrix as a file has it.
    pub fn bytes(self) -> usize {
        self.blocks * self.rows * BLOCK_BYTES
    }

    /// Blocks of panels, and one that is empty: tiles take two blocks at a time.
    pub fn packed_blocks(self) -> usize {
        self.rows.div_ceil(PANEL) * self.blocks + 1
    }
}

/// Packs a matrix that is as a file has it. A panel that has fewer rows gets zeros for the others.
///
/// # Panics
///
/// The places have other lengths than the shape says.
pub fn pack(shape: Shape, from: &[u8], to: &mut [Block]) {
    assert_eq!((from.len(), to.len()), (shape.bytes(), shape.packed_blocks()), "a matrix is packed whole");
    // The others get every row.
    let last = to.len().saturating_sub(shape.blocks + 1);
    to[last..].fill_with(Block::empty);
    let panels = from.chunks(PANEL * shape.blocks * BLOCK_BYTES).zip(to.chunks_mut(shape.blocks));
    for (rows, panel) in panels {
        for (row, blocks) in rows.chunks_exact(shape.blocks * BLOCK_BYTES).enumerate() {
            for (block, to) in blocks.as_chunks::<BLOCK_BYTES>().0.iter().zip(&mut *panel) {
                to.put(row, block);
            }
        }
    }
}

impl Block {
    pub fn empty() -> Block {
        Block { numbers: [[[0; 4]; PANEL]; BLOCK / 4], scales: [0; PANEL] }
    }

    /// Takes a row's block, as a file has it.
    fn put(&mut self, row: usize, block: &[u8; BLOCK_BYTES]) {
        let (scale, numbers) = block.split_at(2);
        self.scales[row] = u16::from_le_bytes([scale[0], scale[1]]);
        for (to, from) in self.numbers.iter_mut().zip(numbers.as_chunks::<4>().0) {
            to[row] = from.map(|number| number as i8);
        }
    }
}
