//! W2: many agents with a common prompt and conversations of their own that take turns, in memory for a few.

use std::time::Instant;

use anyhow::Result;
use harness::bench::random::Random;
use syscalls::Token;
use syscalls::call::Class;

use super::{ALWAYS, Case, Ran, Rows, Verdict, ratio, verdict};
use crate::check::Said;
use crate::figures::{Figure, Figures};
use crate::side::Side;
use crate::system::{Answer, System};

pub struct Turns {
    agents: u32,
    common: u32,
    /// New tokens of each turn.
    own: &'static [u32],
    /// Tokens generated in each turn.
    generate: u32,
    /// Agents that the memory has room for, each with a whole conversation.
    resident: u32,
}

impl Turns {
    pub fn new(quick: bool) -> Turns {
        match quick {
            false => Turns { agents: 24, common: 1500, own: &[180; 5], generate: 20, resident: 6 },
            true => Turns { agents: 24, common: 192, own: &[64, 32, 32], generate: 4, resident: 6 },
        }
    }

    fn conversation(&self) -> u32 {
        self.common + self.own.iter().map(|own| own + self.generate).sum::<u32>()
    }

    fn cells(&self) -> u32 {
        (self.resident * self.conversation()).next_multiple_of(64)
    }

    /// What is new: the common prompt once, each own token once, and the last token of each turn in the next one.
    fn new_tokens(&self) -> f64 {
        let own: u32 = self.own.iter().sum::<u32>() + self.own.len() as u32 - 1;
        f64::from(self.common + self.agents * own)
    }

    /// What page bounds cost, where the common prompt and conversations end within a page: 5 in 100.
    fn evaluated_max(&self) -> f64 {
        self.new_tokens() * 1.05
    }
}

impl Case for Turns {
    fn name(&self) -> &'static str {
        "W2"
    }

    fn title(&self) -> String {
        let (agents, common, resident, turns) = (self.agents, self.common, self.resident, self.own.len());
        let own = self.conversation() - common;
        format!(
            "{agents} agents take {turns} turns, {common} common tokens + up to {own} own, cells for {resident}"
        )
    }

    fn sides(&self, search: bool) -> Vec<Side> {
        let cells = self.cells();
        let mut sides = vec![
            Side::llmasos(cells),
            Side::plain(&format!("-c {cells}")),
            Side::tuned(&format!("-c {cells} -np 1 -sps 0")),
        ];
        if search {
            sides.extend([
                Side::tuned(&format!("-c {cells} -np {} -kvu -sps 0", self.resident)),
                Side::tuned(&format!("-c {cells} -np {} -no-kvu -sps 0", self.resident)),
                Side::tuned(&format!("-c {cells} -sps 0.9")),
                Side::tuned(&format!("-c {cells} --cache-reuse 64")),
            ]);
        }
        sides
    }

    fn run(&self, system: &dyn System, seed: u64) -> Result<Ran> {
        let mut random = Random(seed);
        let common = random.tokens(self.common);
        let mut agents = Vec::new();
        for _ in 0..self.agents {
            agents.push((system.agent(Class::Normal)?, Vec::<Token>::new()));
        }
        let before = system.counters()?;
        let begun = Instant::now();
        let (mut answers, mut said) = (Vec::<Answer>::new(), Vec::new());
        for (turn, own) in self.own.iter().enumerate() {
            said.clear();
            for (agent, history) in &mut agents {
                let own = random.tokens(*own);
                let new = if turn == 0 { [common.clone(), own].concat() } else { own };
                let answer = agent.turn(&new, self.generate, ALWAYS)?;
                history.extend(new);
                said.push(Said { prompt: history.clone(), tokens: answer.tokens.clone() });
                history.extend(&answer.tokens);
                answers.push(answer);
            }
        }
        let mut figures = Figures::of(&answers, begun);
        figures.count(system, before, system.counters()?);
        Ok(Ran { figures, said })
    }

    fn verdicts(&self, rows: &Rows) -> Vec<Verdict> {
        let most = self.evaluated_max();
        let wall = rows.ours(Figure::Wall);
        let plain = rows.rows.get(1).and_then(|(_, figures)| figures.get(Figure::Wall));
        vec![
            verdict(
                format!("evaluates ≤ {most:.0} prompt tokens ({:.0} are new)", self.new_tokens()),
                rows.ours(Figure::Evaluated),
                "",
                |n| n <= most,
            ),
            verdict("≥ 4 × faster than the defaults".into(), ratio(plain, wall), " ×", |x| x >= 4.0),
            verdict(
                "≥ 1.3 × faster than the best row of llama-server".into(),
                ratio(rows.peer_min(Figure::Wall), wall),
                " ×",
                |x| x >= 1.3,
            ),
        ]
    }
}
