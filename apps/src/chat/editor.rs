//! The line editor of the chat: history over chats, completion of commands and of files behind `/save`.

use std::borrow::Cow;
use std::fs;
use std::path::PathBuf;

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::history::FileHistory;
use rustyline::{Context, Helper, Hinter, Validator};
use syscalls::paths;

use super::command::NAMES;
use crate::program::Failure;
use crate::terminal::clean::{clean, is_clean};

/// Lines that the history keeps.
const HISTORY_LINES_MAX: usize = 1000;

/// What the editor gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// A line.
    Line(String),
    /// Ctrl-C.
    Interrupted,
    /// Ctrl-D.
    End,
}

/// The editor.
pub struct Editor {
    lines: rustyline::Editor<Commands, FileHistory>,
    history: PathBuf,
}

impl Editor {
    /// Opens the editor with the history of earlier chats, where there is one.
    ///
    /// # Errors
    ///
    /// The terminal cannot be used.
    pub fn open() -> Result<Editor, Failure> {
        let config = rustyline::Config::builder()
            .max_history_size(HISTORY_LINES_MAX)
            .map_err(unusable)?
            .auto_add_history(true)
            .build();
        let mut lines = rustyline::Editor::with_config(config).map_err(unusable)?;
        lines.set_helper(Some(Commands { files: FilenameCompleter::new() }));
        let history = paths::data().join("chat_history");
        // No history yet is a history of nothing.
        let _ = lines.load_history(&history);
        Ok(Editor { lines, history })
    }

    /// Reads a line.
    ///
    /// # Errors
    ///
    /// The terminal is gone.
    pub fn read(&mut self) -> Result<Read, Failure> {
        loop {
            match self.lines.readline("> ") {
                Ok(line) => return Ok(Read::Line(line)),
                Err(ReadlineError::Interrupted) => return Ok(Read::Interrupted),
                Err(ReadlineError::Eof) => return Ok(Read::End),
                // A Ctrl-C that has ended an answer, of which the editor hears when it reads again.
                Err(ReadlineError::Signal(_)) => {}
                Err(error) => return Err(unusable(error)),
            }
        }
    }
}

impl Drop for Editor {
    fn drop(&mut self) {
        // A history that cannot be kept is no reason to fail a chat that is over.
        if let Some(folder) = self.history.parent() {
            let _ = fs::create_dir_all(folder);
        }
        let _ = self.lines.save_history(&self.history);
    }
}

fn unusable(error: ReadlineError) -> Failure {
    Failure::Message(format!("the terminal cannot be used: {error}"))
}

#[derive(Helper, Hinter, Validator)]
struct Commands {
    files: FilenameCompleter,
}

impl Highlighter for Commands {
    /// A line of the history, or one that was pasted, may have anything in it.
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        Cow::Owned(clean(line))
    }
}

impl Completer for Commands {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        if line.starts_with("/save ") {
            let (start, mut files) = self.files.complete(line, at, context)?;
            files.retain(|file| is_clean(&file.display) && is_clean(&file.replacement));
            return Ok((start, files));
        }
        let typed = &line[..at];
        let names = NAMES.iter().filter(|name| typed.starts_with('/') && name.starts_with(typed));
        Ok((0, names.map(|n| Pair { display: (*n).into(), replacement: (*n).into() }).collect()))
    }
}
