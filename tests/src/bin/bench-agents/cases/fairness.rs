//! Fairness: two clients that together, and each of them, want more than their share.
//!
//! One asks twice as often as the other. A queue that serves requests as they come gives it twice as much; a
//! scheduler gives both the same. Rates are multiples of what the side can do, which a burst measures first.

use std::time::{Duration, Instant};

use anyhow::Result;
use harness::bench::random::Random;
use syscalls::Token;
use syscalls::call::Class;

use super::{ALWAYS, Case, Job, Ran, Rows, Verdict, together, verdict};
use crate::check::Said;
use crate::figures::{Figure, Figures};
use crate::side::Side;
use crate::system::{Answer, Arrival, System};

/// Requests of each client, as multiples of what the side can do: 1.5 and 3 where it can do 2 a second.
const RATES: [f64; 2] = [0.75, 1.5];

/// How much more a generated token counts than one of a prompt, as in the literature on fair serving (VTC).
const OUTPUT_WEIGHT: f64 = 2.0;

/// The part of the time in which queues build up, and which does not count.
const RAMP: f64 = 0.25;

/// What `kernel/src/core/sched/policy/fair.rs` derives for two clients of equal weight, 2 (L + C), in seconds, with the
/// least that it can be by default: the lag L is `fair_lag_us`, and the longest step C takes `step_us_max`.
const BOUND_S: f64 = 2.0 * (1.0 + 1.0);

/// Requests of the burst.
const BURST: u32 = 8;

pub struct Fairness {
    prompt: u32,
    generate: u32,
    /// How long clients send.
    duration: Duration,
    /// Requests of both at most, however quick the model is.
    requests_max: f64,
}

impl Fairness {
    pub fn new(quick: bool) -> Fairness {
        let (prompt, generate) = (64, 32);
        match quick {
            false => Fairness { prompt, generate, duration: Duration::from_secs(24), requests_max: 400.0 },
            true => Fairness { prompt, generate, duration: Duration::from_secs(4), requests_max: 400.0 },
        }
    }

    /// Requests per second that the side can do.
    fn capacity(&self, system: &dyn System, random: &mut Random) -> Result<f64> {
        let prompts: Vec<Vec<Token>> = (0..BURST).map(|_| random.tokens(self.prompt)).collect();
        let jobs: Vec<Job<'_>> = prompts
            .iter()
            .map(|prompt| Job {
                class: Class::Normal,
                after: Duration::ZERO,
                prompt,
                generate: self.generate,
                go_on: ALWAYS,
            })
            .collect();
        let (answers, begun) = together(system, &jobs)?;
        let end = answers.iter().map(|a| a.done).max().unwrap_or(begun);
        Ok(f64::from(BURST) / end.duration_since(begun).as_secs_f64())
    }

    /// Requests of one client at an even rate, until the end.
    fn arrivals(&self, rate: f64, end: Duration, random: &mut Random) -> Vec<Arrival> {
        let count = (rate * end.as_secs_f64()).floor() as u32;
        (0..count)
            .map(|n| Arrival {
                after: Duration::from_secs_f64(f64::from(n) / rate),
                prompt: random.tokens(self.prompt),
                generate: self.generate,
            })
            .collect()
    }

    /// What a client got between two moments.
    fn service(&self, answers: &[Answer], from: Instant, to: Instant) -> f64 {
        let within = |time: &&Instant| **time > from && **time <= to;
        let of = |answer: &Answer| {
            let prompt = answer.times.first().iter().filter(|t| within(t)).count() as f64;
            let output = answer.times.iter().filter(within).count() as f64;
            prompt * f64::from(self.prompt) + output * OUTPUT_WEIGHT
        };
        answers.iter().map(of).sum()
    }
}

impl Case for Fairness {
    fn name(&self) -> &'static str {
        "fairness"
    }

    fn title(&self) -> String {
        let [slow, quick] = RATES;
        format!(
            "two clients ask at {slow} and {quick} × what can be done, {} in, {} out",
            self.prompt, self.generate
        )
    }

    fn sides(&self, search: bool) -> Vec<Side> {
        let mut sides = vec![Side::llmasos(8192), Side::defaults(), Side::tuned("-np 16 -kvu -c 8192")];
        if search {
            sides.push(Side::tuned("-np 1"));
        }
        sides
    }

    fn compared_by(&self) -> (Figure, bool) {
        (Figure::Jain, false)
    }

    /// More is asked for than can be done.
    fn is_answered(&self) -> bool {
        false
    }

    fn run(&self, system: &dyn System, seed: u64) -> Result<Ran> {
        let mut random = Random(seed);
        let capacity = self.capacity(system, &mut random)?;
        let rates = RATES.map(|rate| rate * capacity);
        let end = self.duration.as_secs_f64().min(self.requests_max / rates.iter().sum::<f64>());
        let end = Duration::from_secs_f64(end);
        let clients = rates.map(|rate| self.arrivals(rate, end, &mut random));
        let before = system.counters()?;
        let begun = Instant::now();
        let answers = system.open_loop(&clients, end)?;
        let (from, to) = (begun + end.mul_f64(RAMP), begun + end);
        let services: Vec<f64> = answers.iter().map(|a| self.service(a, from, to)).collect();
        let all: Vec<Answer> = answers.iter().flatten().cloned().collect();
        let window = (to - from).as_secs_f64();
        let generated = all.iter().flat_map(|a| &a.times).filter(|t| **t > from && **t <= to).count();
        let mut figures = Figures::of(&all, begun)
            .with(Figure::Wall, window)
            .with(Figure::TokensPerSecond, generated as f64 / window)
            .with(Figure::Jain, jain(&services))
            .with(Figure::ServiceShare, services[0] / services.iter().sum::<f64>())
            .with(Figure::ServiceApart, apart(&services, window));
        figures.count(system, before, system.counters()?);
        let said = clients.iter().zip(&answers).flat_map(|(arrivals, answers)| {
            arrivals.iter().zip(answers).filter(|(_, a)| a.complete).map(|(arrival, answer)| Said {
                prompt: arrival.prompt.clone(),
                tokens: answer.tokens.clone(),
            })
        });
        Ok(Ran { figures, said: said.collect() })
    }

    fn verdicts(&self, rows: &Rows) -> Vec<Verdict> {
        let index = verdict(
            "Jain's index of the clients' service ≥ 0.98".into(),
            rows.ours(Figure::Jain),
            "",
            |x| x >= 0.98,
        );
        let apart = verdict(
            format!("their service differs by the bound of `fair` at most, 2 (L + C) = {BOUND_S} s"),
            rows.ours(Figure::ServiceApart),
            " s",
            |x| x <= BOUND_S,
        );
        vec![index, apart]
    }
}

/// By how much of a window's time the device served one of two clients for longer than the other.
fn apart(services: &[f64], window_s: f64) -> f64 {
    window_s * (services[0] - services[1]).abs() / services.iter().sum::<f64>()
}

/// Jain's index: 1 where all get the same, 1/n where one gets all.
fn jain(services: &[f64]) -> f64 {
    let sum: f64 = services.iter().sum();
    let squares: f64 = services.iter().map(|s| s * s).sum();
    sum * sum / (services.len() as f64 * squares)
}
