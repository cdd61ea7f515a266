//! Which characters a vocabulary can express.
//!
//! Some vocabularies have no tokens for single bytes. On a character outside of theirs llama.cpp throws through
//! the foreign interface, which ends the process (SentencePiece), or leaves the character out without a word
//! (byte-pair encoding). So texts are checked here before llama.cpp sees them.

use std::collections::HashSet;

use drivers::wire::DriverFault;
use llama_cpp_sys_2 as sys;
use syscalls::{Errno, Token};

use super::model::Model;

/// What SentencePiece writes for a space.
const SPACE_MARK: char = '▁';

/// The characters that a vocabulary can express.
pub enum Alphabet {
    /// Every text.
    Any,
    /// Every text, with what is unknown replaced by one token for unknown words.
    Unknown,
    /// These characters, and the names of tokens that are matched before the rest.
    Limited { characters: HashSet<char>, names: Vec<Name> },
}

/// The text of a token that the tokenizer cuts out before all else.
pub struct Name {
    text: String,
    /// Only where names of special tokens are asked for.
    special: bool,
}

impl Alphabet {
    /// Goes through the vocabulary once.
    ///
    /// # Errors
    ///
    /// ENOEXEC where the file has no vocabulary.
    pub fn new(model: &Model) -> Result<Alphabet, DriverFault> {
        // SAFETY: the model is loaded.
        match unsafe { sys::llama_vocab_type(model.vocabulary()) } {
            sys::LLAMA_VOCAB_TYPE_NONE => Err(DriverFault::new(
                Errno::ENOEXEC,
                "the model's file has no vocabulary; convert it again with one",
            )),
            sys::LLAMA_VOCAB_TYPE_SPM => Ok(Alphabet::pieces(model)),
            sys::LLAMA_VOCAB_TYPE_BPE => Ok(Alphabet::byte_pairs(model)),
            sys::LLAMA_VOCAB_TYPE_PLAMO2 => Ok(Alphabet::Any),
            _ => Ok(Alphabet::Unknown),
        }
    }

    fn pieces(model: &Model) -> Alphabet {
        let entries: HashSet<&[u8]> = entries(model).collect();
        if has_byte_tokens(&entries) {
            return Alphabet::Any;
        }
        let mut characters: HashSet<char> = single_characters(&entries).collect();
        if characters.contains(&SPACE_MARK) {
            characters.insert(' ');
        }
        Alphabet::Limited { characters, names: names(model) }
    }

    fn byte_pairs(model: &Model) -> Alphabet {
        let entries: HashSet<&[u8]> = entries(model).collect();
        let symbols: HashSet<char> = single_characters(&entries).collect();
        if has_byte_tokens(&entries) || (0..=255).all(|byte| symbols.contains(&byte_symbol(byte))) {
            return Alphabet::Any;
        }
        let known = |character: &char| {
            let mut bytes = [0; 4];
            character.encode_utf8(&mut bytes).bytes().all(|byte| symbols.contains(&byte_symbol(byte)))
        };
        let characters = ('\0'..=char::MAX).filter(known).collect();
        Alphabet::Limited { characters, names: names(model) }
    }

    /// It can express every text, byte by byte if need be.
    pub fn is_any(&self) -> bool {
        matches!(self, Alphabet::Any)
    }

    /// Checks a text.
    ///
    /// # Errors
    ///
    /// EILSEQ with the first character that is not in the alphabet and its place.
    pub fn check(&self, text: &str, special: bool) -> Result<(), DriverFault> {
        let Alphabet::Limited { characters, names } = self else { return Ok(()) };
        if text.chars().all(|character| characters.contains(&character)) {
            return Ok(());
        }
        let mut parts = vec![(0, text)];
        for name in names.iter().filter(|name| special || !name.special) {
            parts = parts.into_iter().flat_map(|part| cut(part, &name.text)).collect();
        }
        let outside = |(start, part): (usize, &str)| {
            let mut characters_of = part.char_indices();
            characters_of.find(|(_, c)| !characters.contains(c)).map(|(at, c)| (start + at, c))
        };
        match parts.into_iter().filter_map(outside).min() {
            None => Ok(()),
            Some((at, character)) => {
                let place = text[..at].chars().count() + 1;
                let message = format!(
                    "the model's vocabulary has no token for {character:?}, character {place} of the text, and none \
                     for its bytes; use a model that knows the script"
                );
                Err(DriverFault::new(Errno::EILSEQ, message))
            }
        }
    }
}

