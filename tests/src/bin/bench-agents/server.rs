//! The other side: a `llama-server` that lives as long as its value, and programs that speak HTTP to it.
//!
//! It listens on loopback, on a port that was free. A conversation is sent whole with each request, as its clients
//! do; the server finds out itself what of it is cached.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use syscalls::Token;
use syscalls::call::Class;

use crate::http::{Conversation, Http};
use crate::interrupt::{self, Registered};
use crate::system::{Agent, Answer, Arrival, Counters, Forked, System};

/// How long the server may take to load a model.
const LOAD_DEADLINE: Duration = Duration::from_secs(120);

/// Between two questions whether it has.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Ports are tried again where another program was quicker.
const STARTS_MAX: u32 = 3;

/// How the server is started, and asked, in one row of the table.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Arguments behind those that every setting has: the model, the threads and the port.
    pub args: Vec<String>,
    /// Whether greedy choice is asked for in the way that costs the server least: the only sampler is `top_k` 1.
    pub lean_sampling: bool,
    /// Whether copies are asked for by `n_cmpl`, which shares the prompt's cells, or one by one.
    pub copies_by_one_request: bool,
}

impl Setting {
    /// As the server comes.
    pub fn defaults() -> Setting {
        Setting { args: Vec::new(), lean_sampling: false, copies_by_one_request: false }
    }

    /// As somebody sets it who knows the case.
    pub fn tuned(args: &str) -> Setting {
        let args = args.split_whitespace().map(str::to_owned).collect();
        Setting { args, lean_sampling: true, copies_by_one_request: false }
    }

    /// As somebody sets it who must, but else does not care.
    pub fn plain(args: &str) -> Setting {
        Setting { lean_sampling: false, ..Setting::tuned(args) }
    }

    /// Cells of its pool: what `-c` says, or the model's own positions.
    fn cells(&self, positions: u32) -> u64 {
        let given = self.args.iter().position(|a| a == "-c").and_then(|at| self.args.get(at + 1));
        given.and_then(|cells| cells.parse().ok()).unwrap_or(u64::from(positions))
    }
}

/// What every start has in common.
#[derive(Clone, Debug)]
pub struct Installed {
    /// The executable.
    pub program: PathBuf,
    /// Where it may write its log.
    pub log: PathBuf,
    pub threads: u32,
}

/// A server that runs.
pub struct Server {
    child: Child,
    registered: Registered,
    http: Http,
    cells: u64,
}

impl Server {
    /// Starts one, waits until it has loaded the model, and runs it once.
    pub fn start(installed: &Installed, model: &Path, positions: u32, setting: &Setting) -> Result<Server> {
        let mut starts = 0;
        let server = loop {
            starts += 1;
            match Server::try_start(installed, model, positions, setting) {
                Ok(server) => break server,
                Err(error) if starts < STARTS_MAX && !interrupt::happened() => eprintln!("bench: {error:#}"),
                Err(error) => return Err(error),
            }
        };
        let warm_up: Vec<Token> = (0..32).map(|n| Token(100 + n)).collect();
        Conversation::new(server.http.clone()).turn(&warm_up, 2, &|_| true)?;
        Ok(server)
    }

