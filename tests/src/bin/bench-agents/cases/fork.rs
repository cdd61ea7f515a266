//! W6, a fork of a deep context into many that go on together; and batched decode, the same on a shorter one.

use std::path::Path;

use anyhow::Result;
use harness::bench::peer::{Flash, Peer};
use harness::bench::random::Random;

use super::{Case, Ran, Rows, Verdict, ratio, verdict};
use crate::check::Said;
use crate::figures::{Figure, Figures, decode_rate};
use crate::side::{Side, Tool};
use crate::system::System;

pub struct Fork {
    name: &'static str,
    prompt: u32,
    copies: u32,
    generate: u32,
    /// Whether llama-batched-bench does the same, and speed is what counts.
    by_speed: bool,
}

impl Fork {
    /// W6.
    pub fn deep(quick: bool) -> Fork {
        let (name, copies, by_speed) = ("W6", 32, false);
        match quick {
            false => Fork { name, prompt: 4096, copies, generate: 16, by_speed },
            true => Fork { name, prompt: 1024, copies, generate: 8, by_speed },
        }
    }

    /// Batched decode.
    pub fn batched(quick: bool) -> Fork {
        let (name, copies, by_speed) = ("batched", 32, true);
        match quick {
            false => Fork { name, prompt: 512, copies, generate: 64, by_speed },
            true => Fork { name, prompt: 256, copies, generate: 32, by_speed },
        }
    }

    fn cells(&self) -> u32 {
        // Each copy has pages of its own behind the shared ones.
        self.prompt.next_multiple_of(64) + 64 + self.copies * (self.generate.next_multiple_of(64) + 64)
    }
}

impl Case for Fork {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> String {
        let Fork { prompt, copies, generate, .. } = self;
        match self.by_speed {
            true => format!("{copies} contexts with {prompt} shared tokens decode {generate} each"),
            false => format!("fork of a context of {prompt} tokens {copies} ways, then {generate} out each"),
        }
    }

    fn sides(&self, search: bool) -> Vec<Side> {
        let (cells, copies) = (self.cells(), self.copies);
        let mut sides = vec![Side::llmasos(cells)];
        if self.by_speed {
            sides.extend([Tool::Plain, Tool::Flash].map(|tool| Side::tool("llama-batched-bench", tool)));
            sides.push(Side::tuned_copies(&format!("-np {copies} -kvu -c {cells} -fa off")));
        } else {
            sides.extend([Side::defaults(), Side::tuned_copies(&format!("-np {copies} -kvu -c {cells}"))]);
        }
        if search {
            sides.extend([
                Side::tuned_copies(&format!("-np {copies} -kvu -c {cells} -fa on")),
                Side::tuned_copies(&format!("-np {copies} -kvu -c {cells} -fa off")),
                Side::tuned("-np 1"),
            ]);
        }
        sides
    }

    fn compared_by(&self) -> (Figure, bool) {
        if self.by_speed { (Figure::Decode, false) } else { (Figure::Wall, true) }
    }

    fn run(&self, system: &dyn System, seed: u64) -> Result<Ran> {
        let prompt = Random(seed).tokens(self.prompt);
        let before = system.counters()?;
        let forked = system.fork(&prompt, self.copies, self.generate)?;
        let begun = forked.answers.iter().map(|a| a.asked).min();
        let Some(begun) = begun else { anyhow::bail!("a fork without copies") };
        let mut figures = Figures::of(&forked.answers, begun);
        figures.count(system, before, system.counters()?);
        let figures = figures
            .with(Figure::Decode, decode_rate(&forked.answers))
            .with(Figure::ForkMs, forked.fork_s.unwrap_or(f64::NAN) * 1e3)
            .with(Figure::ForkEvaluated, forked.fork_evaluated as f64);
        // The copies all go on from one state, so they must say the same, and one of them alone says it, too.
        let whole = |tokens: &[_]| Said { prompt: prompt.clone(), tokens: tokens.to_vec() };
        let first = forked.first;
        let said = forked.answers.iter().map(|a| whole(&[&first[..], &a.tokens[..]].concat()));
        Ok(Ran { figures, said: said.collect() })
    }

    fn run_tool(&self, peer: &Peer, model: &Path, tool: Tool) -> Result<Figures> {
        let flash = if tool == Tool::Flash { Flash::On } else { Flash::Off };
        let decode = peer.shared_decode(model, self.copies, self.prompt, self.generate, flash)?;
        Ok(Figures::default().with(Figure::Decode, decode))
    }

    fn verdicts(&self, rows: &Rows) -> Vec<Verdict> {
        if self.by_speed {
            let decode = ratio(rows.ours(Figure::Decode), rows.peer_max(Figure::Decode));
            return vec![verdict("decode ≥ 0.97 × the best of llama.cpp's".into(), decode, " ×", |x| {
                x >= 0.97
            })];
        }
        vec![
            verdict("the fork takes < 5 ms".into(), rows.ours(Figure::ForkMs), " ms", |ms| ms < 5.0),
            verdict("the fork evaluates nothing".into(), rows.ours(Figure::ForkEvaluated), " tokens", |n| {
                n == 0.0
            }),
        ]
    }
}
