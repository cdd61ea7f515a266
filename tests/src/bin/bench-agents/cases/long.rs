//! W3b: a very long prompt that arrives beside streams that somebody reads.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use harness::bench::random::Random;
use harness::bench::report::{median, quantile};
use syscalls::Token;
use syscalls::call::Class;

use super::{ALWAYS, Case, Ran, Rows, Verdict, ratio, verdict};
use crate::check::Said;
use crate::figures::{Figure, Figures};
use crate::side::Side;
use crate::system::{Agent, Answer, System};

/// Tokens that each stream generates before the prompt arrives, and after its first token: what is normal is measured
/// on both sides, since machines become faster and slower meanwhile.
const STEADY_TOKENS: usize = 128;

/// Between two looks whether they have them.
const LOOK_EVERY: Duration = Duration::from_millis(2);

pub struct Long {
    streams: u32,
    prompt: u32,
    /// Tokens that a stream generates at most; it ends with the long prompt.
    generate: u32,
    long: u32,
}

impl Long {
    pub fn new(quick: bool) -> Long {
        match quick {
            false => Long { streams: 4, prompt: 64, generate: 1280, long: 8192 },
            true => Long { streams: 4, prompt: 64, generate: 768, long: 2048 },
        }
    }

    fn cells(&self) -> u32 {
        (self.streams * (self.prompt + self.generate) + self.long + 64).next_multiple_of(64)
    }
}

impl Case for Long {
    fn name(&self) -> &'static str {
        "W3b"
    }

    fn title(&self) -> String {
        let Long { streams, long, .. } = self;
        format!("a prompt of {long} tokens arrives beside {streams} streams")
    }

    fn sides(&self, search: bool) -> Vec<Side> {
        let cells = self.cells();
        let mut sides = vec![
            Side::llmasos(cells),
            // Its four slots are taken, so the prompt would wait until a stream has ended.
            Side::plain("-np 5 -kvu"),
            Side::tuned(&format!("-np 5 -kvu -c {cells} -b 64 -ub 64")),
        ];
        if search {
            sides.extend([
                Side::defaults(),
                Side::tuned(&format!("-np 5 -kvu -c {cells} -b 256 -ub 256")),
                Side::tuned(&format!("-np 5 -kvu -c {cells} -b 128 -ub 128")),
                Side::tuned(&format!("-np 5 -kvu -c {cells} -b 32 -ub 32")),
            ]);
        }
        sides
    }

    fn compared_by(&self) -> (Figure, bool) {
        (Figure::GapMax, true)
    }

    fn run(&self, system: &dyn System, seed: u64) -> Result<Ran> {
        let mut random = Random(seed);
        let prompts: Vec<Vec<Token>> = (0..self.streams).map(|_| random.tokens(self.prompt)).collect();
        let long_prompt = random.tokens(self.long);
        let before = system.counters()?;
        let begun = Instant::now();
        let (streams, long) = self.streams_and_long(system, &prompts, &long_prompt)?;
        let until = long.times.first().copied().unwrap_or(long.done);
        let gaps = || streams.iter().flat_map(Answer::gaps_s);
        let flowing = streams.iter().filter_map(|stream| stream.times.get(STEADY_TOKENS / 4)).max();
        let (disturbed, undisturbed): (Vec<_>, Vec<_>) =
            gaps().partition(|(end, gap)| *end > long.asked && *end - Duration::from_secs_f64(*gap) <= until);
        // The streams' own prompts are beside their first tokens.
        let undisturbed =
            undisturbed.into_iter().filter(|(end, _)| flowing.is_some_and(|time| end > time)).collect();
        let of = |gaps: Vec<(Instant, f64)>| gaps.into_iter().map(|(_, gap)| gap).collect::<Vec<_>>();
        let (disturbed, undisturbed) = (of(disturbed), of(undisturbed));
        let normal = median(&undisturbed);
        let worst = quantile(&disturbed, 1.0);
        let mut figures = Figures::of(&streams, begun)
            .with(Figure::GapP50, normal)
            .with(Figure::GapP95, quantile(&disturbed, 0.95))
            .with(Figure::GapMax, worst)
            .with(Figure::GapRatio, worst / normal)
            .with(Figure::GapRatioAlone, quantile(&undisturbed, 1.0) / normal)
            .with(Figure::LongFirst, long.first_s().unwrap_or(f64::NAN))
            .with(Figure::Complete, f64::from(u8::from(long.complete)))
            .with(Figure::Requests, 1.0);
        let all: Vec<&Answer> = streams.iter().chain([&long]).collect();
        figures.set(Figure::Evaluated, all.iter().map(|a| f64::from(a.evaluated)).sum());
        figures.count(system, before, system.counters()?);
        let said = prompts
            .iter()
            .zip(&streams)
            .map(|(prompt, answer)| Said { prompt: prompt.clone(), tokens: answer.tokens.clone() });
        Ok(Ran { figures, said: said.collect() })
    }

    fn verdicts(&self, rows: &Rows) -> Vec<Verdict> {
        let own_time = ratio(rows.ours(Figure::LongFirst), rows.peer_min(Figure::LongFirst));
        vec![
            verdict("worst gap ≤ 3 × the normal one".into(), rows.ours(Figure::GapRatio), " ×", |x| {
                x <= 3.0
            }),
            verdict("the long prompt's time ≤ 1.25 × the best row's".into(), own_time, " ×", |x| {
                x <= 1.25
            }),
        ]
    }
}

