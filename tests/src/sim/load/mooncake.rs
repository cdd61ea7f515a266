//! The Mooncake trace: conversations with a service, with ids of the 512-token blocks of their prompts, so that it is
//! known which prompts begin alike. (`conversation_trace.jsonl` of kvcache-ai/Mooncake, Apache 2.0.)
//!
//! Requests whose prompts begin with the same block after the first one, which most share, are of one conversation
//! and go to the same client.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use syscalls::call::Class;

use super::{Load, Part, Task, clients};
use crate::sim::chance::mix;

/// Tokens of a block.
const BLOCK_TOKENS: u32 = 512;

/// Blocks that most conversations have in common: the system prompt.
const BLOCKS_OF_ALL: usize = 1;

#[derive(Deserialize)]
struct Request {
    /// In milliseconds.
    timestamp: u64,
    input_length: u32,
    output_length: u32,
    hash_ids: Vec<u64>,
}

/// Reads the first `count` requests of a trace.
///
/// # Errors
///
/// The file cannot be read, or is another kind of file.
pub fn read(path: &Path, count: usize, clients_count: usize, seed: u64) -> Result<Load> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    parse(&text, count, clients_count, seed).with_context(|| path.display().to_string())
}

fn parse(text: &str, count: usize, clients_count: usize, seed: u64) -> Result<Load> {
    let mut tasks = Vec::new();
    for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()).take(count) {
        let request: Request = serde_json::from_str(line)
            .with_context(|| format!("line {number} is no request of a Mooncake trace"))?;
        tasks.push(task(&request, clients_count, seed));
    }
    let name = format!("mooncake conversations, {} requests", tasks.len());
    Ok(Load::new(name, clients(clients_count, "client", Class::Normal), tasks))
}

fn task(request: &Request, clients_count: usize, seed: u64) -> Task {
    let of = request.hash_ids.get(BLOCKS_OF_ALL).or(request.hash_ids.first()).copied().unwrap_or_default();
    let client = (mix(seed, of) % clients_count.max(1) as u64) as usize;
    let starts = (0..).map(|n| n * BLOCK_TOKENS);
    let parts = request.hash_ids.iter().zip(starts).map(|(id, start)| Part {
        seed: mix(seed, *id),
        tokens: request.input_length.saturating_sub(start).min(BLOCK_TOKENS),
    });
    let parts = parts.filter(|p| p.tokens > 0).collect();
    Task::request(request.timestamp * 1000, client, parts, request.output_length.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::load::Act;

    const TRACE: &str = r#"{"timestamp": 0, "input_length": 1200, "output_length": 52, "hash_ids": [46, 47, 2353]}
{"timestamp": 3000, "input_length": 1100, "output_length": 5, "hash_ids": [46, 47, 2366]}"#;

    #[test]
    fn trace_gives_prompts_that_begin_alike() {
        let load = parse(TRACE, 10, 4, 1).expect("it is a trace");
        let prompt = |n: usize| match &load.tasks[n].acts[1] {
            Act::Append(parts) => parts.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(prompt(0)[..2], prompt(1)[..2]);
        assert_ne!(prompt(0)[2].seed, prompt(1)[2].seed);
        assert_eq!(prompt(1).iter().map(|p| p.tokens).sum::<u32>(), 1100);
        assert_eq!((load.tasks[1].at_us, load.tasks[0].client == load.tasks[1].client), (3_000_000, true));
        assert!(format!("{:#}", parse("{}", 1, 1, 1).expect_err("it is none")).contains("line 1"));
    }
}
