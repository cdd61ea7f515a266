//! The kernel of llmasos: a pure state machine ([`core`]), the input and output around it ([`host`]), and the same
//! machine alone with simulated models ([`sim`]).

pub mod core;
pub mod host;
pub mod jail;
mod pidfd;
pub mod sim;
