//! What data files hold, one record after another, before it becomes tokens.

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
        };
        std::iter::once(first).chain(second)
    }
}
