//! Our side: a mount of a daemon, and programs that speak to it through the client library, each on a connection of
//! its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use harness::Daemon;
use harness::bench::ours::MODEL;
use harness::said::greedy;
use syscalls::call::{Append, Class, Generate};
use syscalls::client::blocking::Client;
use syscalls::client::hello;
use syscalls::reply::{Frame, Reply, Stats};
use syscalls::{CallId, ContextId, Errno, Event, Fault, Token};

use crate::system::{Agent, Answer, Arrival, Counters, Forked, GoOn, LIKELY, System};

/// Positions of a page.
const PAGE_TOKENS: u64 = 64;

/// Between two looks at how many frames are taken.
const WATCH_EVERY: Duration = Duration::from_millis(20);

/// A model that is mounted until this is dropped.
pub struct Llmasos<'a> {
    daemon: &'a Daemon,
    at_start: Stats,
    watch: Watch,
}

impl<'a> Llmasos<'a> {
    /// Takes over a model that [`harness::bench::ours::mount`] has mounted.
    pub fn new(daemon: &'a Daemon) -> Result<Llmasos<'a>> {
        let mut client = daemon.client();
        let at_start = client.stat(None, None)?;
        Ok(Llmasos { daemon, at_start, watch: Watch::start(client) })
    }

    fn connect(&self, class: Class) -> Result<Client> {
        let mut hello = hello("bench-agents");
        hello.class = class;
        Ok(Client::connect_with(&self.daemon.socket(), hello)?)
    }
}

impl Drop for Llmasos<'_> {
    fn drop(&mut self) {
        self.watch.stop();
        // A daemon that is gone has unmounted, too.
        let _ =
            Client::connect(&self.daemon.socket(), "bench-agents").and_then(|mut c| c.unmount(MODEL, true));
    }
}

impl System for Llmasos<'_> {
    fn agent(&self, class: Class) -> Result<Box<dyn Agent>> {
        let mut client = self.connect(class)?;
        let context = client.open(Some(MODEL))?.context;
        Ok(Box::new(Program { client, context }))
    }

    fn counters(&self) -> Result<Option<Counters>> {
        let (now, then) = (self.daemon.client().stat(None, None)?, &self.at_start);
        Ok(Some(Counters {
            evaluated: now.prompt_tokens_evaluated - then.prompt_tokens_evaluated,
            shared: now.prompt_tokens_shared - then.prompt_tokens_shared,
            recomputed: now.tokens_recomputed - then.tokens_recomputed,
            swap_out_bytes: now.swap_out_bytes - then.swap_out_bytes,
            swap_in_bytes: now.swap_in_bytes - then.swap_in_bytes,
            cells_used: self.watch.most.load(Ordering::Relaxed) * PAGE_TOKENS,
        }))
    }

    fn cells(&self) -> u64 {
        self.at_start.frames_total * PAGE_TOKENS
    }

    fn fork(&self, prompt: &[Token], copies: u32, generate: u32) -> Result<Forked> {
        let mut client = self.connect(Class::Normal)?;
        let context = client.open(Some(MODEL))?.context;
        client.append_tokens(context, prompt.to_vec())?;
        let first = client.generate(greedy(context, 1), |_| {})?.tokens;
        let before = client.stat(None, None)?.prompt_tokens_evaluated;
        let asked = Instant::now();
        let contexts = client.fork(context, copies)?;
        let fork_s = Some(asked.elapsed().as_secs_f64());
        let fork_evaluated = client.stat(None, None)?.prompt_tokens_evaluated - before;
        let mut many = Many::default();
        for context in contexts {
            many.ask(&mut client, greedy(context, generate), asked)?;
        }
        many.take_all(&mut client)?;
        Ok(Forked { first, answers: many.answers, fork_s, fork_evaluated })
    }

    fn open_loop(&self, clients: &[Vec<Arrival>], end: Duration) -> Result<Vec<Vec<Answer>>> {
        let mut programs = Vec::new();
        for arrivals in clients {
            let mut client = self.connect(Class::Normal)?;
            let contexts: Result<Vec<_>, Fault> =
                arrivals.iter().map(|_| Ok(client.open(Some(MODEL))?.context)).collect();
            programs.push((client, contexts?));
        }
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let threads: Vec<_> = programs
                .into_iter()
                .zip(clients)
                .map(|((client, contexts), arrivals)| {
                    scope.spawn(move || send_at_times(client, &contexts, arrivals, begun, end))
                })
                .collect();
            threads.into_iter().map(|t| t.join().expect("a client of the bench does not panic")).collect()
        })
    }
}

/// A program with one context.
struct Program {
    client: Client,
    context: ContextId,
}

