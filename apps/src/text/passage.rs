//! The sentences of several documents, with where each one stands.

use std::ops::Range;

use super::document::Document;
use super::sentence::sentences;

/// One sentence of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence<'a> {
    /// The sentence, without the space around it.
    pub text: &'a str,
    /// Which document, from 0.
    pub document: usize,
    /// The line that it begins in, from 1.
    pub line: usize,
    /// The paragraph that it is in, counted from 0 through all documents.
    pub paragraph: usize,
}

/// All sentences, in the order of the documents.
pub fn collect(documents: &[Document]) -> Vec<Sentence<'_>> {
    let mut found = Vec::new();
    let mut paragraph = 0;
    for (at, document) in documents.iter().enumerate() {
        let mut lines = Lines { text: &document.text, at: 0, line: 1 };
        for range in sentences(&document.text) {
            let piece = &document.text[range.clone()];
            let text = piece.trim();
            if text.is_empty() {
                continue;
            }
            let begin = range.start + piece.len() - piece.trim_start().len();
            found.push(Sentence { text, document: at, line: lines.of(begin), paragraph });
            if ends_paragraph(piece) {
                paragraph += 1;
            }
        }
        paragraph += 1;
    }
    found
}

/// The sentences of one paragraph around a sentence.
pub fn paragraph_of(sentences: &[Sentence], at: usize) -> Range<usize> {
    let paragraph = sentences[at].paragraph;
    let from = sentences[..at].iter().rposition(|s| s.paragraph != paragraph).map_or(0, |before| before + 1);
    let to =
        sentences[at..].iter().position(|s| s.paragraph != paragraph).map_or(sentences.len(), |n| at + n);
    from..to
}

/// Whether an empty line follows the sentence.
fn ends_paragraph(piece: &str) -> bool {
    piece[piece.trim_end().len()..].matches('\n').count() > 1
}

/// Counts lines up to offsets that only grow.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl Lines<'_> {
    fn of(&mut self, offset: usize) -> usize {
        self.line += self.text[self.at..offset].matches('\n').count();
        self.at = offset;
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_know_where_they_stand() {
        let text = |name: &str, text: &str| Document { name: name.into(), text: text.into() };
        let documents = [text("a", "\nOne. Two.\n\nThree."), text("b", "Four.\nFive.")];
        let found = collect(&documents);
        let places: Vec<_> = found.iter().map(|s| (s.text, s.document, s.line, s.paragraph)).collect();
        assert_eq!(
            places,
            [
                ("One.", 0, 2, 0),
                ("Two.", 0, 2, 0),
                ("Three.", 0, 4, 1),
                ("Four.", 1, 1, 2),
                ("Five.", 1, 2, 2)
            ]
        );
        assert_eq!(paragraph_of(&found, 1), 0..2);
        assert_eq!(paragraph_of(&found, 2), 2..3);
        assert_eq!(paragraph_of(&found, 4), 3..5);
    }
}
