//! What the benches share: models of random weights, llama.cpp's own tools, the same measurements through the
//! daemon, and tables.
//!
//! Which cases are measured, and what they must reach, is each bench's own business.

pub mod machine;
pub mod models;
pub mod ours;
pub mod peer;
pub mod random;
pub mod report;
