//! Vocabularies in GGUF: the tokens, what kind each is, and how text is cut into them.

use drivers::gguf::write::Plan;
use drivers::gguf::{Array, Value as Entry, byte_character, plan_word_pieces_of_bert};
use serde_json::Value;

use super::ExportError;
use crate::import::cuts::family;
use crate::token::{Special, Tokeniser};

/// Kinds of tokens, in llama.cpp's numbers.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// What SentencePiece puts in the place of a space.
const SPACE: &str = "\u{2581}";

/// Puts a vocabulary of `rows` tokens into a file. Rows that the tokeniser has no token for are filled up.
pub(super) fn plan(plan: &mut Plan, tokeniser: &Tokeniser, rows: usize) -> Result<(), ExportError> {
    let tree: Value = serde_json::from_str(&tokeniser.to_json()?).map_err(crate::Error::from)?;
    let mut tokens: Vec<Option<String>> = (0..rows as u32).map(|id| tokeniser.token(id)).collect();
    let mut types: Vec<i32> =
        tokens.iter().map(|token| if token.is_some() { NORMAL } else { UNUSED }).collect();
    for added in tree["added_tokens"].as_array().into_iter().flatten() {
        if let (Some(id), Some(true)) = (added["id"].as_u64(), added["special"].as_bool())
            && let Some(kind) = types.get_mut(id as usize)
        {
            *kind = CONTROL;
        }
    }
    let fill = |(id, token): (usize, Option<String>)| token.unwrap_or_else(|| format!("[unused{id}]"));
    let model = &tree["model"];
    match model["type"].as_str() {
        Some("WordPiece") => {
            plan_word_pieces_of_bert(plan, tokens.into_iter().enumerate().map(fill).collect());
            return Ok(());
        }
        Some("Unigram") => unigram(plan, model, tokeniser, &mut types),
        Some("BPE") if model["byte_fallback"] == true => {
            return sentence_pieces(
                plan,
                &tree,
                tokeniser,
                tokens.into_iter().enumerate().map(fill).collect(),
                types,
            );
        }
        Some("BPE") => byte_pairs(plan, &tree, &mut tokens, &types)?,
        other => {
            let kind = other.unwrap_or("unknown");
            return Err(ExportError::Vocabulary(format!(
                "there is no place for a vocabulary of kind {kind}"
            )));
        }
    }
    let tokens = tokens.into_iter().enumerate().map(fill).collect();
    plan.set("tokenizer.ggml.tokens", Entry::Array(Array::Text(tokens)));
    plan.set("tokenizer.ggml.token_type", Entry::Array(Array::I32(types)));
    specials(plan, tokeniser)
}

/// The ids of special tokens. llama.cpp takes ids of other models where these are missing, so an end there must be.
fn specials(plan: &mut Plan, tokeniser: &Tokeniser) -> Result<(), ExportError> {
    let end = tokeniser.find(Special::End).ok_or_else(|| {
        ExportError::Vocabulary(
            "a vocabulary needs a token that ends a text; train with `special: [\"<|endoftext|>\"]`".into(),
        )
    })?;
    let or_end = |special| tokeniser.find(special).unwrap_or(end);
    let begin = tokeniser.begin();
    for (key, id) in [
        ("bos_token_id", begin.unwrap_or(end)),
        ("eos_token_id", end),
        ("unknown_token_id", or_end(Special::Unknown)),
        ("padding_token_id", or_end(Special::Pad)),
    ] {
        plan.set(&format!("tokenizer.ggml.{key}"), Entry::U32(id));
    }
    plan.set("tokenizer.ggml.add_bos_token", Entry::Bool(begin.is_some()));
    plan.set("tokenizer.ggml.add_eos_token", Entry::Bool(false));
    Ok(())
}

