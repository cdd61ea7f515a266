//! `simulate idle`: what idle processes and contexts cost.

use anyhow::Result;
use harness::sim::idle::{self, IDLE_TOKENS, Question};

use super::memory::live_bytes;

/// Measures what idle processes and contexts cost: memory, and time of the others' steps
///
/// Neither the bytes of one nor the time of a step may grow with their number. Times are of the core alone, by the
/// real clock, with an allocator that counts; other work on the machine makes them longer.
#[derive(clap::Args)]
pub struct Args {
    /// How many idle processes there are, each in a measurement of its own
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000", value_name = "N")]
    processes: Vec<usize>,
    /// Idle contexts of each process
    #[arg(long, default_value_t = 10, value_name = "N")]
    contexts: usize,
    /// How many processes generate beside them
    #[arg(long, value_delimiter = ',', default_value = "32,256", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    runnable: Vec<u32>,
    /// Tokens that each of these generates
    #[arg(long, default_value_t = 1000, value_name = "N")]
    tokens: u32,
}

/// Measures, and shows the table.
pub fn run(args: &Args) -> Result<()> {
    let mut answers = Vec::new();
    for runnable in &args.runnable {
        for processes in &args.processes {
            eprintln!("simulate: {processes} idle processes beside {runnable} that run");
            let runnable = *runnable as usize;
            let question =
                Question { processes: *processes, contexts: args.contexts, runnable, tokens: args.tokens };
            answers.push(idle::measure(&question, &live_bytes)?);
        }
    }
    println!("idle contexts have {IDLE_TOKENS} tokens in their logs\n\n{}", idle::table(&answers));
    Ok(())
}
