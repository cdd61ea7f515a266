//! How text is cut into words before a vocabulary's tokens are found in it.

use std::collections::HashMap;

use drivers::gguf::{Array, Header};
use serde_json::{Value, json};
use tokenizers::NormalizerWrapper;
use tokenizers::normalizers::Precompiled;

use super::vocabulary::Tokens;

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
