//! Vocabularies for models that are made up: any text can be tokenised, and any token is text.

use super::header::{Array, Value};
use super::write::Plan;

/// An ordinary token, in llama.cpp's numbers.
const NORMAL: i32 = 1;

/// A token that is never text.
const CONTROL: i32 = 3;

/// The token that ends a text, behind the 256 bytes.
pub const END_OF_TEXT: u32 = 256;

/// The smallest byte-level vocabulary: the bytes and the end of text.
pub const BYTE_LEVEL_MIN: u32 = 257;

/// What WordPiece vocabularies begin with.
const WORD_PIECE_SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// The smallest WordPiece vocabulary: the special tokens, and the printable ASCII characters but capitals, which
/// the tokenizer lowers, at the beginning of a word and within one.
pub const WORD_PIECE_MIN: u32 = 5 + 2 * 68;

/// What llama.cpp puts before a piece that begins a word, in the place of other WordPiece's `##` within words.
const WORD_START: char = '\u{2581}';

/// The character that stands for a byte in byte-level BPE, so that no byte is a blank or a control character.
pub fn byte_character(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|byte| !printable(*byte)).count() as u32;
    char::from_u32(0x100 + before).expect("the characters from U+0100 on are assigned")
}

/// Puts a byte-level BPE into a file: the bytes, the end of text, and merges of letters into ever longer tokens.
pub fn plan_byte_level(plan: &mut Plan, size: u32) {
    let mut tokens: Vec<String> = (0..=255).map(|byte| byte_character(byte).to_string()).collect();
    tokens.push("<|endoftext|>".to_owned());
    let mut merges = Vec::new();
    for (left, right) in merge_pairs().take(size as usize - tokens.len()) {
        tokens.push(format!("{left}{right}"));
        merges.push(format!("{left} {right}"));
    }
    let mut types = vec![NORMAL; tokens.len()];
    types[END_OF_TEXT as usize] = CONTROL;
    plan.set("tokenizer.ggml.model", Value::Text("gpt2".into()));
    plan.set("tokenizer.ggml.pre", Value::Text("gpt-2".into()));
    plan.set("tokenizer.ggml.tokens", Value::Array(Array::Text(tokens)));
    plan.set("tokenizer.ggml.token_type", Value::Array(Array::I32(types)));
    plan.set("tokenizer.ggml.merges", Value::Array(Array::Text(merges)));
    plan.set("tokenizer.ggml.bos_token_id", Value::U32(END_OF_TEXT));
    plan.set("tokenizer.ggml.eos_token_id", Value::U32(END_OF_TEXT));
    plan.set("tokenizer.ggml.add_bos_token", Value::Bool(false));
}

/// Pairs to merge, each of tokens that exist by then: a blank and a letter, two letters, then pairs of pairs. There
/// are 457,678 of them.
fn merge_pairs() -> impl Iterator<Item = (String, String)> {
    let letters = || ('a'..='z').map(String::from);
    let pairs = move || letters().flat_map(move |a| letters().map(move |b| format!("{a}{b}")));
    let blank = byte_character(b' ').to_string();
    letters()
        .map(move |letter| (blank.clone(), letter))
        .chain(letters().flat_map(move |a| letters().map(move |b| (a.clone(), b))))
        .chain(pairs().flat_map(move |a| pairs().map(move |b| (a.clone(), b))))
}

/// The most tokens that [`plan_byte_level`] can make.
pub const BYTE_LEVEL_MAX: u32 = BYTE_LEVEL_MIN + 26 + 26 * 26 + 676 * 676;

/// Puts a WordPiece vocabulary into a file: special tokens, single characters, and words of two to four letters.
pub fn plan_word_pieces(plan: &mut Plan, size: u32) {
    let characters = || (0x21..=0x7eu8).filter(|byte| !byte.is_ascii_uppercase()).map(char::from);
    let mut tokens: Vec<String> = WORD_PIECE_SPECIAL.map(str::to_owned).to_vec();
    tokens.extend(characters().map(|character| format!("{WORD_START}{character}")));
    tokens.extend(characters().map(String::from));
    let words = merge_pairs().skip(26).map(|(left, right)| format!("{WORD_START}{left}{right}"));
    let missing = size as usize - tokens.len();
    tokens.extend(words.take(missing));
    let mut types = vec![NORMAL; tokens.len()];
    types[..WORD_PIECE_SPECIAL.len()].fill(CONTROL);
    plan_word_piece_tokens(plan, tokens, types);
}

/// Puts the tokens of a BERT into a file, in the order of their ids. llama.cpp marks the beginnings of words where
/// WordPiece marks the continuations.
pub fn plan_word_pieces_of_bert(plan: &mut Plan, tokens: Vec<String>) {
    let special = |token: &str| token.starts_with('[') && token.ends_with(']');
    let types = tokens.iter().map(|token| if special(token) { CONTROL } else { NORMAL }).collect();
    let mark = |token: String| match token.strip_prefix("##") {
        Some(rest) => rest.to_owned(),
        None if special(&token) => token,
        None => format!("{WORD_START}{token}"),
    };
    plan_word_piece_tokens(plan, tokens.into_iter().map(mark).collect(), types);
}

/// Puts WordPiece tokens into a file, with the special ones found by their names.
fn plan_word_piece_tokens(plan: &mut Plan, tokens: Vec<String>, types: Vec<i32>) {
    const IDS: [(&str, &str); 6] = [
        ("[PAD]", "padding_token_id"),
        ("[UNK]", "unknown_token_id"),
        ("[CLS]", "bos_token_id"),
        ("[CLS]", "cls_token_id"),
        ("[SEP]", "seperator_token_id"),
        ("[MASK]", "mask_token_id"),
    ];
    for (name, key) in IDS {
        if let Some(at) = tokens.iter().position(|token| token == name) {
            plan.set(&format!("tokenizer.ggml.{key}"), Value::U32(at as u32));
        }
    }
    plan.set("tokenizer.ggml.model", Value::Text("bert".into()));
    plan.set("tokenizer.ggml.pre", Value::Text("default".into()));
    plan.set("tokenizer.ggml.token_type_count", Value::U32(2));
    plan.set("tokenizer.ggml.token_type", Value::Array(Array::I32(types)));
    plan.set("tokenizer.ggml.tokens", Value::Array(Array::Text(tokens)));
}
