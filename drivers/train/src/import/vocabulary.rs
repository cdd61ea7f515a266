//! Vocabularies out of GGUF, as a `tokenizer.json`.

use drivers::gguf::{Array, Header, byte_character};
use serde_json::{Map, Value, json};

use super::{cuts, words};
use crate::token::{Tokeniser, of_numbered_characters};

/// Kinds of tokens, in llama.cpp's numbers.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// What SentencePiece puts in the place of a space, and llama.cpp before words of BERT.
const SPACE: char = '\u{2581}';

/// What the file says of its tokens.
pub(super) struct Tokens<'a> {
    pub(super) header: &'a Header,
    pub(super) names: &'a [String],
    types: Vec<i32>,
    pub(super) scores: Vec<f32>,
}

/// The vocabulary of a model.
pub(super) fn tokeniser(header: &Header) -> Result<Tokeniser, String> {
    let names = header.texts("tokenizer.ggml.tokens").ok_or("it has no vocabulary")?;
    let types = match header.array("tokenizer.ggml.token_type") {
        Some(Array::I32(types)) if types.len() == names.len() => types.clone(),
        _ => vec![NORMAL; names.len()],
    };
    let scores = match header.array("tokenizer.ggml.scores") {
        Some(Array::F32(scores)) if scores.len() == names.len() => scores.clone(),
        _ => vec![0.0; names.len()],
    };
    let tokens = Tokens { header, names, types, scores };
    let tree = match header.text("tokenizer.ggml.model") {
        Some("gpt2") => tokens.byte_pairs()?,
        Some("llama") => tokens.sentence_pieces()?,
        Some("t5") => tokens.unigram()?,
        Some("bert") => tokens.word_pieces()?,
        other => {
            let kind = other.unwrap_or("unknown");
            return Err(format!(
                "its vocabulary is of the kind `{kind}`; give the model's tokenizer.json with `tokeniser: (kind: Load(…))`"
            ));
        }
    };
    Tokeniser::from_json(&tree.to_string()).map_err(|error| error.to_string())
}