impl Long {
    /// Streams that flow a while before the long prompt is sent and after its first token.
    fn streams_and_long(
        &self,
        system: &dyn System,
        prompts: &[Vec<Token>],
        long_prompt: &[Token],
    ) -> Result<(Vec<Answer>, Answer)> {
        let counts: Vec<AtomicUsize> = prompts.iter().map(|_| AtomicUsize::new(0)).collect();
        let (ended, one_ended) = (AtomicBool::new(false), AtomicBool::new(false));
        let mut agents = Vec::new();
        for _ in prompts {
            agents.push(system.agent(Class::Normal)?);
        }
        let mut long_agent = system.agent(Class::Normal)?;
        std::thread::scope(|scope| {
            let threads: Vec<_> = agents
                .into_iter()
                .zip(prompts.iter().zip(&counts))
                .map(|(agent, (prompt, count))| {
                    let (ended, one_ended) = (&ended, &one_ended);
                    scope.spawn(move || self.stream(agent, prompt, count, ended, one_ended))
                })
                .collect();
            let flow = || {
                let now = || counts.iter().map(|count| count.load(Ordering::Relaxed));
                let before: Vec<usize> = now().collect();
                let on = || now().zip(&before).all(|(now, before)| now >= before + STEADY_TOKENS);
                while !on() && !one_ended.load(Ordering::Relaxed) {
                    std::thread::sleep(LOOK_EVERY);
                }
            };
            flow();
            let long = long_agent.turn(long_prompt, 1, ALWAYS);
            flow();
            ended.store(true, Ordering::Relaxed);
            let streams: Result<Vec<_>> = threads
                .into_iter()
                .map(|t| t.join().expect("a stream of the bench does not panic"))
                .collect();
            Ok((streams?, long?))
        })
    }

    fn stream(
        &self,
        mut agent: Box<dyn Agent>,
        prompt: &[Token],
        count: &AtomicUsize,
        ended: &AtomicBool,
        one_ended: &AtomicBool,
    ) -> Result<Answer> {
        let answer = agent.turn(prompt, self.generate, &|tokens| {
            count.store(tokens, Ordering::Relaxed);
            !ended.load(Ordering::Relaxed)
        });
        one_ended.store(true, Ordering::Relaxed);
        answer
    }
}
