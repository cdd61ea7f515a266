//! Showing what programs of the daemon's print: on the stream that each line was meant for, cleaned for terminals.

use std::io;

use syscalls::Event;
use syscalls::event::{OutputLine, Stream};

use crate::terminal::note;
use crate::terminal::output::Output;

/// Where lines are shown.
pub struct Screen {
    output: Output,
    /// What went wrong first; nothing is written after it.
    failed: Option<io::Error>,
}

impl Screen {
    /// This process's own streams.
    pub fn new() -> Screen {
        Screen { output: Output::stdout(), failed: None }
    }

    /// Shows what an event of `output` has.
    pub fn hear(&mut self, event: &Event) {
        match event {
            Event::Output { lines } => lines.iter().for_each(|line| self.show(line)),
            Event::Lost { events } => {
                note!("({events} lines were lost: they came faster than they were read)")
            }
            _ => {}
        }
    }

    /// Shows one line.
    pub fn show(&mut self, line: &OutputLine) {
        let end = if line.cut { "" } else { "\n" };
        let text = format!("{}{end}", line.text);
        match line.stream {
            Stream::Stdout if self.failed.is_none() => self.failed = self.output.write(&text).err(),
            Stream::Stdout => {}
            Stream::Stderr => note::part(format_args!("{text}")),
        }
    }

    /// Whether something has gone wrong with standard output, so that no more lines are shown there.
    pub fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// What went wrong with standard output, if anything did.
    ///
    /// # Errors
    ///
    /// That.
    pub fn end(self) -> io::Result<()> {
        self.failed.map_or(Ok(()), Err)
    }
}
