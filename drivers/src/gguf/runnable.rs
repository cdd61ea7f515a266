//! Checks what a sound header says against what llama.cpp can run.
//!
//! llama.cpp answers most nonsense with an error of its own. What stands here is what it answers with an abort, a
//! division by zero or a read past an array, and what deserves a better sentence.

use std::collections::BTreeSet;

use super::architecture::{RECURRENT, is_supported};
use super::error::GgufError;
use super::header::{Array, Header, Value};
use super::limits::{EMBEDDING_MAX, EXPERTS_MAX, HEADS_MAX, LAYERS_MAX};

type Result<T> = std::result::Result<T, GgufError>;

/// Architectures of speech, whose tables are not those of text.
const SPEECH: [&str; 3] = ["pockettts", "qwen3tts", "wavtokenizer-dec"];

/// The scalings of rotary positions that llama.cpp has; it aborts on others.
const ROPE_SCALINGS: [&str; 4] = ["none", "linear", "yarn", "longrope"];

/// Makes sure that llama.cpp can be trusted with a file of this header.
///
/// # Errors
///
/// [`GgufError::NotRunnable`] or [`GgufError::TooLarge`], for the first thing that is wrong.
pub fn check_runnable(header: &Header) -> Result<()> {
    check_architecture(header)?;
    check_sizes(header)?;
    check_heads(header)?;
    check_experts(header)?;
    check_rope(header)?;
    check_vocabulary(header)?;
    check_embedding_table(header)
}

fn refuse<T>(sentence: String) -> Result<T> {
    Err(GgufError::NotRunnable(sentence))
}

/// The other files of a model that is split hold the rest of its tensors.
fn is_split(header: &Header) -> bool {
    header.count("split.count").is_some_and(|count| count > 1)
}

fn is_speech(header: &Header) -> bool {
    SPEECH.contains(&header.architecture.as_str())
}

fn check_architecture(header: &Header) -> Result<()> {
    let name = &header.architecture;
    if name == "clip" {
        return refuse("it is a vision projector, which cannot run alone; give the language model".into());
    }
    if !is_supported(name) {
        return refuse(format!(
            "llama.cpp does not have its architecture, `{name}`; use a model of another family"
        ));
    }
    if header.tensors.is_empty() && !is_split(header) {
        return refuse("it holds no tensors, only a vocabulary; give the file with the weights".into());
    }
    Ok(())
}

/// An integer of the architecture that must be there and within `1..=most`.
fn size(header: &Header, key: &str, most: u64) -> Result<u64> {
    let full = header.own_key(key);
    match header.count(&full) {
        None => refuse(format!("its metadata has no number `{full}`: convert the model again")),
        Some(0) => refuse(format!("its `{full}` is 0: the file is damaged")),
        Some(value) if value > most => {
            Err(GgufError::TooLarge { what: format!("its `{full}`"), value, limit: most })
        }
        Some(value) => Ok(value),
    }
}

fn check_sizes(header: &Header) -> Result<()> {
    size(header, "block_count", LAYERS_MAX)?;
    size(header, "context_length", u64::from(u32::MAX / 2))?;
    size(header, "embedding_length", EMBEDDING_MAX)?;
    // llama.cpp divides the numbers of layers by it.
    let interval = header.own_key("full_attention_interval");
    match header.count(&interval) {
        Some(0) => refuse(format!("its `{interval}` is 0: the file is damaged")),
        _ => Ok(()),
    }
}

/// The heads of each layer, or of all alike.
fn heads(header: &Header, key: &str) -> Result<Option<Vec<u64>>> {
    let full = header.own_key(key);
    let counts = match header.metadata.get(&full) {
        None => return Ok(None),
        Some(Value::Array(array)) => array.counts(),
        Some(value) => value.count().map(|count| vec![count]),
    };
    let Some(counts) = counts else {
        return refuse(format!("its `{full}` is not a count, or a list of counts: the file is damaged"));
    };
    let layers = header.own_count("block_count").unwrap_or(0);
    if counts.len() != 1 && counts.len() as u64 != layers {
        return refuse(format!(
            "its `{full}` has {} entries for {layers} layers: the file is damaged",
            counts.len()
        ));
    }
    match counts.iter().copied().find(|count| *count > HEADS_MAX) {
        Some(value) => Err(GgufError::TooLarge { what: format!("its `{full}`"), value, limit: HEADS_MAX }),
        None => Ok(Some(counts)),
    }
}

fn check_heads(header: &Header) -> Result<()> {
    let query = heads(header, "attention.head_count")?;
    let shared = heads(header, "attention.head_count_kv")?;
    if RECURRENT.contains(&header.architecture.as_str()) {
        return Ok(());
    }
    let Some(query) = query else { return refuse("its metadata has no number of attention heads".into()) };
    if query.iter().all(|heads| *heads == 0) {
        return refuse("its number of attention heads is 0: the file is damaged".into());
    }
    if let ([heads], Some([kv])) = (query.as_slice(), shared.as_deref())
        && (*kv == 0 || !heads.is_multiple_of(*kv))
    {
        return refuse(format!(
            "its {heads} attention heads cannot share {kv} key-value heads: the file is damaged"
        ));
    }
    let embedding = header.own_count("embedding_length").unwrap_or(0);
    if let [heads] = query.as_slice()
        && header.own_count("attention.key_length").is_none()
        && !embedding.is_multiple_of(*heads)
    {
        return refuse(format!(
            "its width of {embedding} is no multiple of its {heads} heads: the file is damaged"
        ));
    }
    Ok(())
}

