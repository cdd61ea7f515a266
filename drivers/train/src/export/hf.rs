//! The Hugging Face layout.

use std::fs;
use std::path::Path;

use drivers::whole::Beside;
use serde_json::{Map, Value, json};

use super::{ExportError, Exported};
use crate::checkpoint::write_tensors;
use crate::token::Special;

/// Writes the folder.
pub(super) fn write(model: &Exported<'_>, folder: &Path) -> Result<(), ExportError> {
    fs::create_dir_all(folder).map_err(ExportError::io(folder))?;
    let weights = folder.join("model.safetensors");
    let mut beside = Beside::default();
    let written = beside.write(&weights, |partial| write_tensors(partial, model.weights));
    written.map_err(ExportError::io(&weights))?;
    let tokeniser = model.tokeniser.to_json()?;
    let mut texts = vec![
        ("config.json", model.config.to_json()?),
        ("tokenizer_config.json", tokeniser_config(model).to_string()),
    ];
    if let Some(vocabulary) = word_pieces(&tokeniser) {
        texts.push(("vocab.txt", vocabulary));
    }
    texts.push(("tokenizer.json", tokeniser));
    for (name, text) in texts {
        let path = folder.join(name);
        beside.write(&path, |partial| fs::write(partial, text)).map_err(ExportError::io(&path))?;
    }
    beside.finish().map_err(|(path, error)| ExportError::Io { path, error })
}

/// What Hugging Face's `AutoTokenizer` wants beside the tokeniser.
fn tokeniser_config(model: &Exported<'_>) -> Value {
    let mut config = Map::new();
    config.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
    let positions = model.config.positions();
    if positions != usize::MAX {
        config.insert("model_max_length".into(), json!(positions));
    }
    for (name, special) in [
        ("eos_token", Special::End),
        ("pad_token", Special::Pad),
        ("unk_token", Special::Unknown),
        ("cls_token", Special::Class),
        ("sep_token", Special::Separator),
        ("mask_token", Special::Mask),
    ] {
        if let Some(token) = model.tokeniser.find(special).and_then(|id| model.tokeniser.token(id)) {
            config.insert(name.into(), json!(token));
        }
    }
    Value::Object(config)
}

/// The tokens of a WordPiece vocabulary in their order, as BERT's `vocab.txt` has them.
fn word_pieces(tokeniser: &str) -> Option<String> {
    let tree: Value = serde_json::from_str(tokeniser).ok()?;
    if tree["model"]["type"] != "WordPiece" {
        return None;
    }
    let mut tokens: Vec<(u64, &String)> = tree["model"]["vocab"]
        .as_object()?
        .iter()
        .filter_map(|(token, id)| Some((id.as_u64()?, token)))
        .collect();
    tokens.sort_unstable();
    Some(tokens.into_iter().map(|(_, token)| format!("{token}\n")).collect())
}