fn entries(model: &Model) -> impl Iterator<Item = &[u8]> {
    (0..model.vocabulary_size()).map(|token| model.entry(Token(token)))
}

/// Tokens for all 256 bytes, in SentencePiece's notation.
fn has_byte_tokens(entries: &HashSet<&[u8]>) -> bool {
    (0..=255u8).all(|byte| entries.contains(format!("<0x{byte:02X}>").as_bytes()))
}

fn single_characters(entries: &HashSet<&[u8]>) -> impl Iterator<Item = char> {
    entries.iter().filter_map(|entry| {
        let mut characters = std::str::from_utf8(entry).ok()?.chars();
        let first = characters.next()?;
        characters.next().is_none().then_some(first)
    })
}

/// The tokens that llama.cpp matches as a whole, longest first as it does.
fn names(model: &Model) -> Vec<Name> {
    let special = sys::LLAMA_TOKEN_ATTR_CONTROL | sys::LLAMA_TOKEN_ATTR_UNKNOWN;
    let mut names: Vec<Name> = (0..model.vocabulary_size())
        .map(Token)
        .filter_map(|token| {
            let flags = model.attributes(token);
            let text = std::str::from_utf8(model.entry(token)).ok().filter(|text| !text.is_empty())?;
            let named = flags & (special | sys::LLAMA_TOKEN_ATTR_USER_DEFINED) != 0;
            named.then(|| Name { text: text.to_string(), special: flags & special != 0 })
        })
        .collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.text.len()));
    names
}

/// The parts of a text between occurrences of a name, each with its place.
fn cut<'a>((start, text): (usize, &'a str), name: &str) -> Vec<(usize, &'a str)> {
    let mut parts = Vec::new();
    let mut from = 0;
    for (at, found) in text.match_indices(name) {
        parts.push((start + from, &text[from..at]));
        from = at + found.len();
    }
    parts.push((start + from, &text[from..]));
    parts
}

/// The character that stands for a byte in vocabularies of byte-pair encoding, as GPT-2 chose it: printable
/// bytes stand for themselves, the others follow U+0100 in their order.
fn byte_symbol(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|byte| !printable(*byte)).count() as u32;
    char::from_u32(0x100 + before).expect("at most 68 characters behind U+0100")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(characters: &str, names: &[(&str, bool)]) -> Alphabet {
        let names = names.iter().map(|(text, special)| Name { text: text.to_string(), special: *special });
        Alphabet::Limited { characters: characters.chars().collect(), names: names.collect() }
    }

    #[test]
    fn character_outside_the_alphabet_is_named_with_its_place() {
        let fault = limited("abc ", &[]).check("ab 中c", false).expect_err("not in the alphabet");
        assert_eq!(fault.errno, Errno::EILSEQ);
        assert!(fault.message.contains("'中', character 4 "), "{}", fault.message);
        assert_eq!(limited("abc ", &[]).check("a cab", false), Ok(()));
    }

    #[test]
    fn names_of_tokens_need_no_characters() {
        let alphabet = limited("ab", &[("<|x|>", true), ("=", false)]);
        assert_eq!(alphabet.check("a<|x|>b", true), Ok(()));
        assert!(alphabet.check("a<|x|>b", false).is_err());
        assert_eq!(alphabet.check("a=b", false), Ok(()));
        assert!(alphabet.check("a=<b", true).expect_err("bare").message.contains("character 3 "));
    }

    #[test]
    fn byte_symbols_are_those_of_gpt_2() {
        assert_eq!([b' ', b'\n', b'A', 0, 0xad, 0xff].map(byte_symbol), ['Ġ', 'Ċ', 'A', 'Ā', 'Ń', 'ÿ']);
    }
}