fn check_experts(header: &Header) -> Result<()> {
    let experts = header.own_count("expert_count").unwrap_or(0);
    if experts > EXPERTS_MAX {
        let what = "its number of experts".into();
        return Err(GgufError::TooLarge { what, value: experts, limit: EXPERTS_MAX });
    }
    let used = heads(header, "expert_used_count")?.unwrap_or_default().into_iter().max().unwrap_or(0);
    if used > experts || (experts > 0 && used == 0) {
        return refuse(format!("it uses {used} of {experts} experts: the file is damaged"));
    }
    Ok(())
}

/// ggml aborts where more of a head is to be rotated than it has.
fn check_rotated_size(header: &Header) -> Result<()> {
    let head = header.own_count("attention.key_length").or_else(|| {
        let heads = header.own_count("attention.head_count").filter(|heads| *heads > 0)?;
        Some(header.own_count("embedding_length")? / heads)
    });
    match (header.own_count("rope.dimension_count"), head) {
        (Some(rotated), Some(head)) if rotated > head => {
            refuse(format!("it rotates {rotated} of the {head} numbers of a head: the file is damaged"))
        }
        _ => Ok(()),
    }
}

fn check_rope(header: &Header) -> Result<()> {
    check_rotated_size(header)?;
    let full = header.own_key("rope.scaling.type");
    match header.text(&full) {
        Some(name) if !ROPE_SCALINGS.contains(&name) => {
            refuse(format!("its `{full}` is `{name}`; llama.cpp has {}", ROPE_SCALINGS.join(", ")))
        }
        _ => Ok(()),
    }
}

fn check_vocabulary(header: &Header) -> Result<()> {
    let model = match header.metadata.get("tokenizer.ggml.model") {
        Some(Value::Text(model)) => model.as_str(),
        _ if is_split(header) => return Ok(()),
        _ => return refuse("it has no tokenizer, `tokenizer.ggml.model`: convert the model again".into()),
    };
    if model == "none" || model == "no_vocab" {
        return Ok(());
    }
    let Some(tokens) = header.texts("tokenizer.ggml.tokens").filter(|tokens| !tokens.is_empty()) else {
        return refuse(
            "its vocabulary, `tokenizer.ggml.tokens`, is no list of texts: the file is damaged".into(),
        );
    };
    if model != "hybriddna" {
        check_no_duplicates(tokens)?;
    }
    check_token_list(header, "tokenizer.ggml.scores", tokens.len(), |array| {
        matches!(array, Array::F32(_) | Array::I32(_))
    })?;
    check_token_list(header, "tokenizer.ggml.token_type", tokens.len(), |array| {
        matches!(array, Array::I32(_))
    })?;
    match header.metadata.get("tokenizer.ggml.merges") {
        None | Some(Value::Array(Array::Text(_))) => Ok(()),
        Some(_) => refuse("its `tokenizer.ggml.merges` is no list of texts: the file is damaged".into()),
    }
}

/// llama.cpp aborts on two equal tokens. It gives empty ones names of their own, and those with a replacement
/// character may differ in the file.
fn check_no_duplicates(tokens: &[String]) -> Result<()> {
    let mut seen = BTreeSet::new();
    let named = |token: &&String| !token.is_empty() && !token.contains(char::REPLACEMENT_CHARACTER);
    match tokens.iter().filter(named).find(|token| !seen.insert(token.as_str())) {
        Some(token) => refuse(format!("its vocabulary has the token {token:?} twice: the file is damaged")),
        None => Ok(()),
    }
}

/// A list of which llama.cpp reads as many entries as there are tokens.
fn check_token_list(header: &Header, key: &str, tokens: usize, fits: fn(&Array) -> bool) -> Result<()> {
    let Some(value) = header.metadata.get(key) else { return Ok(()) };
    let Value::Array(array) = value else {
        return refuse(format!("its `{key}` is no list: the file is damaged"));
    };
    if !fits(array) {
        return refuse(format!("its `{key}` is a list of another type: the file is damaged"));
    }
    if array.len() < tokens {
        return refuse(format!(
            "its `{key}` has {} entries for {tokens} tokens: the file is damaged",
            array.len()
        ));
    }
    Ok(())
}

fn check_embedding_table(header: &Header) -> Result<()> {
    let Some(table) = header.tensor("token_embd.weight") else {
        // A few families can do with the output layer's table.
        if is_split(header) || is_speech(header) || header.tensor("output.weight").is_some() {
            return Ok(());
        }
        return refuse("it has no tensor `token_embd.weight`: it is no language model, or damaged".into());
    };
    let width = header.own_count("embedding_length").unwrap_or(0);
    let tokens = header.texts("tokenizer.ggml.tokens").map(|tokens| tokens.len() as u64);
    let rows = tokens.or(header.own_count("vocab_size"));
    let fits = match (table.dimensions.as_slice(), rows) {
        ([columns, found], Some(rows)) => *columns == width && *found == rows,
        ([columns, _], None) => *columns == width,
        _ => false,
    };
    if fits || is_speech(header) {
        return Ok(());
    }
    let wanted = rows.map_or_else(|| "any number of".to_owned(), |rows| rows.to_string());
    let found = &table.dimensions;
    refuse(format!(
        "its embedding table is {found:?} for {wanted} tokens of width {width}: the file is damaged"
    ))
}
