//! The options of `generate` that say how tokens are chosen.

use std::path::PathBuf;

use syscalls::call::Sampling;

use super::super::failure::Failure;
use super::grammar_file;

/// How tokens are chosen. What is absent is as the call's own default.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Divides the logits; 0 takes the likeliest token always [default: 0.8]
    #[arg(long, short, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Makes the choice repeatable [default: another one each time]
    #[arg(long, short)]
    seed: Option<u64>,
    /// Keeps the K most likely tokens; 0 keeps all [default: 40]
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Keeps the likeliest tokens whose probabilities sum to P; 1 keeps all [default: 0.95]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Keeps tokens at least P times as likely as the likeliest; 0 keeps all [default: 0.05]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Divides the logits of recent tokens; 1 does nothing [default: 1]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repeat_penalty: Option<f32>,
    /// Subtracted for each time that a token occurred [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Subtracted if a token occurred at all [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// The grammar in GBNF that the text must follow
    #[arg(long, value_name = "FILE", conflicts_with = "json_schema")]
    grammar: Option<PathBuf>,
    /// The JSON schema that the text must satisfy
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,
}

impl Options {
    /// Reads the files that are named.
    ///
    /// # Errors
    ///
    /// A file cannot be read, is too long, or is no JSON.
    pub fn read(&self) -> Result<Sampling, Failure> {
        let base = Sampling::default();
        let json_schema = match &self.json_schema {
            None => None,
            Some(path) => Some(serde_json::from_str(&grammar_file(path)?).map_err(|error| {
                Failure::Message(format!("{} is no JSON schema: {error}", path.display()))
            })?),
        };
        Ok(Sampling {
            repeat_penalty: self.repeat_penalty.unwrap_or(base.repeat_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(base.frequency_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(base.presence_penalty),
            penalty_last_n: base.penalty_last_n,
            top_k: self.top_k.unwrap_or(base.top_k),
            top_p: self.top_p.unwrap_or(base.top_p),
            min_p: self.min_p.unwrap_or(base.min_p),
            temperature: self.temperature.unwrap_or(base.temperature),
            seed: self.seed,
            grammar: self.grammar.as_deref().map(grammar_file).transpose()?,
            json_schema,
        })
    }
}
