//! Text: a decoder goes on, an encoder-decoder answers.

use super::{Answer, Finish, Predictor, Prompts, Question, Written};
use crate::ModelConfig;
use crate::models::{Sampling, generate as tokens_of};
use crate::run::{MicroStep, RunError, Turn};
use crate::token::{Special, TokenError, Tokeniser};

/// Texts that are computed together: enough for the products of matrices to be worth it, few enough for their caches.
const TOGETHER: usize = 32;

/// The most texts of one question.
const TEXTS_MAX: usize = 4096;

/// Answers [`Question::Generate`].
pub(super) fn generate(
    predictor: &Predictor,
    question: &Question,
    turn: &mut dyn Turn,
) -> Result<Answer, RunError> {
    let Question::Generate { text, max_tokens, temperature, top_k, top_p, seed } = question else {
        unreachable!("the caller has looked")
    };
    let (texts, many) = match text {
        Prompts::One(text) => (std::slice::from_ref(text), false),
        Prompts::Many(texts) => (texts.as_slice(), true),
    };
    if texts.len() > TEXTS_MAX {
        let found = texts.len();
        return Err(RunError::Unfit(format!(
            "there are {found} texts, and {TEXTS_MAX} are the most; ask twice"
        )));
    }
    let end = predictor.tokeniser().find(Special::End);
    let mut sampling = Sampling {
        temperature: *temperature,
        top_k: *top_k,
        top_p: *top_p,
        seed: *seed,
        max_tokens: *max_tokens,
        stop: end.into_iter().chain(predictor.model.config().ends().iter().copied()).collect(),
    };
    let mut written = Vec::with_capacity(texts.len());
    for texts in texts.chunks(TOGETHER) {
        written.extend(together(predictor, texts, &sampling, turn)?);
        sampling.seed = sampling.seed.wrapping_add(TOGETHER as u64);
    }
    Ok(match many {
        true => Answer::Texts { texts: written },
        false => Answer::Text(written.swap_remove(0)),
    })
}

/// Goes on after some texts at once.
fn together(
    predictor: &Predictor,
    texts: &[String],
    sampling: &Sampling,
    turn: &mut dyn Turn,
) -> Result<Vec<Written>, RunError> {
    let (tokeniser, model) = (predictor.tokeniser(), predictor.model.as_ref());
    let mut number = 0;
    let mut pass = |tokens| {
        turn.take(MicroStep { step: 0, number, tokens });
        number += 1;
    };
    let positions = model.config().positions();
    let (texts, written) = match predictor.trained.config {
        ModelConfig::Marian(_) | ModelConfig::T5(_) => {
            let sources =
                texts.iter().map(|text| source(tokeniser, text, positions)).collect::<Result<Vec<_>, _>>()?;
            let starts = vec![vec![tokeniser.need(Special::Pad)?]; sources.len()];
            pass(sources.iter().map(Vec::len).sum());
            let written = tokens_of(model, &starts, Some(&sources), sampling, pass)?;
            let texts = written.iter().map(|written| Ok(tokeniser.decode(written)?));
            (texts.collect::<Result<Vec<_>, RunError>>()?, written)
        }
        _ => {
            let prompts = texts.iter().map(|text| {
                let whole = beginning(tokeniser, text, &sampling.stop)?;
                // What it says depends on the end of a long text; one token at least must have room.
                let room = positions.saturating_sub(1).max(1);
                Ok(whole[whole.len().saturating_sub(room)..].to_vec())
            });
            let prompts = prompts.collect::<Result<Vec<_>, RunError>>()?;
            let written = tokens_of(model, &prompts, None, sampling, pass)?;
            let texts =
                prompts.iter().zip(&written).map(|(prompt, written)| behind(tokeniser, prompt, written));
            (texts.collect::<Result<Vec<_>, _>>()?, written)
        }
    };
    let told = texts.into_iter().zip(written).map(|(text, written)| {
        let ended = written.last().is_some_and(|last| sampling.stop.contains(last));
        let finish = if ended { Finish::End } else { Finish::Length };
        Written { text, tokens: written.len(), finish }
    });
    Ok(told.collect())
}

/// What an encoder reads of a text.
fn source(tokeniser: &Tokeniser, text: &str, positions: usize) -> Result<Vec<u32>, RunError> {
    let mut source = tokeniser.encode(text)?;
    source.extend(tokeniser.find(Special::End));
    match source.len() {
        0 => Err(RunError::Unfit("the text is empty; give one to answer".into())),
        tokens if tokens > positions => Err(RunError::Unfit(format!(
            "the text has {tokens} tokens, and the model reads {positions}; give less"
        ))),
        _ => Ok(source),
    }
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
