//! Standard output for text that streams: cleaned where it is a terminal, written at once, and quiet about a
//! reader that has left.

use std::io::{self, IsTerminal, Stdout, Write};

use serde::Serialize;
use terminal_size::{Height, Width, terminal_size_of};

use super::clean::Cleaner;

/// The exit status of a program whose reader has left: 128 + SIGPIPE, as a shell reports it.
pub const READER_LEFT: u8 = 128 + 13;

/// Standard output.
#[derive(Debug)]
pub struct Output {
    stdout: Stdout,
    terminal: bool,
    cleaner: Cleaner,
    ends_line: bool,
}

impl Output {
    /// This process's standard output.
    pub fn stdout() -> Output {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Output { stdout, terminal, cleaner: Cleaner::default(), ends_line: true }
    }

    /// Whether somebody watches.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Columns and lines of the screen, where somebody watches one.
    pub fn screen(&self) -> Option<(usize, usize)> {
        let (Width(columns), Height(lines)) = terminal_size_of(&self.stdout)?;
        Some((columns.into(), lines.into()))
    }

    /// Writes a piece of text and flushes it, so that it is seen as it comes.
    ///
    /// # Errors
    ///
    /// Those of standard output. `BrokenPipe` means that nobody reads any more: end with [`READER_LEFT`] and say
    /// nothing.
    pub fn write(&mut self, piece: &str) -> io::Result<()> {
        if self.terminal {
            let piece = self.cleaner.clean(piece);
            self.write_raw(&piece)
        } else {
            self.write_raw(piece)
        }
    }

    /// Begins anew at the top, where somebody watches.
    ///
    /// # Errors
    ///
    /// As [`Output::write`].
    pub fn clear_screen(&mut self) -> io::Result<()> {
        if self.terminal { self.write_raw("\x1b[H\x1b[J") } else { Ok(()) }
    }

    /// Writes a value as one line of JSON, its fields in their own order.
    ///
    /// # Errors
    ///
    /// As [`Output::write`].
    pub fn write_json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_string(value)?;
        line.push('\n');
        self.write(&line)
    }

    /// Ends the line that was begun, where somebody watches: the prompt of the shell comes on a line of its own,
    /// and a pipe gets the text alone.
    ///
    /// # Errors
    ///
    /// As [`Output::write`].
    pub fn end(&mut self) -> io::Result<()> {
        if self.terminal && !self.ends_line { self.write_raw("\n") } else { self.stdout.flush() }
    }

    fn write_raw(&mut self, piece: &str) -> io::Result<()> {
        if let Some(last) = piece.chars().last() {
            self.ends_line = last == '\n';
        }
        self.stdout.write_all(piece.as_bytes())?;
        self.stdout.flush()
    }
}

/// The exit status for a failure to write to standard output, after saying what failed if it is worth saying.
pub fn write_failed(program: &str, error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return READER_LEFT;
    }
    note!("{program}: standard output cannot be written: {error}");
    1
}
