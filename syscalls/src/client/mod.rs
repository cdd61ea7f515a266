//! Two clients for the same conversation: [`blocking`] for programs of one thread, [`asynchronous`] for tokio.

pub mod asynchronous;
pub mod blocking;
