//! Configurations out of GGUF's metadata and the shapes of its tensors.

use std::path::Path;

use drivers::gguf::{Header, Value};

use super::{ImportError, weights};
use crate::ModelConfig;
use crate::export::names::DIVISORS;
use crate::models::config::{BertConfig, Ends, Gpt2Config, LlamaConfig, T5Config, T5FeedForward};
use crate::models::rope::RopeScaling;
use crate::ops::rope::Rotation;

/// The configuration of a model.
pub(super) fn config(path: &Path, header: &Header) -> Result<ModelConfig, ImportError> {
    let about = About(header);
    let config = match header.architecture.as_str() {
        "gpt2" => gpt2(&about),
        "llama" => llama(&about, path).map(ModelConfig::Llama),
        "qwen2" => llama(&about, path).map(qwen2),
        "bert" => bert(&about),
        "t5" => t5(&about, path),
        other => {
            Err(format!("its architecture is `{other}`; gpt2, llama, qwen2, bert and t5 can be trained"))
        }
    };
    let config = config.map_err(|why| ImportError::file(path, why))?;
    config.check().map_err(|error| ImportError::file(path, error))?;
    Ok(config)
}

/// A header, asked for what a configuration needs.
struct About<'a>(&'a Header);

impl About<'_> {
    /// A number that must be there, under the architecture's own prefix.
    fn need(&self, key: &str) -> Result<usize, String> {
        self.0
            .own_count(key)
            .map(|count| count as usize)
            .ok_or_else(|| format!("its metadata has no number `{}`", self.0.own_key(key)))
    }

    fn count(&self, key: &str) -> Option<usize> {
        self.0.own_count(key).map(|count| count as usize)
    }

    /// A number with a fraction. It is stored in 32 bits, and meant as the shortest decimal that is stored so.
    fn real(&self, key: &str) -> Option<f64> {
        match self.0.metadata.get(&self.0.own_key(key))? {
            Value::F32(number) => number.to_string().parse().ok(),
            Value::F64(number) => Some(*number),
            _ => None,
        }
    }

    fn epsilon(&self, key: &str) -> Result<f64, String> {
        self.real(key).ok_or_else(|| format!("its metadata has no number `{}`", self.0.own_key(key)))
    }

    /// Rows of a table that must be there.
    fn rows(&self, name: &str) -> Result<usize, String> {
        let dimensions = self.0.tensor(name).map(|tensor| tensor.dimensions.as_slice());
        match dimensions {
            Some([_, rows]) => Ok(*rows as usize),
            _ => Err(format!("it has no table `{name}`")),
        }
    }

    fn has(&self, tensor: &str) -> bool {
        self.0.tensor(tensor).is_some()
    }

    fn token(&self, name: &str) -> Option<u32> {
        self.0.count(&format!("tokenizer.ggml.{name}_token_id")).and_then(|id| u32::try_from(id).ok())
    }
}

fn gpt2(about: &About<'_>) -> Result<ModelConfig, String> {
    let (width, inner) = (about.need("embedding_length")?, about.need("feed_forward_length")?);
    Ok(ModelConfig::Gpt2(Gpt2Config {
        vocab_size: about.rows("token_embd.weight")?,
        n_positions: about.rows("position_embd.weight")?,
        n_embd: width,
        n_layer: about.need("block_count")?,
        n_head: about.need("attention.head_count")?,
        n_inner: (inner != 4 * width).then_some(inner),
        resid_pdrop: 0.0,
        embd_pdrop: 0.0,
        attn_pdrop: 0.0,
        layer_norm_epsilon: about.epsilon("attention.layer_norm_epsilon")?,
        tie_word_embeddings: !about.has("output.weight"),
        bos_token_id: about.token("bos"),
        eos_token_id: about.token("eos"),
        ..Gpt2Config::default()
    }))
}

fn llama(about: &About<'_>, path: &Path) -> Result<LlamaConfig, String> {
    if about.count("expert_count").is_some_and(|experts| experts > 0) {
        return Err("it is a mixture of experts, which is not trained here".into());
    }
    let (width, heads) = (about.need("embedding_length")?, about.need("attention.head_count")?);
    let own = width / heads.max(1);
    let size = about.count("attention.key_length").unwrap_or(own);
    let turned = about.count("rope.dimension_count").unwrap_or(size);
    if turned != size {
        return Err(format!("it turns {turned} of the {size} numbers of a head by position; all must be"));
    }
    let mut config = LlamaConfig {
        vocab_size: about.rows("token_embd.weight")?,
        hidden_size: width,
        intermediate_size: about.need("feed_forward_length")?,
        num_hidden_layers: about.need("block_count")?,
        num_attention_heads: heads,
        num_key_value_heads: about.count("attention.head_count_kv"),
        head_dim: (size != own).then_some(size),
        max_position_embeddings: about.need("context_length")?,
        rms_norm_eps: about.epsilon("attention.layer_norm_rms_epsilon")?,
        rope_theta: about.real("rope.freq_base").unwrap_or(10_000.0),
        attention_bias: about.has("blk.0.attn_q.bias"),
        mlp_bias: about.has("blk.0.ffn_up.bias"),
        tie_word_embeddings: !about.has("output.weight"),
        bos_token_id: about.token("bos"),
        eos_token_id: about.token("eos").map(Ends::One),
        ..LlamaConfig::default()
    };
    config.rope_scaling = scaling(about, path, &config)?.map(Box::new);
    Ok(config)
}

