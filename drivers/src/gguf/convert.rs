//! Turns a sentence encoder of the BERT family from the Hugging Face layout into a GGUF.
//!
//! The folder has `config.json`, `model.safetensors` and `vocab.txt`, as sentence-transformers models do. Matrices
//! are stored in F16, tables that are added and vectors in F32.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use syscalls::Errno;

use super::header::Value;
use super::quantise::store;
use super::tensor::TensorType;
use super::vocabulary::plan_word_pieces_of_bert;
use super::write::Plan;
use crate::wire::DriverFault;

/// The largest `model.safetensors`, in bytes: no encoder of this family is larger.
const WEIGHTS_BYTES_MAX: u64 = 8 << 30;

/// The largest `config.json` or `vocab.txt`, in bytes.
const TEXT_BYTES_MAX: u64 = 64 << 20;

type Result<T> = std::result::Result<T, DriverFault>;

/// What `config.json` says that matters here.
#[derive(Debug, Deserialize)]
struct Config {
    model_type: String,
    hidden_size: u32,
    intermediate_size: u32,
    num_hidden_layers: u32,
    num_attention_heads: u32,
    max_position_embeddings: u32,
    layer_norm_eps: f32,
    vocab_size: u32,
    hidden_act: String,
}

/// Converts the model in `folder` and writes it to `out`.
///
/// # Errors
///
/// ENOENT for a file that is missing, ENOEXEC for one that is no such model, EIO where it cannot be written.
pub fn bert_from_hf(folder: &Path, out: &Path) -> Result<()> {
    let config = read_config(folder)?;
    let vocabulary = read_vocabulary(folder, &config)?;
    let weights_path = folder.join("model.safetensors");
    let bytes = read_bounded(&weights_path, WEIGHTS_BYTES_MAX)?;
    let weights = SafeTensors::deserialize(&bytes).map_err(|error| bad(&weights_path, error.to_string()))?;
    let names = tensor_names(&config, &weights, &weights_path)?;

    let mut plan = Plan::new("bert");
    plan_metadata(&mut plan, &config, folder);
    plan_word_pieces_of_bert(&mut plan, vocabulary);
    plan_tensors(&mut plan, &names, &weights, &config).map_err(|why| bad(&weights_path, why))?;
    let sources: BTreeMap<&str, &str> = names.iter().map(|(to, from)| (to.as_str(), from.as_str())).collect();
    plan.write(out, |tensor, file| {
        let view = weights.tensor(sources[tensor.name.as_str()]).map_err(io::Error::other)?;
        let numbers = numbers(view.dtype(), view.data()).map_err(io::Error::other)?;
        let mut stored = Vec::with_capacity(tensor.bytes as usize);
        store(tensor.kind, &numbers, &mut stored);
        file.write_all(&stored)
    })
    .map_err(|error| DriverFault::new(Errno::EIO, format!("{}: cannot be written: {error}", out.display())))
}

fn bad(path: &Path, why: String) -> DriverFault {
    DriverFault::new(Errno::ENOEXEC, format!("{}: {why}", path.display()))
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let missing = |error: io::Error| {
        let errno = match error.kind() {
            io::ErrorKind::NotFound => Errno::ENOENT,
            io::ErrorKind::PermissionDenied => Errno::EACCES,
            _ => Errno::EIO,
        };
        DriverFault::new(errno, format!("{}: {error}", path.display()))
    };
    let bytes = fs::metadata(path).map_err(missing)?.len();
    if bytes > limit {
        return Err(bad(path, format!("it has {bytes} bytes; the limit is {limit}")));
    }
    fs::read(path).map_err(missing)
}

fn read_config(folder: &Path) -> Result<Config> {
    let path = folder.join("config.json");
    let json = read_bounded(&path, TEXT_BYTES_MAX)?;
    let config: Config = serde_json::from_slice(&json).map_err(|error| bad(&path, error.to_string()))?;
    if config.model_type != "bert" {
        let kind = &config.model_type;
        return Err(bad(&path, format!("its model type is `{kind}`; only `bert` can be converted here")));
    }
    if config.hidden_act != "gelu" {
        return Err(bad(&path, format!("its activation is `{}`; llama.cpp has `gelu`", config.hidden_act)));
    }
    let heads = config.num_attention_heads;
    if heads == 0 || !config.hidden_size.is_multiple_of(heads) || config.num_hidden_layers == 0 {
        return Err(bad(&path, format!("a width of {} cannot have {heads} heads", config.hidden_size)));
    }
    Ok(config)
}

fn read_vocabulary(folder: &Path, config: &Config) -> Result<Vec<String>> {
    let path = folder.join("vocab.txt");
    let text = String::from_utf8(read_bounded(&path, TEXT_BYTES_MAX)?)
        .map_err(|_| bad(&path, "it is not UTF-8".into()))?;
    let tokens: Vec<String> = text.lines().map(str::to_owned).collect();
    if tokens.len() != config.vocab_size as usize {
        let (found, wanted) = (tokens.len(), config.vocab_size);
        return Err(bad(&path, format!("it has {found} tokens where config.json says {wanted}")));
    }
    Ok(tokens)
}

