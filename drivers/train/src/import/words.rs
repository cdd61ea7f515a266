//! How text is cut into words before a vocabulary's tokens are found in it.

use std::collections::HashMap;

use drivers::gguf::{Array, Header};
use serde_json::{Value, json};
use tokenizers::NormalizerWrapper;
use tokenizers::normalizers::Precompiled;

use super::vocabulary::Tokens;

/// How the families cut text whose names llama.cpp has in `tokenizer.ggml.pre`.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How a byte-level BPE of this name cuts text.
pub(super) fn of_byte_pairs(name: &str) -> Result<Value, String> {
    let level = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let behind =
        |first: Value, regex: bool| json!({"type": "Sequence", "pretokenizers": [first, level(regex)]});
    let split = |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    match name {
        "gpt-2" | "phi-2" | "mpt" | "olmo" | "jais" => Ok(level(true)),
        "llama3" | "llama-v3" | "llama-bpe" | "falcon3" => Ok(behind(split(LLAMA3), false)),
        "qwen2" | "deepseek-r1-qwen" => Ok(behind(split(QWEN2), false)),
        "starcoder" | "refact" | "command-r" | "smollm" | "codeshell" => {
            Ok(behind(json!({"type": "Digits", "individual_digits": true}), true))
        }
        other => Err(format!(
            "its vocabulary cuts text by `{other}`, which is not known here; give the model's tokenizer.json with \
             `tokeniser: (kind: Load(…))`"
        )),
    }
}

/// The pairs that make each token of a SentencePiece BPE, in the order in which they are joined.
pub(super) fn merges(tokens: &Tokens<'_>) -> Value {
    let ids: HashMap<&str, usize> =
        tokens.names.iter().enumerate().map(|(id, name)| (name.as_str(), id)).collect();
    let mut pairs = Vec::new();
    for (id, name) in tokens.names.iter().enumerate() {
        let cuts = name.char_indices().skip(1).map(|(at, _)| name.split_at(at));
        for (left, right) in cuts {
            if let (Some(left_id), Some(right_id)) = (ids.get(left), ids.get(right)) {
                pairs.push((tokens.scores[id], *left_id, *right_id, left, right));
            }
        }
    }
    // Of equal scores those of the first tokens, as SentencePiece has learned them first.
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    Value::Array(pairs.into_iter().map(|(_, _, _, left, right)| json!([left, right])).collect())
}

/// What SentencePiece does to a text first, by the table in the file where there is one.
pub(super) fn normaliser_of_unigram(header: &Header) -> Result<Value, String> {
    let table: Option<Vec<u8>> = match header.array("tokenizer.ggml.precompiled_charsmap") {
        Some(Array::U8(bytes)) => Some(bytes.clone()),
        Some(Array::I8(bytes)) => Some(bytes.iter().map(|byte| *byte as u8).collect()),
        _ => None,
    };
    let mut steps = Vec::new();
    if let Some(table) = table.filter(|table| !table.is_empty()) {
        let precompiled = Precompiled::from(&table)
            .map_err(|error| format!("its `precompiled_charsmap` is damaged: {error}"))?;
        let step = serde_json::to_value(NormalizerWrapper::from(precompiled));
        steps.push(step.map_err(|error| error.to_string())?);
    }
    if header.flag("tokenizer.ggml.remove_extra_whitespaces").unwrap_or(false) {
        steps.push(json!({"type": "Strip", "strip_left": true, "strip_right": true}));
        steps.push(json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}));
    }
    match steps.is_empty() {
        true => Ok(Value::Null),
        false => Ok(json!({"type": "Sequence", "normalizers": steps})),
    }
}
