//! W5: one stream alone, where a kernel can only cost.

use std::path::Path;

use anyhow::Result;
use harness::bench::peer::{Flash, Peer};
use harness::bench::random::Random;
use syscalls::call::Class;

use super::{ALWAYS, Case, Ran, Rows, Verdict, ratio, verdict};
use crate::check::Said;
use crate::figures::{Figure, Figures, decode_rate};
use crate::side::{Side, Tool};
use crate::system::System;

pub struct Single {
    prompt: u32,
    generate: u32,
}

impl Single {
    pub fn new(quick: bool) -> Single {
        match quick {
            false => Single { prompt: 512, generate: 64 },
            true => Single { prompt: 256, generate: 32 },
        }
    }
}

impl Case for Single {
    fn name(&self) -> &'static str {
        "W5"
    }

    fn title(&self) -> String {
        format!("one stream alone, {} in, {} out", self.prompt, self.generate)
    }

    fn sides(&self, search: bool) -> Vec<Side> {
        let mut sides = vec![
            Side::llmasos(2 * (self.prompt + self.generate)),
            Side::tool("llama-bench", Tool::Plain),
            Side::tool("llama-bench", Tool::Flash),
            Side::defaults(),
        ];
        if search {
            sides.extend([Side::tuned("-np 1"), Side::tuned("-np 1 -fa off"), Side::tuned("-np 1 -c 2048")]);
        }
        sides
    }

    fn compared_by(&self) -> (Figure, bool) {
        (Figure::Decode, false)
    }

    fn run(&self, system: &dyn System, seed: u64) -> Result<Ran> {
        let prompt = Random(seed).tokens(self.prompt);
        let mut agent = system.agent(Class::Normal)?;
        let before = system.counters()?;
        let answer = agent.turn(&prompt, self.generate, ALWAYS)?;
        let answers = [answer];
        let mut figures = Figures::of(&answers, answers[0].asked);
        figures.count(system, before, system.counters()?);
        let first_s = answers[0].first_s().unwrap_or(f64::NAN);
        let figures = figures
            .with(Figure::Prefill, f64::from(self.prompt) / first_s)
            .with(Figure::Decode, decode_rate(&answers));
        Ok(Ran { figures, said: vec![Said { prompt, tokens: answers[0].tokens.clone() }] })
    }

    fn run_tool(&self, peer: &Peer, model: &Path, tool: Tool) -> Result<Figures> {
        let flash = if tool == Tool::Flash { Flash::On } else { Flash::Off };
        let speed = peer.single_at_depth(model, self.prompt, self.generate, flash)?;
        Ok(Figures::default().with(Figure::Prefill, speed.prefill).with(Figure::Decode, speed.decode))
    }

    fn verdicts(&self, rows: &Rows) -> Vec<Verdict> {
        let of = |figure| ratio(rows.ours(figure), rows.peer_max(figure));
        vec![
            verdict(
                "prefill ≥ 0.97 × the better of llama.cpp's".into(),
                of(Figure::Prefill),
                " ×",
                |x| x >= 0.97,
            ),
            verdict("decode ≥ 0.97 × the better of llama.cpp's".into(), of(Figure::Decode), " ×", |x| {
                x >= 0.97
            }),
        ]
    }
}