    fn try_start(installed: &Installed, model: &Path, positions: u32, setting: &Setting) -> Result<Server> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = File::create(&installed.log)?;
        let child = Command::new(&installed.program)
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["--threads", &installed.threads.to_string()])
            .arg("--model")
            .arg(model)
            .args(&setting.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} does not start", installed.program.display()))?;
        let registered = interrupt::register(child.id());
        let http = Http::new(port, setting.lean_sampling, setting.copies_by_one_request);
        let mut server = Server { child, registered, http, cells: setting.cells(positions) };
        server.wait_until_ready(&installed.log)?;
        Ok(server)
    }

    fn wait_until_ready(&mut self, log: &Path) -> Result<()> {
        let begun = Instant::now();
        while !self.http.is_ready() {
            if let Some(status) = self.child.try_wait()? {
                let text = std::fs::read_to_string(log).unwrap_or_default();
                let last: Vec<&str> = text.lines().rev().take(3).collect();
                bail!(
                    "llama-server ended with {status}: {}",
                    last.into_iter().rev().collect::<Vec<_>>().join(" / ")
                );
            }
            if begun.elapsed() > LOAD_DEADLINE {
                bail!("llama-server has not loaded the model within {LOAD_DEADLINE:?}");
            }
            std::thread::sleep(ASK_EVERY);
        }
        Ok(())
    }

    /// All copies in one request.
    fn fork_by_request(&self, prompt: &[Token], copies: u32, generate: u32) -> Result<Vec<Answer>> {
        let mut answers = vec![Answer::begun(); copies as usize];
        self.http.stream(prompt, generate, json!({ "n_cmpl": copies }), &mut answers, &|_| true)?;
        Ok(answers)
    }

    /// A request for each copy.
    fn fork_by_copies(&self, prompt: &[Token], copies: u32, generate: u32) -> Result<Vec<Answer>> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..copies)
                .map(|_| {
                    let mut conversation = Conversation::new(self.http.clone());
                    scope.spawn(move || conversation.turn(prompt, generate, &|_| true))
                })
                .collect();
            threads.into_iter().map(|t| t.join().expect("a client of the bench does not panic")).collect()
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.registered.kill();
        // It is this program's own child, so there is somebody to wait for.
        let _ = self.child.wait();
        self.registered.forget();
    }
}

impl System for Server {
    fn agent(&self, _: Class) -> Result<Box<dyn Agent>> {
        Ok(Box::new(Conversation::new(self.http.clone())))
    }

    fn counters(&self) -> Result<Option<Counters>> {
        Ok(None)
    }

    fn cells(&self) -> u64 {
        self.cells
    }

    fn fork(&self, prompt: &[Token], copies: u32, generate: u32) -> Result<Forked> {
        let mut first = Conversation::new(self.http.clone());
        let said = first.turn(prompt, 1, &|_| true)?;
        let whole: Vec<Token> = prompt.iter().chain(&said.tokens).copied().collect();
        let answers = if self.http.copies_by_one_request {
            self.fork_by_request(&whole, copies, generate)?
        } else {
            self.fork_by_copies(&whole, copies, generate)?
        };
        Ok(Forked { first: said.tokens, answers, fork_s: None, fork_evaluated: 0 })
    }

    fn open_loop(&self, clients: &[Vec<Arrival>], end: Duration) -> Result<Vec<Vec<Answer>>> {
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let threads: Vec<Vec<_>> = clients
                .iter()
                .map(|arrivals| {
                    let send = |arrival| {
                        let http = self.http.clone();
                        scope.spawn(move || send_at_time(http, arrival, begun, end))
                    };
                    arrivals.iter().map(send).collect()
                })
                .collect();
            std::thread::sleep(end.saturating_sub(begun.elapsed()));
            // Requests that have no answer yet would wait for one.
            self.registered.kill();
            let join = |t: std::thread::ScopedJoinHandle<'_, Answer>| {
                t.join().expect("a client of the bench does not panic")
            };
            Ok(threads.into_iter().map(|client| client.into_iter().map(join).collect()).collect())
        })
    }
}

/// One request of an open loop. At the end the server is killed, so a broken connection is nothing to report.
fn send_at_time(http: Http, arrival: &Arrival, begun: Instant, end: Duration) -> Answer {
    std::thread::sleep(arrival.after.saturating_sub(begun.elapsed()));
    let mut answers = [Answer::begun()];
    let go_on = |_| begun.elapsed() < end;
    if let Err(error) = http.stream(&arrival.prompt, arrival.generate, json!({}), &mut answers, &go_on) {
        answers[0].trouble = Some(error.to_string());
    }
    let [answer] = answers;
    answer
}
