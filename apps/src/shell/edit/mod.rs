//! The shell with a person: prompt, line editing, history, completion.
//!
//! Standard input is the terminal. While a line is edited, rustyline reads the keys, Ctrl-C among them; while a
//! job runs, the job has the terminal.

mod banner;
mod complete;

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::HistoryHinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Context, Editor, Helper, Hinter};
use syscalls::paths;

use super::builtin::failure::Failure;
use super::{Shell, syntax};
use crate::terminal::clean::{clean, is_clean};
use crate::terminal::note;
use complete::Words;

/// What stands before a line, and before its continuation.
const PROMPT: &str = "llmsh> ";

/// Lines of history that are kept.
const HISTORY_LINES_MAX: usize = 10_000;

/// Reads and runs lines until the person leaves. Gives the exit status.
///
/// # Errors
///
/// The terminal cannot be used for editing.
pub fn converse(mut shell: Shell, started: bool) -> Result<u8, Failure> {
    let no_terminal = |error: ReadlineError| Failure::Message(format!("lines cannot be edited: {error}"));
    let mut editor = editor(&shell).map_err(no_terminal)?;
    let history = open_history(&mut editor);
    banner::show(&shell.socket, started);
    loop {
        shell.tell_of_jobs();
        shell.forget_interrupt();
        if let Some(helper) = editor.helper_mut() {
            helper.prompt = prompt(shell.status());
            helper.words.variables = shell.variables.names();
            helper.words.jobs = shell.jobs.iter().map(|j| format!("%{}", j.id)).collect();
        }
        match editor.readline(PROMPT) {
            Ok(line) => {
                remember(&mut editor, &history, &line);
                run(&mut shell, &line);
            }
            // Ctrl-C drops the line.
            Err(ReadlineError::Interrupted) => {
                shell.variables.status = crate::terminal::interrupt::INTERRUPTED
            }
            Err(ReadlineError::Eof) => shell.leave(shell.status()),
            Err(error) => return Err(no_terminal(error)),
        }
        if let Some(status) = shell.leaving() {
            return Ok(status);
        }
    }
}

fn editor(shell: &Shell) -> rustyline::Result<Editor<Editing, FileHistory>> {
    let config = Config::builder()
        .max_history_size(HISTORY_LINES_MAX)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Editing {
        prompt: PROMPT.into(),
        words: Words::new(shell.socket.clone()),
        files: FilenameCompleter::new(),
        hinter: HistoryHinter::new(),
    }));
    Ok(editor)
}

fn run(shell: &mut Shell, line: &str) {
    if let Err(error) = shell.run(line) {
        note::part(format_args!("llmsh: {}", error.show(line)));
        shell.variables.status = super::builtin::failure::USAGE;
    }
}

/// The prompt, red after a failure. rustyline shows it as it is where the terminal has no colours.
fn prompt(status: u8) -> String {
    let colour = if status == 0 { 32 } else { 31 };
    if std::env::var_os("NO_COLOR").is_some() {
        PROMPT.into()
    } else {
        format!("\x1b[1;{colour}m{PROMPT}\x1b[0m")
    }
}

/// The file of the history, filled into the editor. Without a place for it there is a history of this shell only.
fn open_history(editor: &mut Editor<Editing, FileHistory>) -> Option<PathBuf> {
    let folder = paths::data();
    let path = folder.join("llmsh_history");
    fs::create_dir_all(&folder).ok()?;
    if path.exists()
        && let Err(error) = editor.load_history(&path)
    {
        note!("llmsh: the history {} cannot be read: {error}", path.display());
    }
    Some(path)
}

fn remember(editor: &mut Editor<Editing, FileHistory>, path: &Option<PathBuf>, line: &str) {
    if line.trim().is_empty() || !matches!(editor.add_history_entry(line), Ok(true)) {
        return;
    }
    let Some(path) = path else { return };
    if let Err(error) = append(editor, path) {
        note!("llmsh: the history {} cannot be written: {error}", path.display());
    }
}

/// Several shells add to one file.
fn append(editor: &mut Editor<Editing, FileHistory>, path: &Path) -> rustyline::Result<()> {
    editor.append_history(path)
}

/// What helps with a line while it is typed.
#[derive(Helper, Hinter)]
struct Editing {
    prompt: String,
    words: Words,
    files: FilenameCompleter,
    #[rustyline(Hinter)]
    hinter: HistoryHinter,
}

impl Completer for Editing {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        match self.words.complete(&line[..pos]) {
            Some((start, words)) => {
                let pair = |word: String| Pair { display: word.clone(), replacement: word };
                Ok((start, words.into_iter().map(pair).collect()))
            }
            None => {
                let (start, mut files) = self.files.complete_path(line, pos)?;
                files.retain(|file| is_clean(&file.display) && is_clean(&file.replacement));
                Ok((start, files))
            }
        }
    }
}

impl Highlighter for Editing {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, default: bool) -> Cow<'b, str> {
        if default { Cow::Borrowed(&self.prompt) } else { Cow::Borrowed(prompt) }
    }

    /// A line of the history, or one that was pasted, may have anything in it.
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        Cow::Owned(clean(line))
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(format!("\x1b[2m{}\x1b[0m", clean(hint)))
    }
}

impl Validator for Editing {
    /// A line that goes on, as in an open quote, gets another one.
    fn validate(&self, context: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        match syntax::parse(context.input()) {
            Err(error) if error.incomplete => Ok(ValidationResult::Incomplete),
            _ => Ok(ValidationResult::Valid(None)),
        }
    }
}
