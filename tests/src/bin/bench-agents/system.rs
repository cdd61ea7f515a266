//! What a case needs of a side: agents that hold a conversation, forks, and clients that send whatever the others
//! do. [`crate::llmasos`] and [`crate::server`] are the two sides.

use std::time::{Duration, Instant};

use anyhow::Result;
use syscalls::Token;
use syscalls::call::Class;

/// What came of one request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// When it was sent.
    pub asked: Instant,
    /// The tokens that came.
    pub tokens: Vec<Token>,
    /// When each of them came.
    pub times: Vec<Instant>,
    /// When the reply was complete.
    pub done: Instant,
    /// Prompt tokens that were evaluated for it, as the side reports them.
    pub evaluated: u32,
    /// Prompt tokens that were there already, as the side reports them.
    pub shared: u32,
    /// All tokens came that were asked for.
    pub complete: bool,
    /// What the side said instead.
    pub trouble: Option<String>,
}

impl Answer {
    /// Nothing has come yet.
    pub fn begun() -> Answer {
        let now = Instant::now();
        Answer {
            asked: now,
            tokens: Vec::new(),
            times: Vec::new(),
            done: now,
            evaluated: 0,
            shared: 0,
            complete: false,
            trouble: None,
        }
    }

    /// Takes tokens that have come just now.
    pub fn take(&mut self, tokens: impl IntoIterator<Item = Token>) {
        let before = self.tokens.len();
        self.tokens.extend(tokens);
        let now = Instant::now();
        self.times.extend((before..self.tokens.len()).map(|_| now));
    }

    /// Takes the end of the reply.
    pub fn finish(&mut self, wanted: u32) {
        self.done = Instant::now();
        self.complete = self.trouble.is_none() && self.tokens.len() >= wanted as usize;
    }

    /// Seconds from the request to its first token.
    pub fn first_s(&self) -> Option<f64> {
        self.times.first().map(|first| first.duration_since(self.asked).as_secs_f64())
    }

    /// Seconds between tokens that follow each other, with the time at which each gap ended.
    pub fn gaps_s(&self) -> impl Iterator<Item = (Instant, f64)> {
        self.times.windows(2).map(|pair| (pair[1], pair[1].duration_since(pair[0]).as_secs_f64()))
    }
}

/// Asked after each token, with how many there are; ends the request by `false`.
pub type GoOn<'a> = &'a (dyn Fn(usize) -> bool + Sync);

/// One conversation of one program.
pub trait Agent: Send {
    /// Adds tokens to the conversation and generates; what comes is part of the conversation, too. A side that
    /// refuses or breaks off says so in the answer; an error is a side that is not there any more.
    fn turn(&mut self, new: &[Token], generate: u32, go_on: GoOn<'_>) -> Result<Answer>;

    /// Adds tokens to the conversation, and gives the tokens most likely to follow with the logarithms of their
    /// probabilities.
    fn likely(&mut self, new: &[Token]) -> Result<Vec<(Token, f64)>>;
}

/// How many tokens [`Agent::likely`] gives.
pub const LIKELY: u32 = 16;

/// Copies of a conversation that go on together.
pub struct Forked {
    /// What the conversation said before it was copied.
    pub first: Vec<Token>,
    /// What each copy said.
    pub answers: Vec<Answer>,
    /// How long the fork alone took; none where a side has no such call.
    pub fork_s: Option<f64>,
    /// Prompt tokens evaluated by the fork alone.
    pub fork_evaluated: u64,
}

/// A request of [`System::open_loop`].
#[derive(Clone, Debug)]
pub struct Arrival {
    /// After the beginning of the loop.
    pub after: Duration,
    pub prompt: Vec<Token>,
    pub generate: u32,
}

/// Counters of a side since it was started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    pub evaluated: u64,
    pub shared: u64,
    pub recomputed: u64,
    pub swap_out_bytes: u64,
    pub swap_in_bytes: u64,
    /// The most cells that were in use at once.
    pub cells_used: u64,
}

/// A side with the model loaded and run once.
pub trait System: Sync {
    /// A program that connects.
    fn agent(&self, class: Class) -> Result<Box<dyn Agent>>;

    /// What the side has counted; none where it counts by request only.
    fn counters(&self) -> Result<Option<Counters>>;

    /// Cells of the KV pool.
    fn cells(&self) -> u64;

    /// Evaluates a prompt, copies it, and lets all copies generate at once.
    fn fork(&self, prompt: &[Token], copies: u32, generate: u32) -> Result<Forked>;

    /// Clients that send their requests at set times, whatever has become of the earlier ones. At the end all are
    /// given up; the answers have what had come by then. The side is of no use afterwards.
    fn open_loop(&self, clients: &[Vec<Arrival>], end: Duration) -> Result<Vec<Vec<Answer>>>;
}
