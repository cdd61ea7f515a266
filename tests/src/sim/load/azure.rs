//! The Azure trace of 2023: when requests came to a service, how long their prompts and answers were, and not what
//! they said. (`AzureLLMInferenceTrace_conv.csv` and `_code.csv` of Azure/AzurePublicDataset, CC BY 4.0.)
//!
//! The trace names no users, so each request goes to one of as many clients as are asked for, by chance, some of
//! them busier than others; and no two prompts have anything in common.

use std::path::Path;

use anyhow::{Context, Result, bail};
use syscalls::call::Class;

use super::{Load, Part, Task, clients};
use crate::sim::chance::{Chance, mix};

/// The first line of the file.
const HEADER: &str = "TIMESTAMP,ContextTokens,GeneratedTokens";

/// Reads the first `count` requests of a trace.
///
/// # Errors
///
/// The file cannot be read, or is another kind of file.
pub fn read(path: &Path, count: usize, clients_count: usize, seed: u64) -> Result<Load> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let name = path.file_stem().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    parse(&text, &name, count, clients_count, seed).with_context(|| path.display().to_string())
}

fn parse(text: &str, name: &str, count: usize, clients_count: usize, seed: u64) -> Result<Load> {
    let mut lines = text.lines().zip(1..);
    if lines.next().is_none_or(|(line, _)| line.trim() != HEADER) {
        bail!("this is no Azure trace: its first line is not `{HEADER}`");
    }
    let mut chance = Chance::of(seed, 1);
    let mut first = None;
    let mut tasks = Vec::new();
    for (line, number) in lines.filter(|(line, _)| !line.trim().is_empty()).take(count) {
        let (at, prompt, answer) = fields(line).with_context(|| format!("line {number}: `{line}`"))?;
        let begin = *first.get_or_insert(at);
        let part = Part { seed: mix(seed, number), tokens: prompt.max(1) };
        let client = busier_first(&mut chance, clients_count);
        tasks.push(Task::request(at.saturating_sub(begin), client, vec![part], answer.max(1)));
    }
    Ok(Load::new(
        format!("{name}, {} requests", tasks.len()),
        clients(clients_count, "client", Class::Normal),
        tasks,
    ))
}

/// A client by chance: the one at place n is asked for in proportion to 1 / (n + 1).
fn busier_first(chance: &mut Chance, count: usize) -> usize {
    let weight = |n: usize| 1.0 / (n + 1) as f64;
    let total: f64 = (0..count).map(weight).sum();
    let mut left = chance.fraction() * total;
    (0..count)
        .find(|n| {
            left -= weight(*n);
            left < 0.0
        })
        .unwrap_or(0)
}

/// Microseconds, tokens of the prompt, and tokens of the answer.
fn fields(line: &str) -> Result<(u64, u32, u32)> {
    let mut fields = line.trim().split(',');
    let (Some(at), Some(prompt), Some(answer), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        bail!("it has not three fields");
    };
    Ok((microseconds(at)?, prompt.parse()?, answer.parse()?))
}

/// Of `2023-11-16 18:15:46.6805900`, since the beginning of the month: the traces are an hour long.
fn microseconds(timestamp: &str) -> Result<u64> {
    let (date, time) = timestamp.split_once(' ').context("the time has no date before it")?;
    let day: u64 = date.rsplit('-').next().unwrap_or_default().parse()?;
    let mut parts = time.split(':');
    let (Some(hours), Some(minutes), Some(seconds), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        bail!("the time is not hours, minutes and seconds");
    };
    let (hours, minutes): (u64, u64) = (hours.parse()?, minutes.parse()?);
    let seconds: f64 = seconds.parse()?;
    Ok((((day * 24 + hours) * 60 + minutes) * 60) * 1_000_000 + (seconds * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::load::Act;

    const TRACE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
        2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n2023-11-17 00:00:00.0000000,1,1\n";

    #[test]
    fn trace_gives_times_and_lengths() {
        let load = parse(TRACE, "t", 10, 4, 1).expect("it is a trace");
        let times: Vec<u64> = load.tasks.iter().map(|t| t.at_us).collect();
        assert_eq!(times, [0, 4_314_579, 20_653_319_410]);
        assert!(matches!(&load.tasks[1].acts[1], Act::Append(p) if p[0].tokens == 396));
        assert_eq!(load.tasks[1].acts[2], Act::Generate(109));
        assert_eq!(parse(TRACE, "t", 1, 4, 1).expect("it is a trace").tasks.len(), 1);
    }

    #[test]
    fn file_of_another_kind_is_refused_with_the_line() {
        let refused = |text: &str| format!("{:#}", parse(text, "t", 9, 4, 1).expect_err("it is no trace"));
        assert!(refused("time,tokens\n1,2\n").contains("first line"));
        assert!(refused(&format!("{HEADER}\n2023-11-16 18:15:46.0,374\n")).contains("line 2"));
        assert!(refused(&format!("{HEADER}\nyesterday,374,1\n")).contains("no date"));
    }
}
