//! Text from a model: greedy, or drawn with temperature, top-k and top-p.

use crate::model::Model;
use crate::random::Philox;
use crate::{Error, Result};

/// How tokens are chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token.
    pub temperature: f64,
    /// Only so many of the likeliest are drawn from; 0 for all.
    pub top_k: usize,
    /// Only the likeliest that have this much of the probability together are drawn from; 1 for all.
    pub top_p: f64,
    /// The choice of token n depends on the logits, this and n alone.
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

/// Goes on after `prompt`, at most to the model's last position. For an encoder-decoder `prompt` is the decoder's start
/// token and `source` what the encoder reads. `each` is told every token, and ends the text by returning `false`.
///
/// # Errors
/// If the model generates no text, or the prompt is empty or does not fit.
pub fn generate(
    model: &dyn Model,
    prompt: &[u32],
    source: Option<&[u32]>,
    sampling: &Sampling,
    mut each: impl FnMut(u32) -> bool,
) -> Result<Vec<u32>> {
    if prompt.is_empty() {
        return Err(Error::Batch("a prompt needs one token at least".into()));
    }
    let cache = model.begin(source)?;
    let room = model.config().positions().saturating_sub(prompt.len()).saturating_add(1);
    let mut tokens = Vec::new();
    let mut next = prompt.to_vec();
    for number in 0..sampling.max_tokens.min(room) {
        let logits = model.next(&next, &cache)?.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>()?;
        let token = choose(&logits, sampling, number as u64);
        tokens.push(token);
        if !each(token) || sampling.stop.contains(&token) {
            break;
        }
        next = vec![token];
    }
    Ok(tokens)
}

fn choose(logits: &[f64], sampling: &Sampling, number: u64) -> u32 {
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
    let mut left = Philox::new(sampling.seed).uniform(number) * weights.iter().sum::<f64>();
    let drawn = weights.iter().position(|weight| {
        left -= weight;
        left < 0.0
    });
    order[drawn.unwrap_or(kept - 1)]
}
