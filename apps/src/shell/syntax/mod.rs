//! What a line of the shell says: words, redirections, pipelines and how they are joined.
//!
//! The grammar is the part of sh that fits on a line:
//!
//! ```text
//! list     = chain { (";" | "&" | newline) chain }
//! chain    = pipeline { ("&&" | "||") pipeline }
//! pipeline = ["!"] command { "|" command }
//! command  = { NAME=word } { word | redirection }
//! ```
//!
//! [`lex`] makes words and operators of characters, [`parse`] makes commands of these, and [`expand`] puts in
//! variables, the home folder and file names when a command runs. There are no control structures: a script that
//! needs them is written for sh, where `llmasos NAME` runs each builtin.

pub mod expand;
mod lex;
mod parse;

use unicode_width::UnicodeWidthStr;

pub use parse::{is_name, parse};

/// Several chains, one after another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    pub items: Vec<Item>,
}

/// A chain, and whether the shell waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub chain: Chain,
    pub background: bool,
}

/// Pipelines that depend on each other's success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// As it was typed.
    pub text: String,
    pub first: Pipeline,
    pub rest: Vec<(Connector, Pipeline)>,
}

/// When the next pipeline of a chain runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connector {
    /// `&&`: after success.
    And,
    /// `||`: after failure.
    Or,
}

/// Commands that run at the same time, each one reading what the one before writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    /// As it was typed.
    pub text: String,
    /// `!` before it: success counts as failure.
    pub negated: bool,
    /// At least one.
    pub commands: Vec<Command>,
}

/// A program or builtin with its arguments, or assignments alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    pub assignments: Vec<(String, Word)>,
    pub words: Vec<Word>,
    pub redirections: Vec<Redirection>,
}

/// Where a stream of a command goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirection {
    pub stream: Stream,
    pub to: Target,
}

/// A standard stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Input,
    Output,
    Error,
}

/// The other end of a redirection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `<`
    Read(Word),
    /// `>`
    Write(Word),
    /// `>>`
    Append(Word),
    /// `>&1`, `2>&1`
    Stream(Stream),
}

/// A word: parts that stand together without a blank.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word(pub Vec<Part>);

/// A part of a word. What is quoted is neither split nor taken for a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text {
        text: String,
        quoted: bool,
    },
    Variable {
        name: String,
        quoted: bool,
    },
    /// `~` at the beginning of a word, or of what a variable is set to.
    Home,
}

/// Why a line cannot be understood, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// The byte of the source that it is about.
    pub at: usize,
    /// What is wrong there.
    pub message: String,
    /// More lines could make it right.
    pub incomplete: bool,
}

impl SyntaxError {
    fn new(at: usize, message: impl Into<String>) -> SyntaxError {
        SyntaxError { at, message: message.into(), incomplete: false }
    }

    fn incomplete(at: usize, message: impl Into<String>) -> SyntaxError {
        SyntaxError { at, message: message.into(), incomplete: true }
    }

    /// The message with the line and a mark below the place.
    pub fn show(&self, source: &str) -> String {
        let at = self.at.min(source.len());
        let begin = source[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let line = source[begin..].lines().next().unwrap_or_default();
        let mark = " ".repeat(source[begin..at].width());
        format!("{}\n  {line}\n  {mark}^\n", self.message)
    }

    /// The line that it is about, counted from 1.
    pub fn line(&self, source: &str) -> usize {
        source[..self.at.min(source.len())].matches('\n').count() + 1
    }
}
