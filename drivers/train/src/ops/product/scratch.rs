//! Memory for panels that a thread keeps from product to product. Asked for anew, panels of many sizes would lie between
//! the activations, and the memory of neither could be used for the other. It begins where a line of the cache does, so
//! that no register is loaded from two of them.

use std::cell::RefCell;

/// Words of 32 bits in a line.
pub(super) const WORDS: usize = 16;

/// A line of the cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Line(#[allow(dead_code, reason = "read by kernels, by address")] pub [u32; WORDS]);

thread_local! {
    /// What no product uses now. A task may run inside of another one's wait, so there can be a few.
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Lines for the panels of one matrix; they are kept for another one when this is dropped.
pub(super) struct Lines {
    all: Vec<Line>,
    count: usize,
}

/// So many lines, of which each is written before it is read.
pub(super) fn take(count: usize) -> Lines {
    let mut all = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    if all.len() < count {
        all.resize(count, Line([0; WORDS]));
    }
    Lines { all, count }
}

impl Lines {
    /// The lines to write.
    pub fn room(&mut self) -> &mut [Line] {
        &mut self.all[..self.count]
    }

    /// The lines to read.
    pub fn lines(&self) -> &[Line] {
        &self.all[..self.count]
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let all = std::mem::take(&mut self.all);
        FREE.with_borrow_mut(|free| free.push(all));
    }
}