impl Agent for Program {
    fn turn(&mut self, new: &[Token], generate: u32, go_on: GoOn<'_>) -> Result<Answer> {
        let mut answer = Answer::begun();
        let interrupter = self.client.interrupter();
        let result = self.client.append_tokens(self.context, new.to_vec()).and_then(|_| {
            let mut ended = false;
            self.client.generate(greedy(self.context, generate), |event| {
                if let Event::Tokens { tokens, .. } = event {
                    answer.take(tokens);
                    if !ended && !go_on(answer.tokens.len()) {
                        ended = true;
                        // A connection that is gone is the result of the generation, too.
                        let _ = interrupter.interrupt();
                    }
                }
            })
        });
        match result {
            Ok(reply) => {
                answer.evaluated = reply.usage.prompt_tokens_evaluated;
                answer.shared = reply.usage.prompt_tokens_shared;
            }
            Err(fault) if fault.errno == Errno::ECONNRESET => return Err(fault.into()),
            Err(fault) => answer.trouble = Some(fault.to_string()),
        }
        answer.finish(generate);
        Ok(answer)
    }

    fn likely(&mut self, new: &[Token]) -> Result<Vec<(Token, f64)>> {
        self.client.append_tokens(self.context, new.to_vec())?;
        let ask = Generate { logprobs: Some(LIKELY), stream: false, ..greedy(self.context, 1) };
        let reply = self.client.generate(ask, |_| {})?;
        let top = reply.logprobs.first().context("the daemon reports no probabilities")?.top.iter();
        Ok(top.map(|a| (a.token, f64::from(a.logprob))).collect())
    }
}

/// Generations of one connection that run at once.
#[derive(Default)]
struct Many {
    calls: Vec<(CallId, u32)>,
    answers: Vec<Answer>,
    open: usize,
}

impl Many {
    fn ask(&mut self, client: &mut Client, generate: Generate, asked: Instant) -> Result<()> {
        let wanted = generate.max_tokens.map_or(0, |t| t.0);
        self.calls.push((client.start(generate)?, wanted));
        self.answers.push(Answer { asked, ..Answer::begun() });
        self.open += 1;
        Ok(())
    }

    /// Takes a frame; those of other calls are let go by.
    fn take(&mut self, frame: Frame) -> Result<()> {
        let at = self.calls.iter().position(|(id, _)| *id == frame.id());
        let Some(at) = at else {
            return match frame {
                Frame::Reply(_, Err(fault)) => Err(fault.into()),
                _ => Ok(()),
            };
        };
        let (answer, wanted) = (&mut self.answers[at], self.calls[at].1);
        match frame {
            Frame::Event(_, Event::Tokens { tokens, .. }) => answer.take(tokens),
            Frame::Event(..) => {}
            Frame::Reply(_, result) => {
                match result {
                    Ok(Reply::Generated(reply)) => answer.evaluated = reply.usage.prompt_tokens_evaluated,
                    Ok(other) => bail!("generate was answered by {other:?}"),
                    Err(fault) => answer.trouble = Some(fault.to_string()),
                }
                answer.finish(wanted);
                self.open -= 1;
            }
        }
        Ok(())
    }

    fn take_all(&mut self, client: &mut Client) -> Result<()> {
        while self.open > 0 {
            self.take(client.next_frame()?)?;
        }
        Ok(())
    }
}

/// One client of an open loop. Its contexts are open already, so each request is two calls that wait for nothing.
fn send_at_times(
    mut client: Client,
    contexts: &[ContextId],
    arrivals: &[Arrival],
    begun: Instant,
    end: Duration,
) -> Result<Vec<Answer>> {
    let mut many = Many::default();
    let mut next = 0;
    loop {
        let now = begun.elapsed();
        if now >= end {
            return Ok(many.answers);
        }
        let due = arrivals.get(next).map_or(end, |arrival| arrival.after.min(end));
        if due <= now {
            let (context, arrival) = (contexts[next], &arrivals[next]);
            let tokens = Some(arrival.prompt.clone());
            client.start(Append { context, text: None, tokens, messages: None, special: false })?;
            many.ask(&mut client, greedy(context, arrival.generate), Instant::now())?;
            next += 1;
            continue;
        }
        client.set_timeout(Some(due - now))?;
        match client.next_frame() {
            Ok(frame) => many.take(frame)?,
            Err(fault) if fault.errno == Errno::ETIMEDOUT => {}
            Err(fault) => return Err(fault).context("an open loop broke off"),
        }
    }
}

/// Looks how many frames are taken, from time to time, and remembers the most.
struct Watch {
    most: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn start(mut client: Client) -> Watch {
        let (most, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (most_seen, end) = (Arc::clone(&most), Arc::clone(&ended));
        let look = move || {
            while !end.load(Ordering::Relaxed) {
                // Where the daemon is gone there is nothing to see, and the case says why.
                let Ok(stats) = client.stat(None, None) else { return };
                most_seen.fetch_max(stats.frames_total - stats.frames_free, Ordering::Relaxed);
                std::thread::sleep(WATCH_EVERY);
            }
        };
        Watch { most, ended, thread: Some(std::thread::spawn(look)) }
    }

    fn stop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does nothing that can panic.
            let _ = thread.join();
        }
    }
}
