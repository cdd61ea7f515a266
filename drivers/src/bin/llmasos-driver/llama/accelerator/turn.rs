//! Whose turn it is on this thread: the context that builds or computes a graph, and which kernels it wants.
//!
//! ggml asks a device, not a backend, what it supports, so nothing that it passes tells contexts apart. But all that
//! a context does happens inside one call, on the thread that made it.

use std::cell::Cell;

use llama_cpp_sys_2 as sys;

/// The kernels that a context wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    pub attention: bool,
    pub products: bool,
}

#[derive(Clone, Copy)]
struct Turn {
    wants: Wants,
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
pub fn during<R>(wants: Wants, pool: sys::ggml_threadpool_t, call: impl FnOnce() -> R) -> (R, Account) {
    TURN.set(Some(Turn { wants, pool, taken: 0, refused: 0 }));
    let result = call();
    let turn = TURN.take().expect("nobody else ends a turn");
    (result, Account { taken: turn.taken, refused: turn.refused })
}

/// What the context wants whose turn it is.
pub fn wants() -> Wants {
    TURN.get().map_or(Wants::default(), |turn| turn.wants)
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
