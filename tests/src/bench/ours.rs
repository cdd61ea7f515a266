//! The same measurements through the daemon, as a program would see them.

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use syscalls::call::{Call, Class, Mount, Setpriority};
use syscalls::client;
use syscalls::client::blocking::Client;
use syscalls::reply::GeneratedReply;
use syscalls::{ContextId, Event, Token, Tokens};

use super::peer::Single;
use crate::Daemon;
use crate::said::greedy;

/// The name that the bench mounts its model under.
pub const MODEL: &str = "bench";

/// Tokens of the prompt that a model is warmed up with.
const WARM_UP_TOKENS: u32 = 32;

/// Microseconds of a second.
const SECOND_US: f64 = 1e6;

/// Mounts a model with room for `cells` tokens, and runs it once, as llama.cpp's tools do before they measure:
/// the first pass reads the weights from the file.
pub fn mount(daemon: &Daemon, model: &Path, cells: u32, threads: u32) -> Result<()> {
    let path = model.to_str().context("the model's path is not UTF-8")?;
    let mount = Mount { context: Some(Tokens(cells)), threads: Some(threads), ..client::mount(path, MODEL) };
    let mut client = daemon.client();
    client.mount_with(mount, |_: Event| {})?;
    one(&mut client, tokens(WARM_UP_TOKENS, 0), 2).map(drop)
}

/// Takes the model away.
pub fn unmount(daemon: &Daemon) -> Result<()> {
    Ok(daemon.client().unmount(MODEL, true)?)
}

/// Prefill of `prompt` tokens, then, on another context of one token, decode of `generate` tokens.
pub fn single(daemon: &Daemon, prompt: u32, generate: u32) -> Result<Single> {
    let mut client = daemon.client();
    let prefilled = one(&mut client, tokens(prompt, 1), 1)?;
    let decoded = one(&mut client, tokens(1, 2), generate + 1)?;
    let decode_us = (decoded.usage.total_us - decoded.usage.first_token_us) as f64;
    Ok(Single {
        prefill: f64::from(prompt) / (prefilled.usage.first_token_us as f64 / SECOND_US),
        decode: f64::from(generate) / (decode_us / SECOND_US),
    })
}

/// `sequences` programs at once, each with a connection of its own. Gives all tokens, prompt and generated, per
/// second from the first request to the last reply.
pub fn batched(daemon: &Daemon, sequences: u32, prompt: u32, generate: u32) -> Result<f64> {
    let start = Barrier::new(sequences as usize + 1);
    let elapsed = std::thread::scope(|scope| -> Result<Duration> {
        let programs: Vec<_> = (0..sequences)
            .map(|n| {
                let (start, mut client) = (&start, daemon.client());
                scope.spawn(move || {
                    start.wait();
                    one(&mut client, tokens(prompt, n + 1), generate).map(drop)
                })
            })
            .collect();
        start.wait();
        let begun = Instant::now();
        for program in programs {
            program.join().expect("a program of the bench does not panic")?;
        }
        Ok(begun.elapsed())
    })?;
    Ok(f64::from(sequences * (prompt + generate)) / elapsed.as_secs_f64())
}

/// Round trips of a call that does nothing, in microseconds, sorted.
pub fn null_calls(daemon: &Daemon, count: usize) -> Result<Vec<f64>> {
    let mut client = daemon.client();
    let nothing = Call::from(Setpriority { pid: client.pid(), class: Some(Class::Normal), nice: None });
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        client.call(nothing.clone())?;
        times.push(begun.elapsed().as_secs_f64() * SECOND_US);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// What a daemon without work takes: resident megabytes, and percent of one processor over `watch`.
pub fn idle(daemon: &Daemon, watch: Duration) -> Result<(f64, f64)> {
    let before = cpu_ticks(daemon.os_pid())?;
    std::thread::sleep(watch);
    let ticks = cpu_ticks(daemon.os_pid())? - before;
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.os_pid()))?;
    let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = resident.trim().trim_end_matches(" kB").parse()?;
    // The kernel counts processor time in hundredths of a second (USER_HZ).
    Ok((kib / 1024.0, ticks as f64 / watch.as_secs_f64()))
}

fn one(client: &mut Client, prompt: Vec<Token>, generate: u32) -> Result<GeneratedReply> {
    let context: ContextId = client.open(Some(MODEL))?.context;
    client.append_tokens(context, prompt)?;
    let reply = client.generate(greedy(context, generate), |_| {})?;
    client.close(context)?;
    Ok(reply)
}

/// Token ids that differ from one seed to the next, so that no prefix is shared.
fn tokens(count: u32, seed: u32) -> Vec<Token> {
    (0..count).map(|n| Token(100 + (n.wrapping_mul(7919).wrapping_add(seed * 104_729)) % 400)).collect()
}

fn cpu_ticks(os_pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{os_pid}/stat"))?;
    let after_name = stat.rsplit_once(')').context("no name in /proc/PID/stat")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    // Fields 14 and 15 of proc(5), user and system time, counted from the state, which is field 3.
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}
