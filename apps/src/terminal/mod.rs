//! What programs of the userland print, and how: cleaned text, tables, numbers for people.
//!
//! Text of a model or of a file is data. On a terminal it must not act, so it passes [`clean`] on its way; in a
//! pipe or a file it stays as it is.

pub mod clean;
pub mod interrupt;
pub mod output;
pub mod table;
pub mod units;
