//! Data: from files of text to batches of token ids.
//!
//! ```text
//! Source ── records ──► prepare ── file of tokens ──► Examples ──► Collator ──► Loader ──► the step
//! ```
//!
//! A [`Source`] names files; its records are read one after another, and what is broken in them is reported with file
//! and line. [`prepare()`] tokenises them once, into a file that is mapped from then on. [`Examples`] are cut out of it
//! in an order that depends on seed and epoch alone, a [`Collator`] makes batches of them, and the [`Loader`] does so in
//! a thread ahead of the step.

mod collate;
mod download;
mod error;
mod examples;
mod folder;
mod jsonl;
mod labels;
mod limits;
mod lines;
mod loader;
mod named;
mod order;
mod parquet;
mod prepare;
mod questions;
mod record;
mod rows;
mod source;
mod table;
mod tagged;
#[cfg(test)]
pub(crate) mod tests;
mod text;
mod tokens;
mod windows;

pub use collate::{Collator, Packing};
pub use download::{Fetch, FetchError, PATIENCE, fetch, sha256_of};
pub use error::DataError;
pub use examples::{Examples, Place, Position, Task};
pub use folder::Split;
pub use labels::{Reading, Targets};
pub use loader::{Loaded, Loader};
pub use named::{DATASETS_VARIABLE, MIRROR_VARIABLE, Search, find};
pub use order::Order;
pub use prepare::prepare;
pub use record::{Mark, Marked, Record, Records};
pub use source::{Shape, Source};
pub use tokens::{About, TokenFile, TokenWriter};
pub(crate) use windows::{QUESTION_TOKENS_MAX, stride_default, windows};
