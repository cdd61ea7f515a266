//! Whether processes said in company what they say alone, on the same side with nothing cached.
//!
//! A pass over a batch rounds otherwise than one over a single row, so at a near tie the other token can win, and
//! everything after it differs. Random weights make such ties often. So the number is for reading, not for judging:
//! a side that mixes pages up has all of its answers wrong, from early on.

use anyhow::Result;
use harness::bench::report::median;
use syscalls::Token;
use syscalls::call::Class;

use crate::figures::{Figure, Figures};
use crate::side::{Ground, Side};

/// Tokens of an answer that are compared.
const COMPARED_TOKENS: usize = 64;

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
    let mut differ = Vec::new();
    // Evenly over all of them, the last one included: the first one is often as good as alone.
    for one in (1..=count).map(|n| said[n * said.len() / count - 1]) {
        let together = &one.tokens[..one.tokens.len().min(COMPARED_TOKENS)];
        let alone = system.agent(Class::Normal)?.turn(&one.prompt, together.len() as u32, &|_| true)?;
        let same = alone.tokens.iter().zip(together).take_while(|(a, t)| a == t).count();
        if same < together.len() {
            differ.push(same as f64);
        }
    }
    figures.set(Figure::Differ, differ.len() as f64);
    figures.set(Figure::DifferFrom, median(&differ));
    figures.set(Figure::Compared, count as f64);
    Ok(())
}
