//! Whose turn it is on this thread: the context that builds or computes a graph, and whether it wants attention in blocks.
//!
//! ggml asks a device, not a backend, what it supports, so nothing that it passes tells contexts apart. But all that
//! a context does happens inside one call, on the thread that made it.

use std::cell::Cell;

use llama_cpp_sys_2 as sys;

#[derive(Clone, Copy)]
struct Turn {
    /// The context wants attention in blocks.
    attention: bool,
    pool: sys::ggml_threadpool_t,
    taken: usize,
    refused: usize,
}

thread_local! {
    static TURN: Cell<Option<Turn>> = const { Cell::new(None) };
}

/// What happened in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Attention operations that were given to the kernel of this program.
    pub taken: usize,
    /// How often that kernel had to say no to one.
    pub refused: usize,
}

impl Account {
    /// That kernel computes all the attention there is.
    pub fn all_taken(&self) -> bool {
        self.taken > 0 && self.refused == 0
    }
}

/// Makes a call of llama.cpp that may build or compute graphs, with the pool that its threads are of, if any.
pub fn during<R>(attention: bool, pool: sys::ggml_threadpool_t, call: impl FnOnce() -> R) -> (R, Account) {
    TURN.set(Some(Turn { attention, pool, taken: 0, refused: 0 }));
    let result = call();
    let turn = TURN.take().expect("nobody else ends a turn");
    (result, Account { taken: turn.taken, refused: turn.refused })
}

/// Whether the context whose turn it is wants attention in blocks.
pub fn wants_attention() -> bool {
    TURN.get().is_some_and(|turn| turn.attention)
}

/// The pool of the context whose turn it is, or null.
pub fn pool() -> sys::ggml_threadpool_t {
    TURN.get().map_or(std::ptr::null_mut(), |turn| turn.pool)
}

pub fn taken(operations: usize) {
    TURN.set(TURN.get().map(|turn| Turn { taken: turn.taken + operations, ..turn }));
}

pub fn refused() {
    TURN.set(TURN.get().map(|turn| Turn { refused: turn.refused + 1, ..turn }));
}
