//! What data files hold, one record after another, before it becomes tokens.

use std::ops::Range;

use super::error::DataError;

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

/// Records as they come from files.
pub type Records = Box<dyn Iterator<Item = Result<Record, DataError>> + Send>;

impl Record {
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
