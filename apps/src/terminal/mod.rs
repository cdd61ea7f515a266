//! What programs of the userland print, and how: cleaned text, tables, numbers for people.
//!
//! Text of a model or of a file is data, and so are names and the sentences of faults. On a terminal none of it must act,
//! so all of it passes [`clean`] on its way, on standard output and standard error; in a pipe or a file it stays as it
//! is.

pub mod clean;
pub mod interrupt;
pub mod keys;
#[macro_use]
pub mod note;
pub mod output;
pub mod table;
pub mod units;
