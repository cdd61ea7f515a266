//! The cases. Each says which sides it compares, what one run does, and what it must reach.

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::Result;
use harness::bench::peer::Peer;
use syscalls::Token;
use syscalls::call::Class;

use crate::check::Said;
use crate::figures::{Figure, Figures};
use crate::side::{Side, Tool};
use crate::system::{Answer, GoOn, System};

mod agents;
mod batch;
mod fairness;
mod fork;
mod long;
mod memory;
mod single;
mod turns;

/// What one run came to.
pub struct Ran {
    pub figures: Figures,
    /// What was said, to compare with the same said alone.
    pub said: Vec<Said>,
}

/// Something that must be reached.
pub struct Verdict {
    /// What must hold.
    pub target: String,
    /// What was measured.
    pub measured: String,
    /// Whether it holds, where it was measured.
    pub met: Option<bool>,
}

/// The medians of a case's rows.
pub struct Rows {
    pub rows: Vec<(Side, Figures)>,
}

impl Rows {
    /// Our figure.
    pub fn ours(&self, figure: Figure) -> Option<f64> {
        self.rows.iter().find(|(side, _)| side.is_ours()).and_then(|(_, figures)| figures.get(figure))
    }

    /// A figure of our row of another label.
    pub fn ours_with(&self, label: &str, figure: Figure) -> Option<f64> {
        let (_, figures) =
            self.rows.iter().find(|(side, _)| !side.is_peer() && side.label.ends_with(label))?;
        figures.get(figure)
    }

    /// The least of a figure among llama.cpp's rows.
    pub fn peer_min(&self, figure: Figure) -> Option<f64> {
        self.peers(figure).min_by(f64::total_cmp)
    }

    /// The greatest of a figure among llama.cpp's rows.
    pub fn peer_max(&self, figure: Figure) -> Option<f64> {
        self.peers(figure).max_by(f64::total_cmp)
    }

    fn peers(&self, figure: Figure) -> impl Iterator<Item = f64> {
        self.rows
            .iter()
            .filter(|(side, _)| side.is_peer())
            .filter_map(move |(_, figures)| figures.get(figure))
    }
}

/// A case of the bench.
pub trait Case {
    /// What `--only` calls it.
    fn name(&self) -> &'static str;

    /// What happens in it, with its numbers.
    fn title(&self) -> String;

    /// Its rows, ours first. With `search`, all settings of the server that are worth a try.
    fn sides(&self, search: bool) -> Vec<Side>;

    /// The figure that rows are compared by, and whether less of it is better.
    fn compared_by(&self) -> (Figure, bool) {
        (Figure::Wall, true)
    }

    /// Whether all of its requests are to be answered in full. A run in which one is not has had less work than the others.
    fn is_answered(&self) -> bool {
        true
    }

    /// One run on a side that has just been started.
    fn run(&self, system: &dyn System, seed: u64) -> Result<Ran>;

    /// One run of one of llama.cpp's benches, where the case has such a row.
    fn run_tool(&self, _peer: &Peer, _model: &Path, _tool: Tool) -> Result<Figures> {
        Ok(Figures::default())
    }

    /// What it must reach.
    fn verdicts(&self, rows: &Rows) -> Vec<Verdict>;
}

/// All cases, in the order of the table.
pub fn all(quick: bool) -> Vec<Box<dyn Case>> {
    vec![
        Box::new(agents::Agents::new(quick)),
        Box::new(turns::Turns::new(quick)),
        Box::new(batch::Batch::new(quick)),
        Box::new(long::Long::new(quick)),
        Box::new(memory::Memory::new(quick)),
        Box::new(single::Single::new(quick)),
        Box::new(fork::Fork::deep(quick)),
        Box::new(fork::Fork::batched(quick)),
        Box::new(fairness::Fairness::new(quick)),
    ]
}

/// One request of a program of its own.
pub struct Job<'a> {
    pub class: Class,
    /// How long after the others have begun.
    pub after: Duration,
    pub prompt: &'a [Token],
    pub generate: u32,
    pub go_on: GoOn<'a>,
}

/// Programs that begin together. Gives their answers, and when they began.
pub fn together(system: &dyn System, jobs: &[Job<'_>]) -> Result<(Vec<Answer>, Instant)> {
    let start = Barrier::new(jobs.len() + 1);
    // All connect before any begins, or those that fail would keep the others waiting.
    let agents: Result<Vec<_>> = jobs.iter().map(|job| system.agent(job.class)).collect();
    let agents = agents?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = agents
            .into_iter()
            .zip(jobs)
            .map(|(mut agent, job)| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    std::thread::sleep(job.after);
                    agent.turn(job.prompt, job.generate, job.go_on)
                })
            })
            .collect();
        start.wait();
        let begun = Instant::now();
        let answers: Result<Vec<_>> =
            threads.into_iter().map(|t| t.join().expect("an agent of the bench does not panic")).collect();
        Ok((answers?, begun))
    })
}

/// Programs of the class `normal` that begin at once, one for each prompt, and that nothing disturbs. Gives their
/// answers, too.
pub fn at_once(system: &dyn System, prompts: &[Vec<Token>], generate: u32) -> Result<(Ran, Vec<Answer>)> {
    let job = |prompt| Job { class: Class::Normal, after: Duration::ZERO, prompt, generate, go_on: ALWAYS };
    let jobs: Vec<Job<'_>> = prompts.iter().map(|prompt| job(prompt.as_slice())).collect();
    let before = system.counters()?;
    let (answers, begun) = together(system, &jobs)?;
    let mut figures = Figures::of(&answers, begun);
    figures.count(system, before, system.counters()?);
    Ok((Ran { figures, said: said(&jobs, &answers) }, answers))
}

/// What programs said, for the comparison.
pub fn said(jobs: &[Job<'_>], answers: &[Answer]) -> Vec<Said> {
    let said = |(job, answer): (&Job<'_>, &Answer)| Said {
        prompt: job.prompt.to_vec(),
        tokens: answer.tokens.clone(),
    };
    jobs.iter().zip(answers).map(said).collect()
}

/// Answers of an undisturbed request.
pub const ALWAYS: GoOn<'static> = &|_| true;

/// A verdict on a number that may be missing.
pub fn verdict(target: String, measured: Option<f64>, unit: &str, met: impl FnOnce(f64) -> bool) -> Verdict {
    match measured {
        Some(value) => Verdict { target, measured: format!("{}{unit}", shown(value)), met: Some(met(value)) },
        None => Verdict { target, measured: "not measured".into(), met: None },
    }
}

/// How many times better: what `worse` is of `better`.
pub fn ratio(worse: Option<f64>, better: Option<f64>) -> Option<f64> {
    Some(worse? / better?)
}

/// A number for a verdict.
fn shown(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e9 { format!("{value:.0}") } else { format!("{value:.3}") }
}
