//! Takes out of a text what would act on a terminal: escape sequences and control characters.
//!
//! A model can be made to print any bytes, and a terminal obeys some of them: it sets titles, answers questions
//! as if typed, writes the clipboard. Newline and tab stay. Escape sequences are taken out whole, with their
//! parameters, also where a sequence comes in pieces; every other control character of ASCII and Latin-1 goes,
//! carriage return included, which could overwrite a line.

use std::io::{self, IsTerminal, Write};

/// Cleans a text that comes in pieces.
#[derive(Clone, Debug, Default)]
pub struct Cleaner {
    state: State,
}

/// Where in an escape sequence the text so far has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// In none.
    #[default]
    Text,
    /// Behind ESC.
    Escape,
    /// Behind ESC and an intermediate byte: one final byte is to come.
    Intermediate,
    /// In a control sequence (CSI), which a byte from `@` to `~` ends.
    Control,
    /// In a string (OSC, DCS, SOS, PM, APC), which BEL or ST ends.
    String,
    /// In a string behind ESC, which `\` makes the end of the string.
    StringEscape,
}

const ESC: char = '\u{1b}';
const BEL: char = '\u{7}';
/// Cancel and substitute: both break a sequence off.
const CAN: char = '\u{18}';
const SUB: char = '\u{1a}';

impl Cleaner {
    /// Cleans the next piece.
    pub fn clean(&mut self, piece: &str) -> String {
        piece.chars().filter(|&c| self.keeps(c)).collect()
    }

    /// Whether this character is to be shown; moves on in the sequence that it belongs to.
    fn keeps(&mut self, c: char) -> bool {
        let (next, keep) = match (self.state, c) {
            (State::String, ESC) => (State::StringEscape, false),
            (State::StringEscape, '\\') => (State::Text, false),
            (_, ESC) => (State::Escape, false),
            (_, CAN | SUB) => (State::Text, false),
            // A line break inside a sequence means that it is none: a string without an end must not swallow
            // the rest of the answer.
            (_, '\n') => (State::Text, true),
            (State::Text, _) => text(c),
            (State::Escape, _) => (escape(c), false),
            (State::Intermediate, ' '..='/') => (State::Intermediate, false),
            (State::Intermediate, _) => (State::Text, false),
            (State::Control, '@'..='~') => (State::Text, false),
            (State::Control, _) => (State::Control, false),
            (State::String | State::StringEscape, BEL | '\u{9c}') => (State::Text, false),
            (State::String | State::StringEscape, _) => (State::String, false),
        };
        self.state = next;
        keep
    }
}

/// A character outside any sequence.
fn text(c: char) -> (State, bool) {
    match c {
        '\t' => (State::Text, true),
        // The one-character forms of ESC [ and of ESC ] and its like.
        '\u{9b}' => (State::Control, false),
        '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => (State::String, false),
        // Marks that reorder text could show another command or address than the one that is there.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => (State::Text, false),
        c => (State::Text, !c.is_control()),
    }
}

/// The character behind ESC.
fn escape(c: char) -> State {
    match c {
        '[' => State::Control,
        ']' | 'P' | 'X' | '^' | '_' => State::String,
        ' '..='/' => State::Intermediate,
        _ => State::Text,
    }
}

/// Whether cleaning leaves a text as it is: what a line editor may offer.
pub fn is_clean(text: &str) -> bool {
    clean(text) == text
}

/// Cleans a whole text.
pub fn clean(text: &str) -> String {
    Cleaner::default().clean(text)
}

/// A stream that is cleaned where it is a terminal, and left alone where it is none.
///
/// Each write is taken as text of its own right: a character that is cut in two between writes is shown as damaged.
#[derive(Debug)]
pub struct Cleaned<W> {
    stream: W,
    cleaner: Option<Cleaner>,
}

impl<W: Write + IsTerminal> Cleaned<W> {
    /// Looks at the stream once.
    pub fn new(stream: W) -> Self {
        let cleaner = stream.is_terminal().then(Cleaner::default);
        Cleaned { stream, cleaner }
    }
}

impl<W: Write> Write for Cleaned<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(cleaner) = &mut self.cleaner else { return self.stream.write(bytes) };
        let text = cleaner.clean(&String::from_utf8_lossy(bytes));
        self.stream.write_all(text.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        assert_eq!(clean(text), expect, "{text:?}");
        // In pieces of one character the result is the same.
        let mut cleaner = Cleaner::default();
        let pieces: String = text.chars().map(|c| cleaner.clean(&c.to_string())).collect();
        assert_eq!(pieces, expect, "{text:?} in pieces");
    }

    #[test]
    fn text_of_any_language_stays() {
        check("Grüße, 世界!\n\tfin", "Grüße, 世界!\n\tfin");
        check("👩‍👩‍👧 e\u{301}", "👩‍👩‍👧 e\u{301}");
    }

    #[test]
    fn control_sequences_go_whole() {
        check("a\u{1b}[31mred\u{1b}[0m b", "ared b");
        check("a\u{1b}[2J\u{1b}[1;1Hb", "ab");
        check("a\u{9b}31mb", "ab");
        check("a\u{1b}(Bb\u{1b}7c\u{1b}=d", "abcd");
    }

    #[test]
    fn strings_go_to_their_end() {
        check("a\u{1b}]0;title\u{7}b", "ab");
        check("a\u{1b}]52;c;aGk=\u{1b}\\b", "ab");
        check("a\u{1b}P1$r\u{1b}\\b\u{9d}x\u{9c}c", "abc");
        check("a\u{1b}]0;open\nb", "a\nb");
    }

    #[test]
    fn controls_go_except_newline_and_tab() {
        check("a\rb\u{8}c\u{7}d\u{0}e\u{7f}f\u{85}g", "abcdefg");
        check("a\u{202e}b\u{2066}c", "abc");
    }

    #[test]
    fn sequence_cancelled_lets_text_go_on() {
        check("a\u{1b}[31\u{18}b", "ab");
        check("a\u{1b}\u{1b}[31mb", "ab");
    }
    #[test]
    fn stream_that_is_no_terminal_is_left_alone() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let mut cleaned = Cleaned::new(std::fs::File::from(std::os::fd::OwnedFd::from(writer)));
        cleaned.write_all("a\u{1b}[31mb\r\n".as_bytes()).expect("writes");
        drop(cleaned);
        assert_eq!(io::read_to_string(&mut reader).expect("reads"), "a\u{1b}[31mb\r\n");
    }

    #[test]
    fn stream_that_is_a_terminal_is_cleaned_over_writes() {
        let mut cleaned = Cleaned { stream: Vec::new(), cleaner: Some(Cleaner::default()) };
        for piece in ["a\u{1b}]0;ti", "tle\u{1b}", "\\b\u{9b}3", "1mc\n"] {
            cleaned.write_all(piece.as_bytes()).expect("writes");
        }
        assert_eq!(cleaned.stream, b"abc\n");
    }
}
