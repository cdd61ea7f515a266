//! The shell, `llmsh`: reads lines, runs programs and builtins, and keeps an eye on jobs.
//!
//! [`command_line`] decides where lines come from: one argument, a script, standard input, or a person at a
//! terminal ([`edit`]). [`syntax`] makes commands of them, [`execute`] runs these, [`job`] knows what runs.
//! [`builtin`] has the commands that are part of the shell; most ask the daemon and are programs of their own,
//! so the shell itself holds no connection and survives the daemon.

pub mod builtin;
mod command_line;
mod edit;
mod execute;
mod job;
mod locate;
mod start;
mod streams;
pub mod syntax;
mod variables;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use signal_hook::consts::SIGINT;

use job::terminal::{Blocked, Terminal};
use job::{Jobs, State};
use syntax::SyntaxError;
use variables::Variables;

use crate::terminal::interrupt::INTERRUPTED;
pub use command_line::main;

/// The exit status that a shell reports for a job that Ctrl-Z stopped: 128 + SIGTSTP.
const STOPPED: u8 = 128 + 20;

/// A running shell.
#[derive(Debug)]
pub struct Shell {
    variables: Variables,
    jobs: Jobs,
    /// Where the daemon listens, for the programs that are started.
    socket: PathBuf,
    /// Somebody types the lines.
    interactive: bool,
    /// The terminal, where this shell controls jobs.
    terminal: Option<Terminal>,
    /// SIGINT has come to the shell itself: a job had the terminal in common with it, or none had it.
    sigint: Arc<AtomicBool>,
    /// The rest of the line is not to be run.
    interrupted: bool,
    /// The shell is to end with this status.
    leaving: Option<u8>,
    /// The last line was an `exit` that jobs have held up.
    held_up: bool,
}

impl Shell {
    /// A shell that runs lines without a person.
    pub fn scripted(name: &str, arguments: Vec<String>, socket: PathBuf) -> std::io::Result<Shell> {
        let sigint = Arc::new(AtomicBool::new(false));
        // A job that Ctrl-C ends may still have something to say; the shell ends after it, not before.
        signal_hook::flag::register(SIGINT, Arc::clone(&sigint))?;
        Ok(Shell { sigint, ..Shell::new(name, arguments, socket) })
    }

    /// A shell for a person at the terminal on standard input.
    pub fn interactive(socket: PathBuf) -> std::io::Result<Shell> {
        let terminal = Terminal::take()?;
        let shell = Shell::scripted("llmsh", Vec::new(), socket)?;
        Ok(Shell { interactive: true, terminal, ..shell })
    }

    fn new(name: &str, arguments: Vec<String>, socket: PathBuf) -> Shell {
        Shell {
            variables: Variables::new(name, arguments),
            jobs: Jobs::default(),
            socket,
            interactive: false,
            terminal: None,
            sigint: Arc::default(),
            interrupted: false,
            leaving: None,
            held_up: false,
        }
    }

    /// Runs lines. Gives the exit status of the last command.
    ///
    /// # Errors
    ///
    /// The source cannot be understood; nothing of it was run.
    pub fn run(&mut self, source: &str) -> Result<u8, SyntaxError> {
        let list = syntax::parse(source)?;
        self.interrupted = false;
        let held_up = std::mem::take(&mut self.held_up);
        self.list(&list);
        // Only an `exit` right after one that was held up counts as its repetition.
        self.held_up &= !held_up;
        Ok(self.variables.status)
    }

    /// Forgets a Ctrl-C that came while the last line ran.
    fn forget_interrupt(&self) {
        self.sigint.store(false, Ordering::Relaxed);
    }

    /// The exit status of the last command.
    pub fn status(&self) -> u8 {
        self.variables.status
    }

    /// The status to end with, once `exit` was called.
    pub fn leaving(&self) -> Option<u8> {
        self.leaving
    }

    /// Ends the shell after the command that runs. A person who has stopped jobs is asked to repeat it, since
    /// they would be lost.
    pub fn leave(&mut self, status: u8) {
        let stopped = self.jobs.iter().filter(|j| j.state() == State::Stopped).count();
        if self.interactive && stopped > 0 && !self.held_up {
            note!("exit: {stopped} stopped jobs would be lost; `exit` again leaves them, `jobs` lists them");
            self.held_up = true;
        } else {
            self.leaving = Some(status);
        }
    }

    /// Tells a person which jobs in the background have ended or stopped.
    fn tell_of_jobs(&mut self) {
        for (job, state) in self.jobs.look() {
            if state != State::Running {
                note!("{}", job::line(&job, state));
            }
        }
        self.jobs.forget_ended();
    }

    /// Waits for a job in the background; its status, or 130 where Ctrl-C ended the wait.
    fn job_wait(&mut self, id: u32) -> u8 {
        if self.interactive {
            return self.job_wait_or_interrupt(id);
        }
        let Some(mut job) = self.jobs.take(id) else { return 127 };
        match job.wait(false) {
            State::Done(status) => status,
            State::Running | State::Stopped => STOPPED,
        }
    }

    fn job_wait_or_interrupt(&mut self, id: u32) -> u8 {
        // Blocked before the job is looked at, or its end between the look and the wait would be missed.
        let ended = Blocked::new(&[Signal::SIGCHLD, Signal::SIGINT]).and_then(|signals| {
            loop {
                let Some(job) = self.jobs.get_mut(id) else { return Ok(127) };
                job.look();
                match job.state() {
                    State::Done(status) => {
                        self.jobs.take(id);
                        return Ok(status);
                    }
                    State::Stopped => return Ok(STOPPED),
                    State::Running => {}
                }
                // Ctrl-C may have come before the signals were blocked.
                if self.sigint.load(Ordering::Relaxed) || signals.wait()? == Signal::SIGINT {
                    self.interrupted = true;
                    return Ok(INTERRUPTED);
                }
            }
        });
        ended.unwrap_or_else(|error| {
            note!("wait: job {id} cannot be waited for: {error}");
            1
        })
    }

    /// Waits for all running jobs in the background.
    fn jobs_wait_all(&mut self) -> u8 {
        let running: Vec<u32> =
            self.jobs.iter().filter(|j| j.state() == State::Running).map(|j| j.id).collect();
        for id in running {
            let status = self.job_wait(id);
            if self.interrupted {
                return status;
            }
        }
        self.jobs.forget_ended();
        0
    }

    /// Ends as SIGINT ends a program, if SIGINT has ended the job that had the terminal in common with the
    /// shell: whoever started the script sees that it was interrupted.
    fn end_if_interrupted(&self, status: u8) {
        if !self.interactive && self.sigint.swap(false, Ordering::Relaxed) && status == INTERRUPTED {
            // Where the system refuses, the script goes on, which its reader can interrupt again.
            let _ = signal_hook::low_level::emulate_default_handler(SIGINT);
        }
    }
}
