//! llama.cpp's own benches, run as programs and read from their JSON.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Names the folder that holds `llama-bench` and `llama-batched-bench`.
const PEER_VAR: &str = "LLMASOS_PEER_BIN";

/// The folder of llama.cpp's tools.
pub struct Peer {
    bin: PathBuf,
    threads: u32,
}

/// Whether a peer runs the fused attention kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flash {
    Off,
    On,
}

/// How a peer lays its KV cells out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cells {
    /// A pool of its own for each sequence, which cannot be shared.
    Split,
    /// One pool for all, as the kernel needs it.
    Unified,
}

/// Tokens per second of one sequence alone.
#[derive(Clone, Copy, Debug)]
pub struct Single {
    pub prefill: f64,
    pub decode: f64,
}

impl Peer {
    /// Finds the tools by variable, beside the user's cache, or on the PATH.
    pub fn find(threads: u32) -> Option<Peer> {
        let by_var = std::env::var_os(PEER_VAR).map(PathBuf::from);
        let cached = std::env::var_os("HOME").map(|h| Path::new(&h).join(".cache/llmasos-peers/build/bin"));
        let on_path = std::env::var_os("PATH").map(|p| std::env::split_paths(&p).collect::<Vec<_>>());
        let folders = by_var.into_iter().chain(cached).chain(on_path.into_iter().flatten());
        let has_tools =
            |bin: &PathBuf| bin.join("llama-bench").is_file() && bin.join("llama-batched-bench").is_file();
        folders.into_iter().find(has_tools).map(|bin| Peer { bin, threads })
    }

    /// One of llama.cpp's programs, where it stands beside the tools.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        Some(self.bin.join(name)).filter(|path| path.is_file())
    }

    /// `llama-bench`: prefill of `prompt` tokens, then, on an empty context, decode of `generate` tokens.
    pub fn single(&self, model: &Path, prompt: u32, generate: u32, flash: Flash) -> Result<Single> {
        let rows = self.rows(model, &["-p", &prompt.to_string(), "-n", &generate.to_string()], flash)?;
        Ok(Single { prefill: speed(&rows, "n_prompt")?, decode: speed(&rows, "n_gen")? })
    }

    /// `llama-bench`: prefill of `prompt` tokens, then, behind as many, decode of `generate` tokens.
    pub fn single_at_depth(&self, model: &Path, prompt: u32, generate: u32, flash: Flash) -> Result<Single> {
        let prefill = self.rows(model, &["-p", &prompt.to_string(), "-n", "0"], flash)?;
        let depth = ["-p", "0", "-n", &generate.to_string(), "-d", &prompt.to_string()];
        let decode = self.rows(model, &depth, flash)?;
        Ok(Single { prefill: speed(&prefill, "n_prompt")?, decode: speed(&decode, "n_gen")? })
    }

    fn rows(&self, model: &Path, load: &[&str], flash: Flash) -> Result<Vec<Value>> {
        let flash = if flash == Flash::On { "1" } else { "0" };
        let mut command = Command::new(self.bin.join("llama-bench"));
        command.arg("-m").arg(model).args(["-o", "json", "-r", "1", "-fa", flash]);
        command.args(["-t", &self.threads.to_string()]).args(load);
        serde_json::from_str(&run(&mut command)?).context("llama-bench's output")
    }

    /// `llama-batched-bench`: `sequences` at once, each `prompt` tokens in and `generate` out. Gives all tokens,
    /// prompt and generated, per second of the whole.
    pub fn batched(
        &self,
        model: &Path,
        sequences: u32,
        prompt: u32,
        generate: u32,
        (flash, cells): (Flash, Cells),
    ) -> Result<f64> {
        let cells = (sequences * (prompt + generate), cells);
        let row = self.batched_row(model, sequences, (prompt, generate), cells, flash, &[])?;
        row["speed"].as_f64().context("llama-batched-bench tells no speed")
    }

    /// `llama-batched-bench`: `sequences` that share `prompt` tokens decode `generate` tokens each. Gives the tokens
    /// per second of the decoding alone.
    pub fn shared_decode(
        &self,
        model: &Path,
        sequences: u32,
        prompt: u32,
        generate: u32,
        flash: Flash,
    ) -> Result<f64> {
        let cells = (prompt + sequences * generate, Cells::Unified);
        let row = self.batched_row(model, sequences, (prompt, generate), cells, flash, &["-pps"])?;
        row["speed_tg"].as_f64().context("llama-batched-bench tells no speed")
    }

    fn batched_row(
        &self,
        model: &Path,
        sequences: u32,
        (prompt, generate): (u32, u32),
        (cells, layout): (u32, Cells),
        flash: Flash,
        more: &[&str],
    ) -> Result<Value> {
        let mut command = Command::new(self.bin.join("llama-batched-bench"));
        command.arg("-m").arg(model).args(["--output-format", "jsonl", "-b", "2048", "-ub", "512"]);
        command.args(["-c", &cells.to_string(), "-npl", &sequences.to_string()]);
        command.args(["-npp", &prompt.to_string(), "-ntg", &generate.to_string()]);
        command.args(["-t", &self.threads.to_string(), "-fa", if flash == Flash::On { "on" } else { "off" }]);
        command.args(more);
        if layout == Cells::Unified {
            command.arg("-kvu");
        }
        let out = run(&mut command)?;
        let row = out.lines().rev().find_map(|l| serde_json::from_str::<Value>(l).ok());
        row.context("llama-batched-bench printed no result")
    }
}

/// The speed in the row that measures this.
fn speed(rows: &[Value], wanted: &str) -> Result<f64> {
    let row = rows.iter().find(|r| r[wanted].as_u64().is_some_and(|n| n > 0));
    row.and_then(|r| r["avg_ts"].as_f64()).with_context(|| format!("llama-bench has no {wanted} row"))
}

fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let out = command.output().with_context(|| format!("{program} does not start"))?;
    if !out.status.success() {
        bail!(
            "{program} failed: {}",
            String::from_utf8_lossy(&out.stderr).lines().last().unwrap_or_default()
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
