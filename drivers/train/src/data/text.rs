//! Plain text: a file is one document.
//!
//! It is given out in pieces of some kilobytes, so that a file may be larger than memory. A piece ends behind a line,
//! between two characters that are no white space: there tokenisers cut anyway, so pieces have the tokens that the whole
//! would have. Those that put a mark before each text, as Unigram's do, have one at the beginning of each piece.

use std::path::Path;

use super::error::DataError;
use super::limits::PIECE_BYTES;
use super::lines::Lines;
use super::record::{Mark, Marked, Record};

/// Reads the pieces of a text file.
pub fn read(path: &Path) -> Result<impl Iterator<Item = Result<Marked, DataError>> + use<>, DataError> {
    Ok(Pieces { lines: Lines::open(path, "text")?, next: None, done: false })
}

struct Pieces {
    lines: Lines,
    /// A line that was read to see how it begins, and where it stands.
    next: Option<(String, Mark)>,
    done: bool,
}

impl Pieces {
    fn piece(&mut self) -> Result<Option<Marked>, DataError> {
        let (mut text, mark) = match self.next.take() {
            Some(line) => line,
            None => match self.lines.read()? {
                Some(line) => (line, self.lines.mark().and_on()),
                None => return Ok(None),
            },
        };
        while let Some(line) = self.lines.read()? {
            if text.len() >= PIECE_BYTES && cuts(&text, &line) {
                self.next = Some((line, self.lines.mark().and_on()));
                return Ok(Some(Record::Text { text, ends: false }.at(mark)));
            }
            text.push_str(&line);
        }
        self.done = true;
        Ok(Some(Record::Text { text, ends: true }.at(mark)))
    }
}

/// Whether a line's end stands alone between two characters that are no white space.
fn cuts(before: &str, after: &str) -> bool {
    let bare = before.strip_suffix('\n').unwrap_or(before);
    !bare.ends_with(char::is_whitespace) && !bare.is_empty() && !after.starts_with(char::is_whitespace)
}

impl Iterator for Pieces {
    type Item = Result<Marked, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let piece = self.piece().transpose();
        self.done |= !matches!(piece, Some(Ok(_)));
        piece
    }
}
