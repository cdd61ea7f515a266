//! What idle processes and contexts cost: memory, and time of the steps of those that are not idle.

use anyhow::{Result, bail};
use syscalls::call::{Append, Class, Open};
use syscalls::client::hello;
use syscalls::limits::CONTEXTS_PER_PROCESS_MAX;
use syscalls::{Pid, Reply};

use super::calibration::Device;
use super::load::{Act, Load, Part, Task, clients};
use super::probe::{Probe, quantile_us};
use super::programs::{Programs, World, spawn};
use super::run::{Operator, Setting};
use super::world::Passed;

/// Processes behind one connection.
const PROCESSES_EACH: usize = 8;

/// Tokens in the log of an idle context.
pub const IDLE_TOKENS: u32 = 64;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Question {
    /// Idle processes.
    pub processes: usize,
    /// Idle contexts of each.
    pub contexts: usize,
    /// Processes that generate all the time.
    pub runnable: usize,
    /// Tokens that each of these generates.
    pub tokens: u32,
}

/// What it came to.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The question.
    pub question: Question,
    /// Bytes of the kernel for each idle process.
    pub bytes_of_process: f64,
    /// Bytes of the kernel for each idle context, the tokens of its log included.
    pub bytes_of_context: f64,
    /// Times of the core.
    pub probe: Probe,
}

/// Sets the idle ones up and runs the others beside them. `live_bytes` tells how much is allocated now.
///
/// # Errors
///
/// The kernel refuses a call.
pub fn measure(question: &Question, live_bytes: &dyn Fn() -> u64) -> Result<Answer> {
    let device = Device { speed: 1000.0, pool_tokens: 1 << 20, ..Device::default() };
    let (mut world, _) = Operator::boot(&Setting { device, ..Setting::default() })?;
    let (before, pids) = (live_bytes(), processes(&mut world, question.processes)?);
    // The list of pids is the caller's and not the kernel's.
    let own = (pids.capacity() * size_of::<Idle>()) as u64;
    let with_processes = live_bytes().saturating_sub(own);
    contexts(&mut world, &pids, question.contexts.min(CONTEXTS_PER_PROCESS_MAX))?;
    let with_contexts = live_bytes().saturating_sub(own);
    let probe = busy(&mut world, question)?;
    let each = |bytes: u64, count: usize| bytes as f64 / count.max(1) as f64;
    Ok(Answer {
        question: question.clone(),
        bytes_of_process: each(with_processes.saturating_sub(before), question.processes),
        bytes_of_context: each(
            with_contexts.saturating_sub(with_processes),
            question.processes * question.contexts,
        ),
        probe,
    })
}

type Idle = (kernel::core::event::ConnId, Option<Pid>);

fn processes(world: &mut World, count: usize) -> Result<Vec<Idle>> {
    let mut pids = Vec::with_capacity(count);
    while pids.len() < count {
        let conn = world.connect();
        world.finish(conn, None, hello("idle"))?;
        pids.push((conn, None));
        for _ in 1..PROCESSES_EACH.min(count - pids.len() + 1) {
            let spawn = spawn("idle")?;
            let Reply::Spawned { pid } = world.finish(conn, None, spawn)? else {
                bail!("spawn has another reply")
            };
            pids.push((conn, Some(pid)));
        }
    }
    Ok(pids)
}

fn contexts(world: &mut World, pids: &[Idle], each: usize) -> Result<()> {
    let open: Open = serde_json::from_value(serde_json::json!({}))?;
    let mut seed = 0;
    for (conn, pid) in pids {
        for _ in 0..each {
            let Reply::Opened { context, .. } = world.finish(*conn, *pid, open.clone())? else {
                bail!("open has another reply")
            };
            seed += 1;
            let mut tokens = Vec::with_capacity(IDLE_TOKENS as usize);
            Part { seed, tokens: IDLE_TOKENS }.write(&mut tokens);
            let append = Append { context, text: None, tokens: Some(tokens), messages: None, special: false };
            world.finish(*conn, *pid, append)?;
        }
    }
    Ok(())
}

/// Runs those that are not idle, and gives the times of the core while they do.
fn busy(world: &mut World, question: &Question) -> Result<Probe> {
    let count = question.runnable;
    let task = |client: usize| {
        let prompt = vec![Part { seed: u64::MAX - client as u64, tokens: 64 }];
        Task {
            at_us: 0,
            client,
            acts: vec![Act::Open, Act::Append(prompt), Act::Generate(question.tokens), Act::Close],
        }
    };
    let load =
        Load::new("busy".into(), clients(count, "busy", Class::Normal), (0..count).map(task).collect());
    let mut programs = Programs::start(world, &load, 1)?;
    world.probe = Probe::default();
    while let Some(passed) = world.advance() {
        if let Passed::Alarm(alarm) = passed {
            programs.alarm(world, alarm)?;
        }
        while let Some((_, frame)) = world.heard() {
            programs.heard(world, frame);
        }
    }
    if programs.answers != count as u64 {
        bail!("{} of {count} answers came", programs.answers);
    }
    Ok(world.probe.clone())
}

/// The table of several measurements, as Markdown.
pub fn table(answers: &[Answer]) -> String {
    let mut out = String::from(
        "| idle processes | idle contexts | runnable | bytes a process | bytes a context | step p50 · p99, µs | call p50 · p99, µs | steps |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for Answer { question, bytes_of_process, bytes_of_context, probe } in answers {
        let times = |of| format!("{:.1} · {:.1}", quantile_us(of, 0.5), quantile_us(of, 0.99));
        out.push_str(&format!(
            "| {} | {} | {} | {bytes_of_process:.0} | {bytes_of_context:.0} | {} | {} | {} |\n",
            question.processes,
            question.processes * question.contexts,
            question.runnable,
            times(&probe.steps),
            times(&probe.calls),
            probe.steps.len(),
        ));
    }
    out
}
