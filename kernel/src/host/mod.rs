//! The input and output around the kernel: sockets, workers, clocks, signals, the disk.
//!
//! One main loop ([`reactor`]) on one thread owns the kernel. It takes inputs from two bounded queues, steps the
//! kernel, and performs the effects in their order. Tasks on the same thread take connections in ([`acceptor`]), read
//! from them ([`connection`]), in an order that lets no flood come before a program that waits for its answer
//! ([`turns`]), and stand by workers ([`worker`]) and programs ([`programs`]); they talk to the loop through the queues
//! and share no state with it. The disk has threads of its own ([`store`]). What workers swap to is kept open for them
//! ([`swap`]). Nothing here decides anything about processes, contexts or models: that is the kernel's.

mod acceptor;
pub mod connection;
pub mod daemon;
mod descriptors;
mod digest;
mod groups;
mod halves;
pub mod heap;
pub mod input;
pub mod inspect;
pub mod listener;
pub mod log;
pub mod machine;
pub mod outbox;
mod peer;
pub mod places;
pub mod programs;
pub mod reactor;
#[cfg(test)]
mod scripted;
pub mod settings;
pub mod size;
pub mod starter;
pub mod store;
pub mod swap;
pub mod systemd;
mod turns;
mod watch;
pub mod worker;
pub mod workers;