fn plan_metadata(plan: &mut Plan, config: &Config, folder: &Path) {
    let name = folder.file_name().map_or_else(|| "bert".into(), |name| name.to_string_lossy().into_owned());
    plan.set("general.name", Value::Text(name));
    let sizes = [
        ("block_count", config.num_hidden_layers),
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_attention_heads),
        ("pooling_type", pooling(folder)),
    ];
    for (key, size) in sizes {
        plan.set(&format!("bert.{key}"), Value::U32(size));
    }
    plan.set("bert.attention.layer_norm_epsilon", Value::F32(config.layer_norm_eps));
    plan.set("bert.attention.causal", Value::Bool(false));
}

/// How the tokens' vectors become one, in llama.cpp's numbers: the mean unless the model asks for the first token.
fn pooling(folder: &Path) -> u32 {
    #[derive(Deserialize)]
    struct Pooling {
        #[serde(default)]
        pooling_mode_cls_token: bool,
    }
    let file = fs::read(folder.join("1_Pooling/config.json")).ok();
    let config: Option<Pooling> = file.and_then(|json| serde_json::from_slice(&json).ok());
    if config.is_some_and(|config| config.pooling_mode_cls_token) { 2 } else { 1 }
}

/// Pairs of GGUF names and the folder's names, in the order of the file.
fn tensor_names(config: &Config, weights: &SafeTensors<'_>, path: &Path) -> Result<Vec<(String, String)>> {
    let prefix = if weights.tensor("bert.embeddings.word_embeddings.weight").is_ok() { "bert." } else { "" };
    let mut names = vec![
        ("token_embd.weight".to_owned(), format!("{prefix}embeddings.word_embeddings.weight")),
        ("position_embd.weight".to_owned(), format!("{prefix}embeddings.position_embeddings.weight")),
        ("token_types.weight".to_owned(), format!("{prefix}embeddings.token_type_embeddings.weight")),
    ];
    let mut both = |to: String, from: String| {
        for part in ["weight", "bias"] {
            names.push((format!("{to}.{part}"), format!("{from}.{part}")));
        }
    };
    both("token_embd_norm".into(), format!("{prefix}embeddings.LayerNorm"));
    for layer in 0..config.num_hidden_layers {
        for (to, from) in [
            ("attn_q", "attention.self.query"),
            ("attn_k", "attention.self.key"),
            ("attn_v", "attention.self.value"),
            ("attn_output", "attention.output.dense"),
            ("attn_output_norm", "attention.output.LayerNorm"),
            ("ffn_up", "intermediate.dense"),
            ("ffn_down", "output.dense"),
            ("layer_output_norm", "output.LayerNorm"),
        ] {
            both(format!("blk.{layer}.{to}"), format!("{prefix}encoder.layer.{layer}.{from}"));
        }
    }
    match names.iter().find(|(_, from)| weights.tensor(from).is_err()) {
        Some((_, from)) => Err(bad(path, format!("it has no tensor `{from}`, which a BERT encoder needs"))),
        None => Ok(names),
    }
}

fn plan_tensors(
    plan: &mut Plan,
    names: &[(String, String)],
    weights: &SafeTensors<'_>,
    config: &Config,
) -> std::result::Result<(), String> {
    for (to, from) in names {
        let view = weights.tensor(from).map_err(|error| error.to_string())?;
        let sizes: Vec<u64> = view.shape().iter().rev().map(|size| *size as u64).collect();
        let wanted = expected_sizes(to, config);
        if wanted.contains(&0) || sizes != wanted {
            return Err(format!("tensor `{from}` is {sizes:?} where config.json says {wanted:?}"));
        }
        let added = to.starts_with("position") || to.starts_with("token_types");
        let kind = if sizes.len() == 1 || added { TensorType::F32 } else { TensorType::F16 };
        plan.tensor(to, &sizes, kind);
    }
    Ok(())
}

/// The sizes of a tensor by its GGUF name, the fastest-moving first.
fn expected_sizes(name: &str, config: &Config) -> Vec<u64> {
    let (width, inner) = (u64::from(config.hidden_size), u64::from(config.intermediate_size));
    let weight = name.ends_with(".weight");
    match name {
        "token_embd.weight" => vec![width, config.vocab_size.into()],
        "position_embd.weight" => vec![width, config.max_position_embeddings.into()],
        "token_types.weight" => vec![width, 2],
        _ if name.contains("norm") => vec![width],
        _ if name.contains("ffn_up") => {
            if weight {
                vec![width, inner]
            } else {
                vec![inner]
            }
        }
        _ if name.contains("ffn_down") => {
            if weight {
                vec![inner, width]
            } else {
                vec![width]
            }
        }
        _ => {
            if weight {
                vec![width, width]
            } else {
                vec![width]
            }
        }
    }
}

fn numbers(kind: Dtype, bytes: &[u8]) -> std::result::Result<Vec<f32>, String> {
    match kind {
        Dtype::F32 => Ok(bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect()),
        Dtype::F16 => Ok(bytes.as_chunks().0.iter().map(|x| f16::from_le_bytes(*x).to_f32()).collect()),
        Dtype::BF16 => Ok(bytes.as_chunks().0.iter().map(|x| bf16::from_le_bytes(*x).to_f32()).collect()),
        other => Err(format!("a tensor of type {other:?}; F32, F16 and BF16 can be converted")),
    }
}
