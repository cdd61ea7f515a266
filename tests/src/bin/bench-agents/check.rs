//! Whether processes said in company what they say alone, on the same side with nothing cached.
//!
//! A pass over a batch rounds otherwise than one over a single row, so at a near tie the other token can win, and
//! everything after it differs. Random weights make such ties often. So where two answers part, the side is asked
//! how likely both tokens are: a side that mixes pages up, or loses some, says what is not likely at all.

use anyhow::Result;
use harness::bench::report::{median, quantile};
use syscalls::Token;
use syscalls::call::Class;

use crate::figures::{Figure, Figures};
use crate::side::{Ground, Side};
use crate::system::System;

/// Tokens of an answer that are compared.
const COMPARED_TOKENS: usize = 64;

/// Logarithms of probabilities this far apart, or less, are a near tie: ten times what rounding parted answers by,
/// on both sides, where it was measured on weights of eight bits.
const NEAR_TIE: f64 = 0.5;

/// A whole prompt and what followed it.
#[derive(Clone, Debug)]
pub struct Said {
    pub prompt: Vec<Token>,
    pub tokens: Vec<Token>,
}

/// Has some of the processes say it again, each alone, and adds how many say something else.
pub fn compare(
    ground: &Ground<'_>,
    side: &Side,
    said: &[Said],
    most: usize,
    figures: &mut Figures,
) -> Result<()> {
    let said: Vec<&Said> = said.iter().filter(|s| !s.tokens.is_empty()).collect();
    let count = most.min(said.len());
    if count == 0 {
        return Ok(());
    }
    let Some(system) = ground.start(side)? else { return Ok(()) };
    let (mut differ, mut parted) = (Vec::new(), Vec::new());
    // Evenly over all of them, the last one included: the first one is often as good as alone.
    for one in (1..=count).map(|n| said[n * said.len() / count - 1]) {
        let together = &one.tokens[..one.tokens.len().min(COMPARED_TOKENS)];
        let alone = system.agent(Class::Normal)?.turn(&one.prompt, together.len() as u32, &|_| true)?;
        let same = alone.tokens.iter().zip(together).take_while(|(a, t)| a == t).count();
        if same < together.len() {
            differ.push(same as f64);
            let before = [&one.prompt[..], &together[..same]].concat();
            parted.push(parted_by(system.as_ref(), &before, together[same])?);
        }
    }
    figures.set(Figure::Differ, differ.len() as f64);
    figures.set(Figure::DifferFrom, median(&differ));
    figures.set(Figure::Wrong, parted.iter().filter(|by| **by > NEAR_TIE).count() as f64);
    figures.set(Figure::PartedBy, quantile(&parted, 1.0));
    figures.set(Figure::Compared, count as f64);
    Ok(())
}

/// How much less likely a token is to follow than the likeliest one, as a difference of logarithms; without bound
/// where it is not among the likely ones.
fn parted_by(system: &dyn System, before: &[Token], token: Token) -> Result<f64> {
    let likely = system.agent(Class::Normal)?.likely(before)?;
    let best = likely.iter().map(|(_, logprob)| *logprob).fold(f64::NEG_INFINITY, f64::max);
    let own = likely.iter().find(|(other, _)| *other == token).map(|(_, logprob)| *logprob);
    Ok(own.map_or(f64::INFINITY, |own| best - own))
}
