//! The kernel of llmasos: a pure state machine ([`core`]) and the input and output around it ([`host`]).

pub mod core;
pub mod host;
pub mod jail;
