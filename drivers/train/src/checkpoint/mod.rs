//! Checkpoints: all that a run needs to go on as if it had never stopped.
//!
//! ```text
//! checkpoints/
//!     step-00000250/
//!         model.safetensors      the weights
//!         optimiser.safetensors  what the optimiser remembers
//!         config.json            the model's configuration
//!         tokenizer.json         the vocabulary
//!         state.json             step, position in the data, best loss, what must fit
//!         spec.ron               the specification
//!         manifest.json          length and SHA-256 of each of them
//!     last -> step-00000250      for people and scripts; the program looks for itself
//!     best -> step-00000200
//! ```
//!
//! A checkpoint is written into a folder under another name, its files and the folder are synchronised, and then it is
//! renamed. So after a crash at any moment there is a whole one or the one before. What is not whole, by its manifest,
//! is passed over. Random numbers depend on the seed and the step alone, so these two are all that is kept of them.

mod error;
mod files;
mod folder;
mod state;
#[cfg(test)]
mod tests;
mod whole;

pub use error::CheckpointError;
pub(crate) use files::bytes_of;
pub use files::{read_tensors, write_tensors};
pub use folder::Folder;
pub use state::{Best, Fits, RunState};
pub use whole::Checkpoint;
