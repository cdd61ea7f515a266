//! Texts that the model writes while it learns.

use super::error::RunError;
use crate::models::Sampling;
use crate::ranks::Team;
use crate::spec::SampleSpec;
use crate::token::{Special, Tokeniser};
use crate::{Model, ModelConfig};

/// Writes a text behind the prompt; an encoder-decoder reads the prompt and writes its answer. The same step of the
/// same run writes the same text.
///
/// # Errors
///
/// The prompt has characters without tokens, or the model writes no text.
pub fn sample(
    model: &dyn Model,
    team: &Team,
    tokeniser: &Tokeniser,
    spec: &SampleSpec,
    seed: u64,
) -> Result<String, RunError> {
    let mut prompt = tokeniser.encode(&spec.prompt)?;
    let end = tokeniser.find(Special::End);
    let sampling = Sampling {
        temperature: spec.temperature,
        top_k: spec.top_k,
        seed,
        max_tokens: spec.tokens,
        stop: end.into_iter().collect(),
        ..Sampling::default()
    };
    let written = match model.config() {
        ModelConfig::Marian(_) | ModelConfig::T5(_) => {
            prompt.extend(end);
            let start = tokeniser.need(Special::Pad)?;
            team.generate(model, &[start], Some(&prompt), &sampling)?
        }
        _ => {
            if prompt.is_empty() {
                prompt.push(tokeniser.need(Special::End)?);
            }
            // The prompt and one token at least must have room.
            let room = model.config().positions().saturating_sub(1).max(1);
            prompt.drain(..prompt.len().saturating_sub(room));
            let written = team.generate(model, &prompt, None, &sampling)?;
            [prompt, written].concat()
        }
    };
    Ok(tokeniser.decode(&written)?)
}
