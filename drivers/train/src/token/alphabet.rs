//! Vocabularies that are not learned: one token for each character, or for each byte.
//!
//! Both are written as a BPE without merges, so that every program that reads a `tokenizer.json` can use them.

use std::collections::BTreeSet;

use drivers::gguf::byte_character;
use serde_json::{Map, Value, json};

/// A vocabulary of these characters, behind the special tokens. A text with another character has no tokens.
pub fn of_characters(characters: &BTreeSet<char>, special: &[String]) -> Value {
    let special: Vec<(String, usize)> = special.iter().cloned().zip(0..).collect();
    let tokens: Vec<(String, usize)> = characters.iter().map(char::to_string).zip(special.len()..).collect();
    of_numbered_characters(&tokens, &special)
}

/// The same of characters and special tokens that have their ids.
pub fn of_numbered_characters(characters: &[(String, usize)], special: &[(String, usize)]) -> Value {
    tokeniser(characters, special, Value::Null, json!({"type": "Fuse"}))
}

/// A vocabulary of the 256 bytes, behind the special tokens.
pub fn of_bytes(special: &[String]) -> Value {
    let level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false
    });
    let special: Vec<(String, usize)> = special.iter().cloned().zip(0..).collect();
    let tokens: Vec<(String, usize)> =
        (0..=255).map(|byte| byte_character(byte).to_string()).zip(special.len()..).collect();
    tokeniser(&tokens, &special, level.clone(), level)
}

fn tokeniser(
    tokens: &[(String, usize)],
    special: &[(String, usize)],
    pre_tokeniser: Value,
    decoder: Value,
) -> Value {
    let vocabulary: Map<String, Value> =
        special.iter().chain(tokens).map(|(token, id)| (token.clone(), json!(id))).collect();
    let added: Vec<Value> = special
        .iter()
        .map(|(token, id)| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true
            })
        })
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": pre_tokeniser, "post_processor": null, "decoder": decoder,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": []
        }
    })
}
