//! What writing pages costs those who decode meanwhile: the same generations by processes whose pages are written to
//! disk as they come, and by some whose pages are not, in alternation. The model is mounted anew for each, since what
//! earlier ones have left in its pool would have to leave it, and be written, too.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::Daemon;
use harness::bench::random::Random;
use harness::said::greedy;
use syscalls::call::{Hello, Lifetime, Mount};
use syscalls::client::blocking::Client;
use syscalls::client::hello;

/// Programs at once, what each has before it generates, and what it generates.
const PROGRAMS: u64 = 8;
const PROMPT: u32 = 256;
const GENERATED: u32 = 192;

/// Rounds of each kind.
const ROUNDS: u64 = 5;

/// Measures, and prints what came of it.
pub fn measure(daemon: &Daemon, mount: &Mount) -> Result<()> {
    let mut times: [Vec<Duration>; 2] = Default::default();
    let mut written = [0; 2];
    for round in 0..ROUNDS {
        for (kind, lifetime) in [Lifetime::Detached, Lifetime::Persistent].into_iter().enumerate() {
            let model = daemon.client().mount_with(mount.clone(), |_| {})?.name;
            let before = daemon.client().stat(None, None)?.swap_out_bytes;
            times[kind].push(together(daemon, &model, lifetime, 1 + 2 * round + kind as u64)?);
            written[kind] += daemon.client().stat(None, None)?.swap_out_bytes - before;
            daemon.client().unmount(&model, true)?;
        }
    }
    let [without, with] = times.map(|mut times| {
        times.sort();
        times[times.len() / 2].as_secs_f64()
    });
    ensure!(written[0] == 0 && written[1] > 0, "{written:?} bytes were written");
    println!(
        "{PROGRAMS} × ({PROMPT} in, {GENERATED} out): {without:.3} s, and {with:.3} s with {} MiB written meanwhile: {:+.1} %",
        (written[1] / ROUNDS) >> 20,
        (with / without - 1.0) * 100.0
    );
    Ok(())
}

/// The time from the first request to the last reply.
fn together(daemon: &Daemon, model: &str, lifetime: Lifetime, seed: u64) -> Result<Duration> {
    let start = Barrier::new(PROGRAMS as usize + 1);
    std::thread::scope(|scope| {
        let programs: Vec<_> = (0..PROGRAMS)
            .map(|n| {
                let start = &start;
                scope.spawn(move || -> Result<()> {
                    let hello = Hello { lifetime, ..hello("beside") };
                    let begun = Client::connect_with(&daemon.socket(), hello).and_then(|mut client| {
                        let context = client.open(Some(model))?.context;
                        client.append_tokens(context, Random(seed * PROGRAMS + n).tokens(PROMPT))?;
                        Ok((client, context))
                    });
                    start.wait();
                    let (mut client, context) = begun?;
                    client.generate(greedy(context, GENERATED), |_| {})?;
                    client.call(syscalls::call::Exit { status: 0 })?;
                    Ok(())
                })
            })
            .collect();
        start.wait();
        let begun = Instant::now();
        for program in programs {
            program.join().expect("a program of the bench does not panic")?;
        }
        Ok(begun.elapsed())
    })
}
