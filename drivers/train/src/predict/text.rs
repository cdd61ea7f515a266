//! Text: a decoder goes on, an encoder-decoder answers.

use super::{Answer, Finish, Predictor, Question};
use crate::ModelConfig;
use crate::models::{Sampling, generate as tokens_of};
use crate::run::{MicroStep, RunError, Turn};
use crate::token::{Special, TokenError, Tokeniser};

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
    let end = tokeniser.find(Special::End);
    let stop: Vec<u32> = end.into_iter().chain(model.config().end()).collect();
    let sampling = Sampling {
        temperature: *temperature,
        top_k: *top_k,
        top_p: *top_p,
        seed: *seed,
        max_tokens: *max_tokens,
        stop: stop.clone(),
    };
    let mut number = 0;
    let mut take = |tokens| {
        turn.take(MicroStep { step: 0, number, tokens });
        number += 1;
        true
    };
    let positions = model.config().positions();
    let (text, written) = match predictor.trained.config {
        ModelConfig::Marian(_) | ModelConfig::T5(_) => {
            let mut source = tokeniser.encode(text)?;
            source.extend(end);
            if source.len() > positions {
                let (tokens, most) = (source.len(), positions);
                return Err(RunError::Unfit(format!(
                    "the text has {tokens} tokens, and the model reads {most}; give less"
                )));
            }
            let start = tokeniser.need(Special::Pad)?;
            take(source.len());
            let written = tokens_of(model, &[start], Some(&source), &sampling, |_| take(1))?;
            (tokeniser.decode(&written)?, written)
        }
        _ => {
            let whole = beginning(tokeniser, text, &stop)?;
            // What it says depends on the end of a long text; one token at least must have room.
            let prompt = &whole[whole.len().saturating_sub(positions.saturating_sub(1).max(1))..];
            take(prompt.len());
            let written = tokens_of(model, prompt, None, &sampling, |_| take(1))?;
            (behind(tokeniser, prompt, &written)?, written)
        }
    };
    let ended = written.last().is_some_and(|last| stop.contains(last));
    let finish = if ended { Finish::End } else { Finish::Length };
    Ok(Answer::Text { text, tokens: written.len(), finish })
}

/// A text as the model was trained to see one begin: with what the vocabulary puts before it, and without an end.
fn beginning(tokeniser: &Tokeniser, text: &str, stop: &[u32]) -> Result<Vec<u32>, RunError> {
    // It refuses what the vocabulary cannot express.
    tokeniser.encode(text)?;
    let encoding = tokeniser.inner().encode_fast(text, true);
    let mut tokens = encoding.map_err(|error| TokenError::Library(error.to_string()))?.get_ids().to_vec();
    while tokens.len() > 1 && tokens.last().is_some_and(|last| stop.contains(last)) {
        tokens.pop();
    }
    if tokens.is_empty() {
        tokens.push(tokeniser.need(Special::End)?);
    }
    Ok(tokens)
}

/// What was written, as it stands behind the prompt: a space at its beginning is lost where it is decoded alone.
fn behind(tokeniser: &Tokeniser, prompt: &[u32], written: &[u32]) -> Result<String, RunError> {
    let before = tokeniser.decode(prompt)?;
    let whole = tokeniser.decode(&[prompt, written].concat())?;
    match whole.strip_prefix(&before) {
        Some(text) => Ok(text.to_owned()),
        // A character whose bytes begin in the prompt.
        None => Ok(tokeniser.decode(written)?),
    }
}