impl Tokens<'_> {
    /// Ids of tokens with their kinds, without those that only fill up rows.
    fn used(&self) -> impl Iterator<Item = (usize, &String, i32)> {
        let all = self.names.iter().zip(&self.types).enumerate();
        all.map(|(id, (name, kind))| (id, name, *kind)).filter(|(_, _, kind)| *kind != UNUSED)
    }

    fn vocabulary(&self) -> Value {
        Value::Object(self.used().map(|(id, name, _)| (name.clone(), json!(id))).collect::<Map<_, _>>())
    }

    fn id(&self, key: &str) -> Option<usize> {
        let id = self.header.count(&format!("tokenizer.ggml.{key}_token_id"))? as usize;
        (id < self.names.len()).then_some(id)
    }

    /// Tokens that are found in a text before it is cut: those that are never text, and those that users added.
    fn added(&self) -> Vec<Value> {
        let added = self.used().filter(|(_, _, kind)| [UNKNOWN, CONTROL, USER_DEFINED].contains(kind));
        added
            .map(|(id, name, kind)| {
                json!({
                    "id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": kind != USER_DEFINED
                })
            })
            .collect()
    }

    /// What is put around a text, where the file says that something is.
    fn around(&self) -> Value {
        let wants = |key: &str, usual: bool| {
            self.header.flag(&format!("tokenizer.ggml.add_{key}_token")).unwrap_or(usual)
        };
        let usual = self.header.text("tokenizer.ggml.model") == Some("llama");
        let begin = self.id("bos").filter(|_| wants("bos", usual));
        let end = self.id("eos").filter(|_| wants("eos", false));
        if begin.is_none() && end.is_none() {
            return Value::Null;
        }
        let special = |id: &usize| json!({"SpecialToken": {"id": self.names[*id], "type_id": 0}});
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        let single: Vec<Value> =
            begin.iter().map(special).chain([text]).chain(end.iter().map(special)).collect();
        let mut pair = single.clone();
        pair.push(json!({"Sequence": {"id": "B", "type_id": 1}}));
        let named: Map<String, Value> = begin
            .iter()
            .chain(&end)
            .map(|id| {
                let name = &self.names[*id];
                (name.clone(), json!({"id": name, "ids": [id], "tokens": [name]}))
            })
            .collect();
        json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": named})
    }

    fn tree(&self, model: Value, normaliser: Value, words: Value, decoder: Value, around: Value) -> Value {
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": self.added(),
            "normalizer": normaliser, "pre_tokenizer": words, "post_processor": around, "decoder": decoder,
            "model": model
        })
    }

    /// A BPE's part of the tree.
    fn model_of_pairs(&self, merges: &Value, unknown: Option<&String>, byte_fallback: bool) -> Value {
        json!({
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": unknown.is_some(), "byte_fallback": byte_fallback,
            "ignore_merges": false, "vocab": self.vocabulary(), "merges": merges
        })
    }

    /// A BPE on bytes; or characters alone, where there is not a token for every byte.
    fn byte_pairs(&self) -> Result<Value, String> {
        let merges = self.header.texts("tokenizer.ggml.merges").unwrap_or_default();
        let every = (0..=255u8).all(|byte| {
            let name = byte_character(byte).to_string();
            self.names.contains(&name)
        });
        // Bytes that no text has may be missing from a vocabulary that was learned.
        if !every && merges.is_empty() {
            let byte = |name: &String| (0..=127u8).find(|byte| *name == byte_character(*byte).to_string());
            return self.characters(|name| byte(name).map(char::from));
        }
        let level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
        });
        let pre = self.header.text("tokenizer.ggml.pre").unwrap_or("default");
        let words = cuts::of_byte_pairs(pre)?;
        Ok(self.tree(
            self.model_of_pairs(&json!(merges), None, false),
            Value::Null,
            words,
            level,
            self.around(),
        ))
    }

    /// SentencePiece's BPE: of two neighbours those are joined first whose whole has the highest score.
    fn sentence_pieces(&self) -> Result<Value, String> {
        let normal = || self.used().filter(|(_, _, kind)| *kind == NORMAL);
        if self.scores.iter().all(|score| *score == 0.0)
            && normal().all(|(_, name, _)| name.chars().count() == 1)
        {
            return self.characters(|name| name.chars().next().map(|c| if c == SPACE { ' ' } else { c }));
        }
        let unknown = self.id("unknown").map(|id| &self.names[id]);
        let model = self.model_of_pairs(&words::merges(self), unknown, true);
        let prefix = self.header.flag("tokenizer.ggml.add_space_prefix").unwrap_or(true);
        let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
        let first = json!({"type": "Prepend", "prepend": SPACE});
        let (before, strip) = match prefix {
            true => (vec![first, spaces], 1),
            false => (vec![spaces], 0),
        };
        let decoder = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": strip, "stop": 0}
        ]});
        let normaliser = json!({"type": "Sequence", "normalizers": before});
        Ok(self.tree(model, normaliser, Value::Null, decoder, self.around()))
    }

    fn unigram(&self) -> Result<Value, String> {
        let last = self.types.iter().rposition(|kind| *kind != UNUSED).map_or(0, |last| last + 1);
        let pieces: Vec<Value> = self.names[..last]
            .iter()
            .zip(&self.scores)
            .map(|(name, score)| json!([name, f64::from(*score)]))
            .collect();
        let unknown = self.types.iter().position(|kind| *kind == UNKNOWN).or_else(|| self.id("unknown"));
        let prefix = self.header.flag("tokenizer.ggml.add_space_prefix").unwrap_or(true);
        let scheme = if prefix { "always" } else { "never" };
        let spaces = json!({
            "type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": true
        });
        let model = json!({"type": "Unigram", "unk_id": unknown, "vocab": pieces, "byte_fallback": false});
        let normaliser = words::normaliser_of_unigram(self.header)?;
        Ok(self.tree(model, normaliser, spaces.clone(), spaces, self.around()))
    }

    /// WordPiece. llama.cpp marks the beginnings of words where WordPiece marks what goes on.
    fn word_pieces(&self) -> Result<Value, String> {
        let is_special = |name: &str| name.starts_with('[') && name.ends_with(']');
        let turned = |name: &String| match name.strip_prefix(SPACE) {
            Some(word) => word.to_owned(),
            None if is_special(name) => name.clone(),
            None => format!("##{name}"),
        };
        let vocabulary: Map<String, Value> =
            self.names.iter().enumerate().map(|(id, name)| (turned(name), json!(id))).collect();
        let name = |key: &str| {
            let id = self.id(key);
            id.map(|id| (id, &self.names[id])).ok_or_else(|| format!("its vocabulary has no {key} token"))
        };
        let ((class_id, class), (separator_id, separator)) =
            (name("cls").or_else(|_| name("bos"))?, name("seperator")?);
        let special = |name: &String, side: u32| json!({"SpecialToken": {"id": name, "type_id": side}});
        let text = |name: &str, side: u32| json!({"Sequence": {"id": name, "type_id": side}});
        let around = json!({
            "type": "TemplateProcessing",
            "single": [special(class, 0), text("A", 0), special(separator, 0)],
            "pair": [special(class, 0), text("A", 0), special(separator, 0), text("B", 1), special(separator, 1)],
            "special_tokens": {
                class: {"id": class, "ids": [class_id], "tokens": [class]},
                separator: {"id": separator, "ids": [separator_id], "tokens": [separator]}
            }
        });
        let model = json!({
            "type": "WordPiece", "unk_token": name("unknown")?.1, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary
        });
        let normaliser = json!({
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": true
        });
        let decoder = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
        let words = json!({"type": "BertPreTokenizer"});
        Ok(self.tree(model, normaliser, words, decoder, around))
    }

    /// A vocabulary of characters, of which `character` gives that of a token.
    fn characters(&self, character: impl Fn(&String) -> Option<char>) -> Result<Value, String> {
        let mut tokens = Vec::new();
        let mut special = Vec::new();
        for (id, name, kind) in self.used() {
            match kind {
                NORMAL => {
                    let found =
                        character(name).ok_or_else(|| format!("its token {name:?} is no character"))?;
                    tokens.push((found.to_string(), id));
                }
                _ => special.push((name.clone(), id)),
            }
        }
        Ok(of_numbered_characters(&tokens, &special))
    }
}
