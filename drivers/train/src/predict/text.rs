//! Text: a decoder goes on, an encoder-decoder answers.

use super::{Answer, Finish, Predictor, Question};
use crate::ModelConfig;
use crate::models::{Sampling, generate as tokens_of};
use crate::run::{MicroStep, RunError, Turn};
use crate::token::Special;

/// Answers [`Question::Generate`].
pub(super) fn generate(
    predictor: &Predictor,
    question: &Question,
    turn: &mut dyn Turn,
) -> Result<Answer, RunError> {
    let Question::Generate { text, max_tokens, temperature, top_k, top_p, seed } = question else {
        unreachable!("the caller has looked")
    };
    let (tokeniser, model) = (predictor.tokeniser(), predictor.model.as_ref());
    let mut prompt = tokeniser.encode(text)?;
    let end = tokeniser.find(Special::End);
    let sampling = Sampling {
        temperature: *temperature,
        top_k: *top_k,
        top_p: *top_p,
        seed: *seed,
        max_tokens: *max_tokens,
        stop: end.into_iter().collect(),
    };
    let mut number = 0;
    let mut take = |tokens| {
        turn.take(MicroStep { step: 0, number, tokens });
        number += 1;
        true
    };
    let positions = model.config().positions();
    let written = match predictor.trained.config {
        ModelConfig::Marian(_) | ModelConfig::T5(_) => {
            prompt.extend(end);
            if prompt.len() > positions {
                let (tokens, most) = (prompt.len(), positions);
                return Err(RunError::Unfit(format!(
                    "the text has {tokens} tokens, and the model reads {most}; give less"
                )));
            }
            let start = tokeniser.need(Special::Pad)?;
            take(prompt.len());
            tokens_of(model, &[start], Some(&prompt), &sampling, |_| take(1))?
        }
        _ => {
            if prompt.is_empty() {
                prompt.push(tokeniser.need(Special::End)?);
            }
            // What it says depends on the end of a long text; one token at least must have room.
            let prompt = &prompt[prompt.len().saturating_sub(positions.saturating_sub(1).max(1))..];
            take(prompt.len());
            tokens_of(model, prompt, None, &sampling, |_| take(1))?
        }
    };
    let ended = written.last().is_some_and(|last| Some(*last) == end);
    let finish = if ended { Finish::End } else { Finish::Length };
    Ok(Answer::Text { text: tokeniser.decode(&written)?, tokens: written.len(), finish })
}
