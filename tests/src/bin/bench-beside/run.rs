//! A training run as a process of the daemon, and how fast it gets on.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use harness::{Daemon, wait_for};
use syscalls::Pid;
use syscalls::call::Signal;
use syscalls::client::blocking::Client;

/// The run.
pub struct Training {
    pub pid: Pid,
    child: Child,
    /// Tokens so far, as its events tell.
    tokens: Arc<AtomicU64>,
}

impl Training {
    /// Starts a run of nanoGPT's small configuration, in steps that are told one by one.
    pub fn start(daemon: &Daemon, threads: u32) -> Result<Training> {
        let folder = daemon.dir().display().to_string();
        let text: String =
            (0..20_000).map(|n| format!("line {n} of a text that says what line {n} says\n")).collect();
        std::fs::write(daemon.dir().join("text.txt"), text)?;
        let spec = format!(
            r#"(
    model: Gpt(layers: 4, heads: 4, width: 128, context: 64),
    data: (train: Text(["{folder}/text.txt"])),
    tokeniser: (kind: Train(Char)),
    steps: 10000,
    evaluation: (every: 10000),
    checkpoint: (every: 10000),
    threads: {threads},
    out: "{folder}/run",
)"#
        );
        let path = daemon.dir().join("spec.ron");
        std::fs::write(&path, spec)?;
        let mut command = daemon.command("llmasos");
        command.arg("train").arg(path).args(["--quiet", "--events", "1", "--cache"]);
        command.arg(daemon.dir().join("cache")).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let tokens = Arc::new(AtomicU64::new(0));
        let (lines, told) = (BufReader::new(child.stdout.take().context("it is piped")?), tokens.clone());
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(tokens) = event["tokens"].as_u64() {
                    told.store(tokens, Ordering::Relaxed);
                }
            }
        });
        let mut client = daemon.client();
        let pid = wait_for("the run", || {
            let runs = client.ps().ok()?;
            let run = runs.iter().find(|process| process.name == "train")?;
            (tokens.load(Ordering::Relaxed) > 0).then_some(run.pid)
        });
        Ok(Training { pid, child, tokens })
    }

    /// What it does a second while `meanwhile` goes on.
    pub fn tokens_per_second(&mut self, meanwhile: impl FnOnce() -> Result<()>) -> Result<f64> {
        let (before, begun) = (self.tokens.load(Ordering::Relaxed), Instant::now());
        meanwhile()?;
        let tokens = self.tokens.load(Ordering::Relaxed) - before;
        Ok(tokens as f64 / begun.elapsed().as_secs_f64())
    }

    /// Ends it.
    pub fn end(mut self, client: &mut Client) -> Result<()> {
        client.kill(self.pid, Signal::Kill)?;
        self.child.wait()?;
        Ok(())
    }
}
