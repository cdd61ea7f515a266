//! W1: agents with a long common prompt that all begin at once, with nothing cached.

use anyhow::Result;
use harness::bench::random::Random;
use syscalls::Token;

use super::{Case, Ran, Rows, Verdict, at_once, ratio, verdict};
use crate::figures::Figure;
use crate::side::Side;
use crate::system::System;

pub struct Agents {
    agents: u32,
    common: u32,
    own: u32,
    generate: u32,
}

impl Agents {
    pub fn new(quick: bool) -> Agents {
        match quick {
            false => Agents { agents: 8, common: 2048, own: 64, generate: 64 },
            true => Agents { agents: 8, common: 512, own: 32, generate: 32 },
        }
    }

    /// Each prompt token once, and what page bounds and the last tokens of prompts may cost: 5 in 100.
    fn evaluated_max(&self) -> f64 {
        f64::from(self.common + self.agents * self.own) * 1.05
    }

    /// Room for all without sharing, so that memory plays no part.
    fn cells(&self) -> u32 {
        self.agents * (self.common + self.own + self.generate)
    }
}

impl Case for Agents {
    fn name(&self) -> &'static str {
        "W1"
    }

    fn title(&self) -> String {
        let Agents { agents, common, own, generate } = self;
        format!("{agents} agents at once, {common} common tokens + {own} own + {generate} out, cold")
    }

    fn sides(&self, search: bool) -> Vec<Side> {
        let cells = self.cells();
        let mut sides = vec![Side::llmasos(cells), Side::defaults(), Side::tuned("-np 1")];
        if search {
            sides.extend([
                Side::tuned("-np 1 -fa off"),
                Side::tuned("-np 2"),
                Side::tuned(&format!("-np {} -kvu -c {cells}", self.agents)),
                Side::tuned(&format!("-np {} -c {cells}", self.agents)),
            ]);
        }
        sides
    }

    fn run(&self, system: &dyn System, seed: u64) -> Result<Ran> {
        let mut random = Random(seed);
        let common = random.tokens(self.common);
        let prompts: Vec<Vec<Token>> =
            (0..self.agents).map(|_| [common.clone(), random.tokens(self.own)].concat()).collect();
        Ok(at_once(system, &prompts, self.generate)?.0)
    }

    fn verdicts(&self, rows: &Rows) -> Vec<Verdict> {
        let most = self.evaluated_max();
        let faster = ratio(rows.peer_min(Figure::Wall), rows.ours(Figure::Wall));
        vec![
            verdict(
                format!("evaluates ≤ {most:.0} prompt tokens"),
                rows.ours(Figure::Evaluated),
                "",
                |n| n <= most,
            ),
            verdict(
                "≥ 2 × faster than the best row of llama-server (aim: 4 ×)".into(),
                faster,
                " ×",
                |x| x >= 2.0,
            ),
        ]
    }
}
