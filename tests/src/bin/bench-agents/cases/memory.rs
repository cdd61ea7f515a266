//! W4: conversations that each fit into memory but not together.

use anyhow::Result;
use harness::bench::random::Random;
use syscalls::Token;

use super::{Case, Ran, Rows, Verdict, at_once, ratio, verdict};
use crate::figures::Figure;
use crate::side::Side;
use crate::system::System;

/// Our row with room for all.
const ROOM_FOR_ALL: &str = "room for all";

pub struct Memory {
    streams: u32,
    prompt: u32,
    generate: u32,
    cells: u32,
}

impl Memory {
    pub fn new(quick: bool) -> Memory {
        match quick {
            false => Memory { streams: 8, prompt: 512, generate: 512, cells: 4096 },
            true => Memory { streams: 8, prompt: 128, generate: 128, cells: 1024 },
        }
    }
}

impl Case for Memory {
    fn name(&self) -> &'static str {
        "W4"
    }

    fn title(&self) -> String {
        let Memory { streams, prompt, generate, cells } = self;
        format!("{streams} × ({prompt} in, {generate} out) in {cells} cells")
    }

    fn sides(&self, search: bool) -> Vec<Side> {
        let cells = self.cells;
        // A page more for each, for the token that ends a page exactly.
        let all = self.streams * (self.prompt + self.generate + 64);
        let mut sides = vec![
            Side::llmasos(cells),
            Side::llmasos_with(all, ROOM_FOR_ALL),
            Side::plain(&format!("-c {cells}")),
            Side::tuned(&format!("-c {cells} -np 3 -no-kvu")),
        ];
        if search {
            sides.extend([
                Side::plain(&format!("-c {cells} -np {} -kvu", self.streams)),
                Side::plain(&format!("-c {cells} -np {}", self.streams)),
                Side::tuned(&format!("-c {cells} -np 4 -no-kvu")),
                Side::tuned(&format!("-c {cells} -np 3 -no-kvu -fa off")),
                Side::tuned(&format!("-c {cells} -np 2 -no-kvu")),
            ]);
        }
        sides
    }

    fn compared_by(&self) -> (Figure, bool) {
        (Figure::Goodput, false)
    }

    fn run(&self, system: &dyn System, seed: u64) -> Result<Ran> {
        let mut random = Random(seed);
        let prompts: Vec<Vec<Token>> = (0..self.streams).map(|_| random.tokens(self.prompt)).collect();
        let (ran, answers) = at_once(system, &prompts, self.generate)?;
        let whole: usize = answers.iter().filter(|a| a.complete).map(|a| a.tokens.len()).sum();
        let wall = ran.figures.get(Figure::Wall).unwrap_or(f64::NAN);
        Ok(Ran { figures: ran.figures.with(Figure::Goodput, whole as f64 / wall), said: ran.said })
    }

    fn verdicts(&self, rows: &Rows) -> Vec<Verdict> {
        let goodput = rows.ours(Figure::Goodput);
        let kept = ratio(goodput, rows.ours_with(ROOM_FOR_ALL, Figure::Goodput)).map(|x| x * 100.0);
        let best = ratio(goodput, rows.peer_max(Figure::Goodput));
        vec![
            verdict("goodput ≥ 80 % of that with room for all".into(), kept, " %", |x| x >= 80.0),
            verdict("goodput ≥ the best row of llama-server".into(), best, " ×", |x| x >= 1.0),
        ]
    }
}
