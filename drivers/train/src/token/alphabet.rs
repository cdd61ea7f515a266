//! Vocabularies that are not learned: one token for each character, or for each byte.
//!
//! Both are written as a BPE without merges, so that every program that reads a `tokenizer.json` can use them.

use std::collections::BTreeSet;

use drivers::gguf::byte_character;
use serde_json::{Map, Value, json};

/// A vocabulary of these characters, behind the special tokens. A text with another character has no tokens.
pub fn of_characters(characters: &BTreeSet<char>, special: &[String]) -> Value {
    let tokens = characters.iter().map(char::to_string);
    tokeniser(tokens, special, Value::Null, json!({"type": "Fuse"}))
}

/// A vocabulary of the 256 bytes, behind the special tokens.
pub fn of_bytes(special: &[String]) -> Value {
    let level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false
    });
    let tokens = (0..=255).map(|byte| byte_character(byte).to_string());
    tokeniser(tokens, special, level.clone(), level)
}

fn tokeniser(
    tokens: impl Iterator<Item = String>,
    special: &[String],
    pre_tokeniser: Value,
    decoder: Value,
) -> Value {
    let vocabulary: Map<String, Value> =
        special.iter().cloned().chain(tokens).enumerate().map(|(id, token)| (token, json!(id))).collect();
    let added: Vec<Value> = special
        .iter()
        .enumerate()
        .map(|(id, token)| {
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
