//! GGUF, version 3, as llama.cpp loads it.

use std::io;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use drivers::gguf::write::Plan;
use drivers::gguf::{TensorType, Value};

use super::names::{DIVISORS, OUTPUT, Turn, place};
use super::{ExportError, Exported, vocabulary};
use crate::ModelConfig;
use crate::models::config::LlamaConfig;
use crate::models::rope::RopeScaling;
use crate::ops::rope::Rotation;

/// How matrices are stored; vectors and tables that are added are always in 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matrices {
    #[default]
    F32,
    F16,
    BF16,
}

impl Matrices {
    fn kind(self) -> TensorType {
        match self {
            Matrices::F32 => TensorType::F32,
            Matrices::F16 => TensorType::F16,
            Matrices::BF16 => TensorType::BF16,
        }
    }
}

/// The mean of all tokens' vectors, in llama.cpp's numbers: how sentence encoders are used.
const POOLING_MEAN: u32 = 1;

/// Writes the file.
pub(super) fn write(model: &Exported<'_>, matrices: Matrices, to: &Path) -> Result<(), ExportError> {
    let tensors = turned(model)?;
    let mut plan = Plan::new(architecture(model.config)?);
    plan.set("general.name", Value::Text(model.name.to_owned()));
    metadata(&mut plan, model.config);
    if let ModelConfig::Llama(config) | ModelConfig::Qwen2(config) = model.config {
        scaling(&mut plan, (architecture(model.config)?, config))?;
    }
    vocabulary::plan(&mut plan, model.tokeniser, model.config.vocabulary())?;
    for (name, tensor) in &tensors {
        let sizes: Vec<u64> = tensor.dims().iter().rev().map(|size| *size as u64).collect();
        let added = ["position_embd.", "token_types.", "attn_rel_b."].iter().any(|part| name.contains(part));
        let kind = if sizes.len() == 1 || added { TensorType::F32 } else { matrices.kind() };
        plan.tensor(name, &sizes, kind);
    }
    let mut tensors = tensors.iter();
    plan.write(to, |about, out| {
        let (_, tensor) = tensors.next().expect("the plan has the tensors in this order");
        out.write_all(&stored(tensor, about.kind).map_err(io::Error::other)?)
    })
    .map_err(ExportError::io(to))
}

fn architecture(config: &ModelConfig) -> Result<&'static str, ExportError> {
    match config {
        ModelConfig::Gpt2(_) => Ok("gpt2"),
        ModelConfig::Llama(_) => Ok("llama"),
        ModelConfig::Qwen2(_) => Ok("qwen2"),
        ModelConfig::Bert(_) => Ok("bert"),
        ModelConfig::T5(_) => Ok("t5"),
        ModelConfig::Marian(_) => Err(ExportError::NoModel("encoder-decoder of the original form")),
    }
}

