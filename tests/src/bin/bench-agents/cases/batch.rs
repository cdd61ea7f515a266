//! W3: a chat that somebody watches, arriving at random beside work that nobody watches.

use std::time::{Duration, Instant};

use anyhow::Result;
use harness::bench::random::Random;
use harness::bench::report::quantile;
use syscalls::Token;
use syscalls::call::Class;

use super::{ALWAYS, Case, Job, Ran, Rows, Verdict, ratio, said, together, verdict};
use crate::figures::{Figure, Figures};
use crate::side::Side;
use crate::system::{Answer, System};

/// When chats may arrive, as fractions of the time that the work takes undisturbed.
const ARRIVALS: (f64, f64) = (0.1, 0.8);

pub struct Batch {
    streams: u32,
    prompt: u32,
    generate: u32,
    chats: u32,
    chat_prompt: u32,
    chat_generate: u32,
}

impl Batch {
    pub fn new(quick: bool) -> Batch {
        let (streams, prompt, chat_prompt) = (4, 32, 32);
        match quick {
            false => Batch { streams, prompt, generate: 512, chats: 8, chat_prompt, chat_generate: 8 },
            true => Batch { streams, prompt, generate: 160, chats: 4, chat_prompt, chat_generate: 4 },
        }
    }

    fn job<'a>(&self, prompt: &'a [Token]) -> Job<'a> {
        let (class, after) = (Class::Batch, Duration::ZERO);
        Job { class, after, prompt, generate: self.generate, go_on: ALWAYS }
    }

    fn chat<'a>(&self, prompt: &'a [Token], after: Duration) -> Job<'a> {
        Job { class: Class::Interactive, after, prompt, generate: self.chat_generate, go_on: ALWAYS }
    }
}

impl Case for Batch {
    fn name(&self) -> &'static str {
        "W3"
    }

    fn title(&self) -> String {
        let Batch { streams, generate, chats, chat_prompt, .. } = self;
        format!(
            "{chats} chats of {chat_prompt} tokens arrive at random beside {streams} × {generate} tokens of batch work"
        )
    }

    fn sides(&self, search: bool) -> Vec<Side> {
        let mut sides = vec![
            Side::llmasos(8192),
            Side::defaults(),
            Side::tuned("-np 8 -b 64 -ub 64"),
            Side::tuned("-np 8 -kvu -c 8192 -b 64 -ub 64"),
        ];
        if search {
            sides.extend([
                Side::tuned("-np 8"),
                Side::tuned("-np 8 -kvu -c 8192"),
                Side::tuned("-np 8 -kvu -c 8192 -fa off"),
                Side::tuned("-np 8 -kvu -c 8192 -b 32 -ub 32"),
            ]);
        }
        sides
    }

    fn compared_by(&self) -> (Figure, bool) {
        (Figure::FirstP95, true)
    }

    fn run(&self, system: &dyn System, seed: u64) -> Result<Ran> {
        let mut random = Random(seed);
        let works: Vec<Vec<Token>> = (0..2 * self.streams).map(|_| random.tokens(self.prompt)).collect();
        let (undisturbed, disturbed) = works.split_at(self.streams as usize);
        let (answers, begun) =
            together(system, &undisturbed.iter().map(|p| self.job(p)).collect::<Vec<_>>())?;
        let alone_s = last(&answers, begun);
        let chats: Vec<(Vec<Token>, Duration)> = (0..self.chats)
            .map(|_| {
                let at = ARRIVALS.0 + (ARRIVALS.1 - ARRIVALS.0) * random.fraction();
                (random.tokens(self.chat_prompt), Duration::from_secs_f64(alone_s * at))
            })
            .collect();
        let mut jobs: Vec<Job<'_>> = disturbed.iter().map(|p| self.job(p)).collect();
        jobs.extend(chats.iter().map(|(prompt, after)| self.chat(prompt, *after)));
        let before = system.counters()?;
        let (answers, begun) = together(system, &jobs)?;
        let said = said(&jobs, &answers);
        let (work, chats) = answers.split_at(disturbed.len());
        let with_chats_s = last(work, begun);
        let firsts: Vec<f64> = chats.iter().filter_map(Answer::first_s).collect();
        let mut figures = Figures::of(&answers, begun)
            .with(Figure::Wall, with_chats_s)
            .with(Figure::Loss, with_chats_s / alone_s - 1.0)
            .with(Figure::FirstP50, quantile(&firsts, 0.5))
            .with(Figure::FirstP95, quantile(&firsts, 0.95));
        figures.count(system, before, system.counters()?);
        Ok(Ran { figures, said })
    }

    fn verdicts(&self, rows: &Rows) -> Vec<Verdict> {
        let best = ratio(rows.ours(Figure::FirstP95), rows.peer_min(Figure::FirstP95));
        let loss = rows.ours(Figure::Loss).map(|loss| loss * 100.0);
        vec![
            verdict(
                "chats' first token, p95, ≤ 1 × the best row of llama-server".into(),
                best,
                " ×",
                |x| x <= 1.0,
            ),
            verdict("batch work takes ≤ 10 % longer".into(), loss, " %", |x| x <= 10.0),
        ]
    }
}

/// Seconds to the last of some answers.
fn last(answers: &[Answer], begun: Instant) -> f64 {
    answers.iter().map(|a| a.done.duration_since(begun).as_secs_f64()).fold(0.0, f64::max)
}
