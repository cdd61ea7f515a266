//! Somebody who chats: a message, a reply as it comes, and time to read it.

use std::time::{Duration, Instant};

use anyhow::Result;
use harness::Daemon;
use harness::bench::random::Random;
use harness::said::greedy;
use syscalls::Event;
use syscalls::call::{Class, Hello};
use syscalls::client::blocking::Client;
use syscalls::client::hello;

/// Replies of one talk, and tokens of each message.
const REPLIES: u32 = 3;
const MESSAGE: u32 = 16;

/// What one talk was like.
#[derive(Clone, Copy, Debug)]
pub struct Talk {
    /// Mean time between tokens.
    pub between_ms: f64,
    /// The longest.
    pub longest_ms: f64,
    /// Mean time to the first token.
    pub first_ms: f64,
    /// The share of the time in which replies were made.
    pub busy: f64,
}

/// Talks with a model as an interactive process.
pub fn talk(daemon: &Daemon, model: &str, seed: u32, tokens: u32, pause: Duration) -> Result<Talk> {
    let interactive = Hello { class: Class::Interactive, ..hello("chat") };
    let mut client = Client::connect_with(&daemon.socket(), interactive)?;
    let context = client.open(Some(model))?.context;
    let begun = Instant::now();
    let (mut between, mut longest, mut first, mut busy) = (0.0, 0.0f64, 0.0, Duration::ZERO);
    for reply in 0..REPLIES {
        client.append_tokens(context, Random(u64::from(seed * REPLIES + reply) + 1).tokens(MESSAGE))?;
        let asked = Instant::now();
        let mut came = Vec::with_capacity(tokens as usize);
        client.generate(greedy(context, tokens), |event| {
            if matches!(event, Event::Tokens { .. }) {
                came.push(asked.elapsed().as_secs_f64() * 1e3);
            }
        })?;
        busy += asked.elapsed();
        first += came[0];
        between += (came[came.len() - 1] - came[0]) / f64::from(tokens - 1);
        longest = came.windows(2).map(|pair| pair[1] - pair[0]).fold(longest, f64::max);
        std::thread::sleep(pause);
    }
    let busy = busy.as_secs_f64() / begun.elapsed().as_secs_f64();
    let count = f64::from(REPLIES);
    client.close(context)?;
    Ok(Talk { between_ms: between / count, longest_ms: longest, first_ms: first / count, busy })
}