/// Says how a Llama's positions are scaled. A table of factors is a tensor, which llama.cpp reads for Llama alone.
fn scaling(plan: &mut Plan, (architecture, config): (&'static str, &LlamaConfig)) -> Result<(), ExportError> {
    let Some(scaling) = config.scaling() else { return Ok(()) };
    let mut set = |key: &str, value: Value| plan.set(&format!("{architecture}.rope.scaling.{key}"), value);
    match scaling.kind() {
        "llama3" if architecture == "llama" => return Ok(()),
        "llama3" => return Err(ExportError::NoModel("Qwen2 whose positions are scaled as Llama 3's")),
        "yarn" => {
            // llama.cpp has its own numbers where these are not the usual ones.
            let usual = RopeScaling {
                rope_type: scaling.rope_type.clone(),
                kind: scaling.kind.clone(),
                factor: scaling.factor,
                original_max_position_embeddings: scaling.original_max_position_embeddings,
                ..RopeScaling::default()
            };
            let positions = config.max_position_embeddings;
            let rotation =
                |scaling: &RopeScaling| scaling.rotation(config.head_size(), config.theta(), positions);
            if rotation(scaling)? != rotation(&usual)? {
                return Err(ExportError::NoModel("positions that are scaled by YaRN with such numbers"));
            }
            let original = scaling.original_max_position_embeddings.unwrap_or(positions);
            set("original_context_length", Value::U32(original as u32));
        }
        _ => {}
    }
    let original = scaling.original_max_position_embeddings.unwrap_or(config.max_position_embeddings);
    let factor = scaling.factor.unwrap_or(config.max_position_embeddings as f64 / original as f64);
    set("type", Value::Text(scaling.kind().to_owned()));
    set("factor", Value::F32(factor as f32));
    Ok(())
}

/// What the frequencies of a Llama are divided by, where a table says so.
fn divisors(config: &ModelConfig) -> Result<Option<Tensor>, ExportError> {
    let ModelConfig::Llama(c) = config else { return Ok(None) };
    if c.scaling().is_none_or(|scaling| scaling.kind() != "llama3") {
        return Ok(None);
    }
    let (plain, scaled) = (Rotation::plain(c.head_size(), c.theta()), c.rotation()?);
    let pairs = plain.frequencies.iter().zip(&scaled.frequencies);
    let table: Vec<f32> = pairs.map(|(plain, scaled)| (plain / scaled) as f32).collect();
    let count = table.len();
    Ok(Some(Tensor::from_vec(table, count, &Device::Cpu).map_err(crate::Error::from)?))
}

fn metadata(plan: &mut Plan, config: &ModelConfig) {
    if let ModelConfig::Llama(c) | ModelConfig::Qwen2(c) = config {
        let architecture = if matches!(config, ModelConfig::Llama(_)) { "llama" } else { "qwen2" };
        return of_llama(plan, architecture, c);
    }
    let mut count = |key: &str, value: usize| plan.set(key, Value::U32(value as u32));
    match config {
        ModelConfig::Gpt2(c) => {
            count("gpt2.block_count", c.n_layer);
            count("gpt2.context_length", c.n_positions);
            count("gpt2.embedding_length", c.n_embd);
            count("gpt2.feed_forward_length", c.n_inner.unwrap_or(4 * c.n_embd));
            count("gpt2.attention.head_count", c.n_head);
            plan.set("gpt2.attention.layer_norm_epsilon", Value::F32(c.layer_norm_epsilon as f32));
        }
        ModelConfig::Bert(c) => {
            count("bert.block_count", c.num_hidden_layers);
            count("bert.context_length", c.max_position_embeddings);
            count("bert.embedding_length", c.hidden_size);
            count("bert.feed_forward_length", c.intermediate_size);
            count("bert.attention.head_count", c.num_attention_heads);
            count("bert.pooling_type", POOLING_MEAN as usize);
            plan.set("bert.attention.layer_norm_epsilon", Value::F32(c.layer_norm_eps as f32));
            plan.set("bert.attention.causal", Value::Bool(false));
        }
        ModelConfig::T5(c) => {
            /// T5 has no limit; this is what it was trained with.
            const CONTEXT: usize = 512;
            count("t5.block_count", c.num_layers);
            count("t5.decoder_block_count", c.num_decoder_layers.unwrap_or(c.num_layers));
            count("t5.context_length", CONTEXT);
            count("t5.embedding_length", c.d_model);
            count("t5.feed_forward_length", c.d_ff);
            count("t5.attention.head_count", c.num_heads);
            count("t5.attention.key_length", c.d_kv);
            count("t5.attention.value_length", c.d_kv);
            count("t5.attention.relative_buckets_count", c.relative_attention_num_buckets);
            count("t5.decoder_start_token_id", c.decoder_start_token_id.unwrap_or(0) as usize);
            plan.set("t5.attention.layer_norm_rms_epsilon", Value::F32(c.layer_norm_epsilon as f32));
            plan.set("t5.attention.layer_norm_epsilon", Value::F32(c.layer_norm_epsilon as f32));
        }
        ModelConfig::Llama(_) | ModelConfig::Qwen2(_) | ModelConfig::Marian(_) => {}
    }
}

fn of_llama(plan: &mut Plan, architecture: &str, c: &LlamaConfig) {
    for (key, value) in [
        ("block_count", c.num_hidden_layers),
        ("context_length", c.max_position_embeddings),
        ("embedding_length", c.hidden_size),
        ("feed_forward_length", c.intermediate_size),
        ("attention.head_count", c.num_attention_heads),
        ("attention.head_count_kv", c.kv_heads()),
        ("attention.key_length", c.head_size()),
        ("attention.value_length", c.head_size()),
        ("rope.dimension_count", c.head_size()),
    ] {
        plan.set(&format!("{architecture}.{key}"), Value::U32(value as u32));
    }
    plan.set(&format!("{architecture}.rope.freq_base"), Value::F32(c.theta() as f32));
    let epsilon = Value::F32(c.rms_norm_eps as f32);
    plan.set(&format!("{architecture}.attention.layer_norm_rms_epsilon"), epsilon);
}

/// The tensors under their names in GGUF, turned as it has them.
fn turned(model: &Exported<'_>) -> Result<Vec<(String, Tensor)>, ExportError> {
    let mut found: Vec<(String, Tensor)> = Vec::new();
    found.extend(divisors(model.config)?.map(|table| (DIVISORS.to_owned(), table)));
    let mut weights = model.weights.clone();
    // A tied T5 scales what goes into its table; llama.cpp does not, so the table it reads out by is scaled.
    let tied = match model.config {
        ModelConfig::T5(c) if c.tie_word_embeddings => model.weights.get("shared.weight"),
        _ => None,
    };
    let scale = Turn::Scaled((model.config.width() as f64).powf(-0.5));
    if let Some(table) = tied {
        weights.insert(OUTPUT.into(), table.clone());
    }
    for (name, tensor) in &weights {
        if let Some((place, turn)) = place(model.config, name)? {
            let turn = if name == OUTPUT && tied.is_some() { scale } else { turn };
            found.push((place, turn_tensor(tensor, turn).map_err(crate::Error::from)?));
        }
    }
    Ok(found)
}

fn turn_tensor(tensor: &Tensor, turn: Turn) -> candle_core::Result<Tensor> {
    let tensor = tensor.to_dtype(DType::F32)?;
    match turn {
        Turn::Same => tensor.contiguous(),
        Turn::Transposed => tensor.t()?.contiguous(),
        Turn::Scaled(factor) => tensor.affine(factor, 0.0),
        Turn::Interleaved { heads } => {
            let shape = tensor.dims().to_vec();
            let half = shape[0] / heads / 2;
            let rest: usize = shape[1..].iter().product();
            tensor.reshape((heads, 2, half, rest))?.transpose(1, 2)?.contiguous()?.reshape(shape)
        }
    }
}

fn stored(tensor: &Tensor, kind: TensorType) -> candle_core::Result<Vec<u8>> {
    let numbers = tensor.flatten_all()?.to_vec1::<f32>()?;
    Ok(match kind {
        TensorType::F16 => {
            numbers.iter().flat_map(|number| half::f16::from_f32(*number).to_le_bytes()).collect()
        }
        TensorType::BF16 => {
            numbers.iter().flat_map(|number| half::bf16::from_f32(*number).to_le_bytes()).collect()
        }
        _ => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
    })
}