/// SentencePiece's BPE. llama.cpp joins those neighbours first whose whole has the highest score, so scores follow the
/// order of the merges.
fn sentence_pieces(
    plan: &mut Plan,
    tree: &Value,
    tokeniser: &Tokeniser,
    tokens: Vec<String>,
    mut types: Vec<i32>,
) -> Result<(), ExportError> {
    let is_byte = |token: &str| token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
    for (kind, _) in types.iter_mut().zip(&tokens).filter(|(_, token)| is_byte(token)) {
        *kind = BYTE;
    }
    if let Some(unknown) = tree["model"]["unk_token"].as_str().and_then(|token| tokeniser.id(token)) {
        types[unknown as usize] = UNKNOWN;
    }
    let mut scores = vec![0.0f32; tokens.len()];
    for (rank, merge) in merges(&tree["model"]).iter().enumerate() {
        let whole = merge.replacen(' ', "", 1);
        if let Some(score) = tokeniser.id(&whole).and_then(|id| scores.get_mut(id as usize))
            && *score == 0.0
        {
            *score = -1.0 - rank as f32;
        }
    }
    let begins = tree["normalizer"].to_string().contains("\"Prepend\"");
    plan.set("tokenizer.ggml.model", Entry::Text("llama".into()));
    plan.set("tokenizer.ggml.pre", Entry::Text("default".into()));
    plan.set("tokenizer.ggml.scores", Entry::Array(Array::F32(scores)));
    plan.set("tokenizer.ggml.add_space_prefix", Entry::Bool(begins));
    plan.set("tokenizer.ggml.tokens", Entry::Array(Array::Text(tokens)));
    plan.set("tokenizer.ggml.token_type", Entry::Array(Array::I32(types)));
    specials(plan, tokeniser)
}

/// Byte-level BPE as it is; characters as bytes where each is one, and otherwise as pieces that are never joined.
fn byte_pairs(
    plan: &mut Plan,
    tree: &Value,
    tokens: &mut [Option<String>],
    types: &[i32],
) -> Result<(), ExportError> {
    let is_byte_level = tree["pre_tokenizer"].to_string().contains("\"ByteLevel\"");
    let merges = merges(&tree["model"]);
    if !is_byte_level {
        let normal = || tokens.iter().zip(types).filter(|(_, kind)| **kind == NORMAL);
        if !merges.is_empty()
            || normal().any(|(token, _)| token.as_ref().is_none_or(|t| t.chars().count() != 1))
        {
            return Err(ExportError::Vocabulary("there is no place for a BPE that is not of bytes".into()));
        }
        let is_ascii = normal().all(|(token, _)| token.as_ref().is_some_and(|token| token.is_ascii()));
        for (token, _) in tokens.iter_mut().zip(types).filter(|(_, kind)| **kind == NORMAL) {
            *token = token.take().map(|token| match is_ascii {
                true => byte_character(token.as_bytes()[0]).to_string(),
                false => token.replace(' ', SPACE),
            });
        }
        if !is_ascii {
            plan.set("tokenizer.ggml.model", Entry::Text("llama".into()));
            plan.set("tokenizer.ggml.pre", Entry::Text("default".into()));
            plan.set("tokenizer.ggml.scores", Entry::Array(Array::F32(vec![0.0; tokens.len()])));
            plan.set("tokenizer.ggml.add_space_prefix", Entry::Bool(false));
            return Ok(());
        }
    }
    // Where nothing is joined it does not matter where text is cut.
    let family = match merges.is_empty() {
        true => "gpt-2",
        false => family(&tree["pre_tokenizer"]).ok_or_else(|| {
            ExportError::Vocabulary("there is no name for how this BPE cuts text into words".into())
        })?,
    };
    plan.set("tokenizer.ggml.model", Entry::Text("gpt2".into()));
    plan.set("tokenizer.ggml.pre", Entry::Text(family.into()));
    plan.set("tokenizer.ggml.merges", Entry::Array(Array::Text(merges)));
    Ok(())
}

/// Merges, which newer files have as pairs and older ones as texts with a space.
fn merges(model: &Value) -> Vec<String> {
    let text = |merge: &Value| match merge {
        Value::String(text) => Some(text.clone()),
        Value::Array(pair) => Some(format!("{} {}", pair.first()?.as_str()?, pair.get(1)?.as_str()?)),
        _ => None,
    };
    model["merges"].as_array().into_iter().flatten().filter_map(text).collect()
}

fn unigram(plan: &mut Plan, model: &Value, tokeniser: &Tokeniser, types: &mut [i32]) {
    let mut scores = vec![0.0f32; types.len()];
    for (id, piece) in model["vocab"].as_array().into_iter().flatten().enumerate().take(types.len()) {
        scores[id] = piece[1].as_f64().unwrap_or(0.0) as f32;
    }
    if let Some(unknown) = tokeniser.find(Special::Unknown) {
        types[unknown as usize] = UNKNOWN;
    }
    plan.set("tokenizer.ggml.model", Entry::Text("t5".into()));
    plan.set("tokenizer.ggml.pre", Entry::Text("default".into()));
    plan.set("tokenizer.ggml.scores", Entry::Array(Array::F32(scores)));
    plan.set("tokenizer.ggml.add_space_prefix", Entry::Bool(true));
    plan.set("tokenizer.ggml.remove_extra_whitespaces", Entry::Bool(false));
}
