//! Standard error for people: what a program has to say beside its output.
//!
//! Names of files and models, and the sentences of faults, come from others. On a terminal they must not act, so all
//! that this crate says passes through here ([`note!`]); `eprintln!` is forbidden in it.

use std::fmt::Arguments;
use std::io::{self, Write};

use super::clean::Cleaned;

/// Says a line on standard error, cleaned where that is a terminal.
macro_rules! note {
    () => { $crate::terminal::note::part(format_args!("\n")) };
    ($($argument:tt)*) => {
        $crate::terminal::note::part(format_args!("{}\n", format_args!($($argument)*)))
    };
}

/// Says what may be several lines, or a part of one.
pub fn part(text: Arguments) {
    // Where standard error fails too, the exit status is all that is left to tell.
    let _ = Cleaned::new(io::stderr()).write_all(text.to_string().as_bytes());
}
