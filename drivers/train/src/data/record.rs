//! What data files hold, one record after another, before it becomes tokens; and where each stands.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::error::DataError;
use crate::token::TokenError;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A piece of text. `ends` tells whether the document ends with it.
    Text { text: String, ends: bool },
    /// A text and what it is to become.
    Pair { source: String, target: String },
    /// A text, or two, and the class of it.
    Labelled { text: String, second: Option<String>, label: String },
    /// A question, a text, and the bytes of the text that answer it.
    Question { question: String, context: String, answer: Option<Range<usize>> },
    /// Words, and the class of each.
    Tagged { words: Vec<String>, tags: Vec<String> },
}

/// Where a record stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    file: Arc<Path>,
    at: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Line(u64),
    /// The first of the lines that the record's text is.
    Lines(u64),
    Row(u64),
}

/// A record, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    pub record: Record,
    pub mark: Mark,
}

/// Records as they come from files.
pub type Records = Box<dyn Iterator<Item = Result<Marked, DataError>> + Send>;

impl Record {
    /// The record with its place.
    pub fn at(self, mark: Mark) -> Marked {
        Marked { record: self, mark }
    }

    /// The texts of the record, for learning a vocabulary.
    pub fn into_texts(self) -> impl Iterator<Item = String> {
        let (first, second) = match self {
            Record::Text { text, .. } => (text, None),
            Record::Pair { source, target } => (source, Some(target)),
            Record::Labelled { text, second, .. } => (text, second),
            Record::Question { question, context, .. } => (question, Some(context)),
            Record::Tagged { words, .. } => (words.join(" "), None),
        };
        std::iter::once(first).chain(second)
    }
}

impl Mark {
    /// A line of a file, counted from 1.
    pub fn line(file: &Arc<Path>, line: u64) -> Mark {
        Mark { file: file.clone(), at: At::Line(line) }
    }

    /// A row of a file that has no lines, counted from 1.
    pub fn row(file: &Arc<Path>, row: u64) -> Mark {
        Mark { file: file.clone(), at: At::Row(row) }
    }

    /// The same, where the record's text has the lines of the file.
    pub fn and_on(self) -> Mark {
        let at = if let At::Line(line) = self.at { At::Lines(line) } else { self.at };
        Mark { at, ..self }
    }

    /// Something that is wrong with the record.
    pub fn error(&self, why: impl Into<String>) -> DataError {
        match self.at {
            At::Line(line) | At::Lines(line) => DataError::line(&self.file, line, why),
            At::Row(row) => DataError::file(&self.file, format!("row {row}: {}", why.into())),
        }
    }

    /// A text of the record that has no tokens, with the line of the character that there is none for.
    pub fn token_error(&self, text: &str, error: &TokenError) -> DataError {
        let behind = match error {
            TokenError::Unknown { character } => text.find(*character).map_or("", |at| &text[..at]),
            _ => "",
        };
        let lines = behind.bytes().filter(|byte| *byte == b'\n').count() as u64;
        let at = match self.at {
            At::Lines(line) => At::Line(line + lines),
            other => other,
        };
        Mark { file: self.file.clone(), at }.error(error.to_string())
    }
}
