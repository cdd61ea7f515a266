//! Text from a model: greedy, or drawn with temperature, top-k and top-p.

use candle_core::{DType, Device};

use crate::model::Model;
use crate::random::Philox;
use crate::{Error, Result, Side};

/// How tokens are chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token.
    pub temperature: f64,
    /// Only so many of the likeliest are drawn from; 0 for all.
    pub top_k: usize,
    /// Only the likeliest that have this much of the probability together are drawn from; 1 for all.
    pub top_p: f64,
    /// The choice of token n depends on the logits, this, the row and n alone.
    pub seed: u64,
    /// The most tokens.
    pub max_tokens: usize,
    /// Tokens after which the text ends; the one that came is the last.
    pub stop: Vec<u32>,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0, max_tokens: 128, stop: Vec::new() }
    }
}

/// Goes on after each prompt, at most to the model's last position; all rows are computed together, and row *n* has the
/// text that it would have alone with *n* more as its seed. For an encoder-decoder each prompt is the decoder's start token
/// and `sources` are what the encoder reads. `pass` is told before each pass how many tokens it computes.
///
/// # Errors
/// If the model generates no text, or a prompt is empty or does not fit.
pub fn generate(
    model: &dyn Model,
    prompts: &[Vec<u32>],
    sources: Option<&[Vec<u32>]>,
    sampling: &Sampling,
    mut pass: impl FnMut(usize),
) -> Result<Vec<Vec<u32>>> {
    if prompts.iter().any(Vec::is_empty) {
        return Err(Error::Batch("a prompt needs one token at least".into()));
    }
    let Some(longest) = prompts.iter().map(Vec::len).max() else { return Ok(Vec::new()) };
    let padding: Vec<usize> = prompts.iter().map(|prompt| longest - prompt.len()).collect();
    let source = sources.map(Side::of_rows);
    let cache = model.begin(source.as_ref(), &padding)?;
    go_on(model.config().positions(), prompts, sampling, |next| {
        pass(next.len());
        let logits = model.next(next, &cache)?.to_device(&Device::Cpu)?;
        Ok(logits.to_dtype(DType::F64)?.to_vec2::<f64>()?)
    })
}

/// Goes on after each prompt with what `read` makes of it: that is given as many more tokens of each row, and says the
/// logits of what comes after the last ones.
///
/// # Errors
/// Those of `read`, or a prompt does not fit.
pub(crate) fn go_on(
    positions: usize,
    prompts: &[Vec<u32>],
    sampling: &Sampling,
    mut read: impl FnMut(&[u32]) -> Result<Vec<Vec<f64>>>,
) -> Result<Vec<Vec<u32>>> {
    let longest = prompts.iter().map(Vec::len).max().unwrap_or_default();
    if longest > positions {
        return Err(Error::Batch(format!(
            "a prompt of {longest} tokens is longer than the model's {positions} positions"
        )));
    }
    let room =
        |prompt: &Vec<u32>| positions.saturating_sub(prompt.len()).saturating_add(1).min(sampling.max_tokens);
    let room: Vec<usize> = prompts.iter().map(room).collect();
    let mut texts: Vec<Vec<u32>> = vec![Vec::new(); prompts.len()];
    let ended = |text: &[u32], room: usize| {
        text.len() >= room || text.last().is_some_and(|last| sampling.stop.contains(last))
    };
    // Shorter prompts end where the longest does.
    let before = |prompt: &Vec<u32>| std::iter::repeat_n(0, longest - prompt.len()).chain(prompt.clone());
    let mut next: Vec<u32> = prompts.iter().flat_map(before).collect();
    while texts.iter().zip(&room).any(|(text, room)| !ended(text, *room)) {
        let logits = read(&next)?;
        next.clear();
        for (row, (text, logits)) in texts.iter_mut().zip(&logits).enumerate() {
            // Rows that have ended are computed along, and nobody reads what comes.
            if !ended(text, room[row]) {
                text.push(choose(logits, sampling, row as u64, text.len() as u64));
            }
            next.push(text.last().copied().unwrap_or(0));
        }
    }
    Ok(texts)
}

fn choose(logits: &[f64], sampling: &Sampling, row: u64, number: u64) -> u32 {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let logit = |token: u32| logits[token as usize];
    // Of equal ones the first, so that the choice is always the same.
    order.sort_by(|a, b| logit(*b).total_cmp(&logit(*a)).then(a.cmp(b)));
    if sampling.temperature <= 0.0 {
        return order[0];
    }
    if sampling.top_k > 0 {
        order.truncate(sampling.top_k);
    }
    let greatest = logit(order[0]);
    let mut weights: Vec<f64> =
        order.iter().map(|&token| ((logit(token) - greatest) / sampling.temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut sum = 0.0;
    let kept = weights.iter().take_while(|weight| {
        let before = sum;
        sum += **weight;
        before < sampling.top_p * total
    });
    let kept = kept.count().max(1);
    weights.truncate(kept);
    let mut left = Philox::new(sampling.seed.wrapping_add(row)).uniform(number) * weights.iter().sum::<f64>();
    let drawn = weights.iter().position(|weight| {
        left -= weight;
        left < 0.0
    });
    order[drawn.unwrap_or(kept - 1)]
}
