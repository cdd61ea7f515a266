//! The standard streams of a command: inherited, a pipe's end, or a file.
//!
//! The shell opens files itself, but for FIFOs: to open one takes until somebody opens its other end, who may be the next
//! line. The program's own process waits for that, before it is the program ([`opened_by_sh`]).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::syntax::expand::{Scope, expand_one};
use super::syntax::{Redirection, Stream, Target, Word};
use crate::terminal::clean::Cleaned;

/// Where each stream goes; what is absent is the shell's own.
#[derive(Debug, Default)]
pub struct Streams {
    pub input: Option<OwnedFd>,
    pub output: Option<OwnedFd>,
    pub error: Option<OwnedFd>,
}

impl Streams {
    /// Applies redirections in their order.
    ///
    /// # Errors
    ///
    /// A sentence on the file that cannot be opened.
    pub fn redirect(&mut self, redirections: &[Redirection], scope: &dyn Scope) -> Result<(), String> {
        for redirection in redirections {
            let opened = match &redirection.to {
                Target::Read(word) => open(word, scope, File::options().read(true)),
                Target::Write(word) => {
                    open(word, scope, File::options().write(true).create(true).truncate(true))
                }
                Target::Append(word) => open(word, scope, File::options().append(true).create(true)),
                Target::Stream(stream) => self.copy_of(*stream).map_err(|e| e.to_string()),
            }?;
            *self.end(redirection.stream) = Some(opened);
        }
        Ok(())
    }

    fn end(&mut self, stream: Stream) -> &mut Option<OwnedFd> {
        match stream {
            Stream::Input => &mut self.input,
            Stream::Output => &mut self.output,
            Stream::Error => &mut self.error,
        }
    }

    fn copy_of(&mut self, stream: Stream) -> io::Result<OwnedFd> {
        match (self.end(stream), stream) {
            (Some(end), _) => end.try_clone(),
            (None, Stream::Input) => io::stdin().as_fd().try_clone_to_owned(),
            (None, Stream::Output) => io::stdout().as_fd().try_clone_to_owned(),
            (None, Stream::Error) => io::stderr().as_fd().try_clone_to_owned(),
        }
    }

    /// Gives the streams to a program.
    pub fn apply(self, command: &mut Command) {
        if let Some(input) = self.input {
            command.stdin(Stdio::from(input));
        }
        if let Some(output) = self.output {
            command.stdout(Stdio::from(output));
        }
        if let Some(error) = self.error {
            command.stderr(Stdio::from(error));
        }
    }

    /// Standard error for what runs inside the shell.
    pub fn error_writer(&mut self) -> Box<dyn Write> {
        match self.error.take() {
            Some(error) => Box::new(Cleaned::new(File::from(error))),
            None => Box::new(Cleaned::new(io::stderr())),
        }
    }
}

/// Whether to open one of these files may take as long as somebody else likes.
pub fn may_wait(redirections: &[Redirection], scope: &dyn Scope) -> bool {
    redirections.iter().any(|redirection| match &redirection.to {
        Target::Read(word) | Target::Write(word) | Target::Append(word) => {
            let file = std::fs::metadata(expand_one(word, scope));
            file.is_ok_and(|file| file.file_type().is_fifo())
        }
        Target::Stream(_) => false,
    })
}

/// A command that opens files, as sh does, and becomes the program that its further arguments name.
pub fn opened_by_sh(redirections: &[Redirection], scope: &dyn Scope) -> Command {
    let mut script = "exec".to_owned();
    let mut files = Vec::new();
    for Redirection { stream, to } in redirections {
        let (operator, word) = match to {
            Target::Read(word) => ("<", word),
            Target::Write(word) => (">", word),
            Target::Append(word) => (">>", word),
            Target::Stream(other) => {
                script.push_str(&format!(" {}>&{}", number(*stream), number(*other)));
                continue;
            }
        };
        files.push(expand_one(word, scope));
        script.push_str(&format!(" {}{operator}\"${{{}}}\"", number(*stream), files.len()));
    }
    script.push_str(&format!("; shift {}; exec \"$@\"", files.len()));
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script).arg("llmsh").args(files);
    command
}

fn number(stream: Stream) -> u8 {
    match stream {
        Stream::Input => 0,
        Stream::Output => 1,
        Stream::Error => 2,
    }
}

fn open(word: &Word, scope: &dyn Scope, options: &std::fs::OpenOptions) -> Result<OwnedFd, String> {
    let path = expand_one(word, scope);
    let opened = options.open(Path::new(&path));
    opened.map(Into::into).map_err(|error| format!("{path} cannot be opened: {error}"))
}