fn qwen2(form: LlamaConfig) -> ModelConfig {
    let architectures = vec!["Qwen2ForCausalLM".into()];
    ModelConfig::Qwen2(LlamaConfig { architectures, attention_bias: false, mlp_bias: false, ..form })
}

/// How positions are scaled.
fn scaling(about: &About<'_>, path: &Path, config: &LlamaConfig) -> Result<Option<RopeScaling>, String> {
    let kind = about.0.text(&about.0.own_key("rope.scaling.type")).filter(|kind| *kind != "none");
    let scaling = RopeScaling { rope_type: kind.map(str::to_owned), ..RopeScaling::default() };
    match kind {
        None if about.has(DIVISORS) => by_table(about, path, config).map(Some),
        None => Ok(None),
        Some("linear") => Ok(Some(RopeScaling { factor: about.real("rope.scaling.factor"), ..scaling })),
        Some("yarn") => Ok(Some(RopeScaling {
            factor: about.real("rope.scaling.factor"),
            original_max_position_embeddings: about.count("rope.scaling.original_context_length"),
            ..scaling
        })),
        Some(kind) => Err(format!("its positions are scaled by `{kind}`; linear, llama3 and yarn are known")),
    }
}

/// Llama 3's scaling, of which the file has what frequencies are divided by, but not the numbers that this comes of. Of
/// those all published models have the same but for the factor, which is the greatest divisor.
fn by_table(about: &About<'_>, path: &Path, config: &LlamaConfig) -> Result<RopeScaling, String> {
    /// Of the published models; and of others, by the length that the file says.
    const ORIGINAL: usize = 8192;
    let found = weights::read_named(path, about.0, DIVISORS).map_err(|error| error.to_string())?;
    let greatest = found.iter().copied().fold(1.0, f32::max);
    let plain = Rotation::plain(config.head_size(), config.theta());
    let mut lengths = vec![ORIGINAL];
    lengths.extend(about.count("rope.scaling.original_context_length"));
    lengths.extend((0..32).map(|power| 1usize << power));
    for original in lengths {
        let scaling = RopeScaling {
            rope_type: Some("llama3".into()),
            factor: Some(f64::from(greatest)),
            low_freq_factor: Some(1.0),
            high_freq_factor: Some(4.0),
            original_max_position_embeddings: Some(original),
            ..RopeScaling::default()
        };
        let rotation = scaling.rotation(config.head_size(), config.theta(), config.max_position_embeddings);
        let rotation = rotation.map_err(|error| error.to_string())?;
        let pairs = plain.frequencies.iter().zip(&rotation.frequencies).zip(&found);
        let same = |((plain, scaled), found): ((&f64, &f64), &f32)| {
            (plain / scaled - f64::from(*found)).abs() <= 1e-4 * f64::from(*found)
        };
        if found.len() == plain.frequencies.len() && pairs.into_iter().all(same) {
            return Ok(scaling);
        }
    }
    Err(format!(
        "its positions are scaled by a table, `{DIVISORS}`, that is none of Llama 3; give the model's folder"
    ))
}

fn bert(about: &About<'_>) -> Result<ModelConfig, String> {
    Ok(ModelConfig::Bert(BertConfig {
        architectures: vec!["BertModel".into()],
        vocab_size: about.rows("token_embd.weight")?,
        hidden_size: about.need("embedding_length")?,
        num_hidden_layers: about.need("block_count")?,
        num_attention_heads: about.need("attention.head_count")?,
        intermediate_size: about.need("feed_forward_length")?,
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        max_position_embeddings: about.rows("position_embd.weight")?,
        type_vocab_size: about.rows("token_types.weight")?,
        layer_norm_eps: about.epsilon("attention.layer_norm_epsilon")?,
        pad_token_id: about.token("padding"),
        ..BertConfig::default()
    }))
}

fn t5(about: &About<'_>, path: &Path) -> Result<ModelConfig, String> {
    let (width, layers) = (about.need("embedding_length")?, about.need("block_count")?);
    let decoder_layers = about.count("decoder_block_count").filter(|count| *count != layers);
    // llama.cpp scales nothing that goes into the output layer. A table that is the tokens' own, but scaled, is how a
    // tied T5 is written for it.
    let scale = (width as f64).powf(-0.5);
    let tied = !about.has("output.weight")
        || weights::is_scaled(path, about.0, ["token_embd.weight", "output.weight"], scale)
            .map_err(|error| error.to_string())?;
    Ok(ModelConfig::T5(T5Config {
        vocab_size: about.rows("token_embd.weight")?,
        d_model: width,
        d_kv: about.need("attention.key_length")?,
        d_ff: about.need("feed_forward_length")?,
        num_layers: layers,
        num_decoder_layers: decoder_layers,
        num_heads: about.need("attention.head_count")?,
        relative_attention_num_buckets: about.need("attention.relative_buckets_count")?,
        dropout_rate: 0.0,
        layer_norm_epsilon: about.epsilon("attention.layer_norm_rms_epsilon")?,
        feed_forward_proj: match about.has("enc.blk.0.ffn_gate.weight") {
            true => T5FeedForward::GatedGelu,
            false => T5FeedForward::Relu,
        },
        tie_word_embeddings: tied,
        scale_decoder_outputs: (!tied).then_some(false),
        pad_token_id: about.token("padding"),
        eos_token_id: about.token("eos"),
        decoder_start_token_id: about.count("decoder_start_token_id").map(|id| id as u32),
        ..T5Config::default()
    }))
}
