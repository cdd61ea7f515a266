//! BERT's configuration.

use serde::{Deserialize, Serialize};

use super::Activation;

/// Hugging Face's `BertConfig`. `architectures` says which head the model has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BertConfig {
    pub architectures: Vec<String>,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub hidden_act: Activation,
    pub hidden_dropout_prob: f64,
    pub attention_probs_dropout_prob: f64,
    pub max_position_embeddings: usize,
    pub type_vocab_size: usize,
    pub initializer_range: f64,
    pub layer_norm_eps: f64,
    pub pad_token_id: Option<u32>,
    /// Names of the classes by number, for classifiers; there are as many classes.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "by_number")]
    pub id2label: Option<std::collections::BTreeMap<u32, String>>,
    /// What a classifier of texts learns; one class of each where it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem_type: Option<Problem>,
}

/// What a classifier of texts learns, by Hugging Face's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Problem {
    /// One class of each.
    #[serde(rename = "single_label_classification")]
    Class,
    /// Any number of classes of each.
    #[serde(rename = "multi_label_classification")]
    Classes,
    /// A number of each.
    #[serde(rename = "regression")]
    Number,
}

/// Names by number, whose numbers are strings in JSON: inside of an enum serde does not turn them back by itself.
fn by_number<'de, D>(
    from: D,
) -> std::result::Result<Option<std::collections::BTreeMap<u32, String>>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    let names = Option::<std::collections::BTreeMap<String, String>>::deserialize(from)?;
    let number = |(number, name): (String, String)| match number.parse::<u32>() {
        Ok(number) => Ok((number, name)),
        Err(error) => Err(serde::de::Error::custom(format!("label {number}: {error}"))),
    };
    names.map(|names| names.into_iter().map(number).collect::<std::result::Result<_, D::Error>>()).transpose()
}

impl BertConfig {
    /// The first of its architectures, by which it has its head; it guesses tokens where none is named.
    pub fn architecture(&self) -> &str {
        self.architectures.first().map_or("BertForMaskedLM", String::as_str)
    }

    /// Whether it guesses tokens.
    pub fn guesses(&self) -> bool {
        ["BertForMaskedLM", "BertForPreTraining"].contains(&self.architecture())
    }

    /// How many classes a classifier has.
    pub fn classes(&self) -> usize {
        self.id2label.as_ref().map_or(2, std::collections::BTreeMap::len)
    }
}

impl Default for BertConfig {
    fn default() -> Self {
        BertConfig {
            architectures: vec!["BertForMaskedLM".into()],
            vocab_size: 30_522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            pad_token_id: Some(0),
            id2label: None,
            problem_type: None,
        }
    }
}
