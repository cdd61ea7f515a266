//! From the bytes of tokens to text that can be shown: characters that span tokens are put together, and stop
//! strings are found before any part of them is let out.

use serde::{Deserialize, Serialize};

/// Text on its way out of a generation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::core) struct TextOut {
    /// Bytes of a character that is not complete.
    bytes: Vec<u8>,
    /// Text that may be the beginning of a stop string.
    held: String,
    /// Strings that end the text.
    stops: Vec<String>,
    /// Everything that was let out.
    text: String,
}

/// What a token did to the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::core) enum Let {
    /// This much more is certain.
    Out(String),
    /// This much more is certain, and then a stop string came.
    Stop(String),
}

impl TextOut {
    /// Empty text that the strings end.
    pub(in crate::core) fn new(stops: Vec<String>) -> Self {
        TextOut { stops, ..TextOut::default() }
    }

    /// Everything that was let out so far.
    pub(in crate::core) fn text(&self) -> &str {
        &self.text
    }

    /// Takes the bytes of the next token in.
    #[inline]
    pub(in crate::core) fn push(&mut self, piece: Vec<u8>) -> Let {
        let nothing_held = self.bytes.is_empty() && self.held.is_empty() && self.stops.is_empty();
        match String::from_utf8(piece) {
            Ok(whole) if nothing_held => {
                // As nearly every token goes, and without a copy.
                self.text.push_str(&whole);
                Let::Out(whole)
            }
            Ok(whole) => self.put_together(whole.as_bytes()),
            Err(e) => self.put_together(e.as_bytes()),
        }
    }

    /// Takes bytes in beside what is held, or what may be.
    fn put_together(&mut self, piece: &[u8]) -> Let {
        self.bytes.extend_from_slice(piece);
        let decoded = self.decode();
        self.held.push_str(&decoded);
        if let Some(at) = self.stops.iter().filter_map(|s| self.held.find(s.as_str())).min() {
            self.held.truncate(at);
            self.bytes.clear();
            return Let::Stop(self.let_out(at));
        }
        let certain = self.held.len() - self.possible_stop();
        Let::Out(self.let_out(certain))
    }

    /// Lets the rest out: no more tokens come, so what is incomplete stays so.
    pub(in crate::core) fn finish(&mut self) -> String {
        let rest = String::from_utf8_lossy(&std::mem::take(&mut self.bytes)).into_owned();
        self.held.push_str(&rest);
        self.let_out(self.held.len())
    }

    /// Takes whole characters off the bytes. What can never become one is U+FFFD.
    fn decode(&mut self) -> String {
        let mut out = String::new();
        loop {
            match std::str::from_utf8(&self.bytes) {
                Ok(valid) => {
                    out.push_str(valid);
                    self.bytes.clear();
                    return out;
                }
                Err(e) => {
                    let (valid, rest) = self.bytes.split_at(e.valid_up_to());
                    out.push_str(&String::from_utf8_lossy(valid));
                    let Some(bad) = e.error_len() else {
                        self.bytes = rest.to_vec();
                        return out;
                    };
                    out.push(char::REPLACEMENT_CHARACTER);
                    self.bytes = rest[bad..].to_vec();
                }
            }
        }
    }

    /// Bytes at the end of the held text that are the beginning of a stop string.
    fn possible_stop(&self) -> usize {
        let longest = |stop: &String| {
            (1..stop.len().min(self.held.len() + 1))
                .rev()
                .find(|n| self.held.as_bytes().ends_with(&stop.as_bytes()[..*n]))
                .unwrap_or(0)
        };
        // Both are UTF-8 and a stop string begins with a whole character, so what matches does too.
        self.stops.iter().map(longest).max().unwrap_or(0)
    }

    fn let_out(&mut self, bytes: usize) -> String {
        let rest = self.held.split_off(bytes);
        let out = std::mem::replace(&mut self.held, rest);
        self.text.push_str(&out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(text: &str) -> Let {
        Let::Out(text.into())
    }

    fn push(text: &mut TextOut, piece: &[u8]) -> Let {
        text.push(piece.to_vec())
    }

    #[test]
    fn character_over_two_tokens_comes_with_the_second() {
        let mut text = TextOut::new(vec![]);
        let euro = "€".as_bytes();
        assert_eq!(push(&mut text, &euro[..2]), out(""));
        assert_eq!(push(&mut text, &euro[2..]), out("€"));
    }

    #[test]
    fn bytes_that_are_no_character_are_replaced() {
        let mut text = TextOut::new(vec![]);
        assert_eq!(push(&mut text, b"a\xffb"), out("a\u{fffd}b"));
        assert_eq!(push(&mut text, b"\xe2\x82"), out(""));
        assert_eq!(push(&mut text, b"x"), out("\u{fffd}x"));
        assert_eq!(push(&mut text, b"\xe2"), out(""));
        assert_eq!(text.finish(), "\u{fffd}");
    }

    #[test]
    fn stop_string_over_tokens_is_never_let_out() {
        let mut text = TextOut::new(vec!["\n\nEND".into(), "xyz".into()]);
        assert_eq!(push(&mut text, b"one\n"), out("one"));
        assert_eq!(push(&mut text, b"two\n\nE"), out("\ntwo"));
        assert_eq!(push(&mut text, b"N"), out(""));
        assert_eq!(push(&mut text, b"D and more"), Let::Stop(String::new()));
        assert_eq!(text.text(), "one\ntwo");
    }

    #[test]
    fn stop_string_begun_and_not_ended_is_let_out() {
        let mut text = TextOut::new(vec!["abc".into()]);
        assert_eq!(push(&mut text, b"ab"), out(""));
        assert_eq!(push(&mut text, b"abd"), out("ababd"));
        assert_eq!(push(&mut text, b"a"), out(""));
        assert_eq!(text.finish(), "a");
        assert_eq!(text.text(), "ababda");
    }

    #[test]
    fn stop_string_earliest_of_several_ends_the_text() {
        let mut text = TextOut::new(vec!["b".into(), "a".into()]);
        assert_eq!(push(&mut text, "zßab".as_bytes()), Let::Stop("zß".into()));
    }

    #[test]
    fn stop_string_of_wide_characters_holds_whole_characters() {
        let mut text = TextOut::new(vec!["。終".into()]);
        assert_eq!(push(&mut text, "見。".as_bytes()), out("見"));
        assert_eq!(push(&mut text, "本".as_bytes()), out("。本"));
    }
}
