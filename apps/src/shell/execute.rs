//! Runs what a line says.
//!
//! Every command of a pipeline is a process, apart from builtins that change the shell. On a terminal a
//! pipeline is a process group, so that Ctrl-C and Ctrl-Z reach all of it and nothing else. The exit statuses
//! are those of sh: 127 where there is no such program, 126 where it cannot be executed.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process;

use nix::sys::signal::Signal;
use nix::unistd::Pid as OsPid;
use syscalls::paths::SOCKET_VAR;

use super::builtin::arguments::Invocation;
use super::builtin::{ALL, Builtin, InShell, Run, help};
use super::job::{self, Job, Member, State};
use super::locate::{self, Missing};
use super::streams::{self, Streams};
use super::syntax::expand::{Scope, expand, expand_one};
use super::syntax::{Chain, Command, Connector, List, Pipeline};
use super::{STOPPED, Shell};
use crate::terminal::clean::Cleaned;
use crate::terminal::interrupt::INTERRUPTED;

/// No such program.
const NOT_FOUND: u8 = 127;
/// It cannot be executed.
const NOT_EXECUTABLE: u8 = 126;

impl Shell {
    /// Runs chain after chain, until one is interrupted or the shell is to end.
    pub(super) fn list(&mut self, list: &List) {
        for item in &list.items {
            if !self.interactive {
                // Nobody is told, but what has ended is reaped.
                self.jobs.look();
            }
            let status = match (item.background, item.chain.rest.is_empty()) {
                (false, _) => self.chain(&item.chain),
                (true, true) if !self.changes_shell(&item.chain.first) => self.background(&item.chain.first),
                (true, _) => self.background_copy(&item.chain),
            };
            self.variables.status = status;
            if self.interrupted || self.leaving.is_some() {
                return;
            }
        }
    }

    fn chain(&mut self, chain: &Chain) -> u8 {
        let mut status = self.foreground(&chain.first);
        for (connector, pipeline) in &chain.rest {
            if self.interrupted || self.leaving.is_some() {
                return status;
            }
            if (*connector == Connector::And) == (status == 0) {
                self.variables.status = status;
                status = self.foreground(pipeline);
            }
        }
        status
    }

    fn foreground(&mut self, pipeline: &Pipeline) -> u8 {
        let job = self.start(pipeline, false);
        self.finish(job)
    }

    fn background(&mut self, pipeline: &Pipeline) -> u8 {
        let job = self.start(pipeline, true);
        self.put_away(job);
        0
    }

    /// Whether a pipeline would do something to this shell itself, or hold it up: what is in the background must not.
    fn changes_shell(&self, pipeline: &Pipeline) -> bool {
        pipeline.commands.iter().any(|command| {
            let words = self.words(command);
            words.split_first().map_or(!command.assignments.is_empty(), |(name, args)| {
                let builtin = name.to_str().and_then(Builtin::named);
                builtin.and_then(|builtin| self.in_shell(builtin, args)).is_some()
            })
        })
    }

    /// Runs a chain in the background in a copy of this shell, which decides between its pipelines, or is changed in the
    /// place of this one.
    fn background_copy(&mut self, chain: &Chain) -> u8 {
        let mut command = process::Command::new(locate::sibling("llmsh"));
        // What stands behind the line is first of all its `$0`.
        command
            .arg("-c")
            .arg(&chain.text)
            .arg("--")
            .arg(&self.variables.name)
            .args(&self.variables.arguments);
        command.envs(self.variables.all());
        let mut group = None;
        let member = self.spawn(command, OsStr::new("llmsh"), Streams::default(), &mut group, true);
        let (text, members) = (chain.text.clone(), vec![member]);
        self.put_away(Job { id: 0, text, group, members, negated: false, named: None });
        0
    }

    fn put_away(&mut self, job: Job) {
        let last = job.members.iter().rev().find_map(|m| match m {
            Member::Running(pid) | Member::Stopped(pid) => Some(*pid),
            Member::Done(_) | Member::Killed(_) => None,
        });
        let Some(pid) = last else { return };
        self.variables.background = Some(pid.as_raw());
        let id = self.jobs.add(Job { named: last, ..job });
        if self.interactive {
            note!("[{id}] {pid}");
        }
    }

    /// Waits for a job that has the terminal, or shares it.
    fn finish(&mut self, mut job: Job) -> u8 {
        let has_terminal = job.group.is_some() && self.terminal.is_some();
        let state = job.wait(self.terminal.is_some());
        let killed = job.killed_by();
        if let Some(terminal) = self.terminal.as_mut().filter(|_| has_terminal) {
            let by_itself = matches!(state, State::Done(_)) && killed.is_none();
            if let Err(error) = terminal.take_back(by_itself) {
                note!("llmsh: the terminal cannot be taken back: {error}");
            }
        }
        match state {
            State::Running | State::Stopped => {
                let text = job::line(&Job { id: self.jobs.add(job.clone()), ..job }, State::Stopped);
                note!("\n{text}");
                self.interrupted = true;
                STOPPED
            }
            State::Done(status) => {
                self.tell_of_death(&job, killed);
                self.interrupted |= self.interactive && status == INTERRUPTED;
                self.end_if_interrupted(status);
                status
            }
        }
    }

    /// Says which signal ended a job, where that is no everyday matter.
    fn tell_of_death(&self, job: &Job, killed: Option<Signal>) {
        match killed {
            None | Some(Signal::SIGPIPE) => {}
            // The line with the ^C is ended.
            Some(Signal::SIGINT) if self.interactive => note!(),
            Some(Signal::SIGINT) => {}
            Some(signal) => note!("llmsh: {}: killed by {signal}", job.text),
        }
    }

    /// Brings a job from the background to the foreground.
    pub(super) fn job_to_foreground(&mut self, id: u32) -> u8 {
        let Some(mut job) = self.jobs.take(id) else { return NOT_FOUND };
        if let (Some(terminal), Some(group)) = (&self.terminal, job.group)
            && let Err(error) = terminal.give(group)
        {
            note!("fg: the terminal cannot be handed over: {error}");
        }
        if let Err(error) = job.go_on() {
            note!("fg: job {id} cannot go on: {error}");
        }
        self.finish(job)
    }

    /// Starts every command of a pipeline.
    fn start(&mut self, pipeline: &Pipeline, background: bool) -> Job {
        let mut group = None;
        let mut members = Vec::new();
        let mut before: Option<OwnedFd> = None;
        for (i, command) in pipeline.commands.iter().enumerate() {
            let mut streams = Streams { input: before.take(), ..Streams::default() };
            if i + 1 < pipeline.commands.len() {
                match io::pipe() {
                    Ok((reader, writer)) => {
                        streams.output = Some(writer.into());
                        before = Some(reader.into());
                    }
                    Err(error) => note!("llmsh: no pipe can be made: {error}"),
                }
            }
            members.push(self.start_command(command, streams, &mut group, background));
        }
        let (text, negated) = (pipeline.text.clone(), pipeline.negated);
        Job { id: 0, text, group, members, negated, named: None }
    }

    fn start_command(
        &mut self,
        command: &Command,
        mut streams: Streams,
        group: &mut Option<OsPid>,
        background: bool,
    ) -> Member {
        let piped = streams.output.is_some();
        let words = self.words(command);
        let builtin = words.first().and_then(|name| name.to_str()).and_then(Builtin::named);
        let in_shell = builtin.and_then(|b| self.in_shell(b, words.get(1..).unwrap_or_default()));
        let is_program = !words.is_empty() && in_shell.is_none();
        let waits = is_program && streams::may_wait(&command.redirections, &self.variables);
        if !waits && let Err(message) = streams.redirect(&command.redirections, &self.variables) {
            note!("llmsh: {message}");
            return Member::Done(1);
        }
        let Some((name, args)) = words.split_first() else {
            self.assign(command);
            return Member::Done(0);
        };
        if let Some(run) = in_shell {
            let invocation = Invocation::in_shell(&name.to_string_lossy(), args);
            return Member::Done(self.run_in_shell(run, &invocation, streams, piped));
        }
        let mut program = match self.program(name, builtin) {
            Ok(program) => program,
            Err(missing) => return Member::Done(tell_missing(name, missing, &mut streams)),
        };
        if waits {
            let file = program.get_program().to_owned();
            program = streams::opened_by_sh(&command.redirections, &self.variables);
            program.arg(file).args(builtin.map(|builtin| ["--builtin", builtin.name]).into_iter().flatten());
        }
        program.args(args);
        for (variable, value) in &command.assignments {
            program.env(variable, expand_one(value, &self.variables));
        }
        self.spawn(program, name, streams, group, background)
    }

    /// A command's name and arguments.
    fn words(&self, command: &Command) -> Vec<OsString> {
        command.words.iter().flat_map(|word| expand(word, &self.variables)).collect()
    }

    fn assign(&mut self, command: &Command) {
        for (name, value) in &command.assignments {
            let value = expand_one(value, &self.variables);
            self.variables.set(name, value);
        }
    }

    /// What runs a builtin inside the shell, if it runs there.
    fn in_shell(&self, builtin: &Builtin, args: &[OsString]) -> Option<InShell> {
        match builtin.run {
            Run::Program(_) => None,
            Run::Shell(run) => Some(run),
            Run::Either { in_shell, shell, .. } => in_shell(self, args).then_some(shell),
        }
    }

    fn run_in_shell(
        &mut self,
        run: InShell,
        invocation: &Invocation,
        mut streams: Streams,
        piped: bool,
    ) -> u8 {
        let mut error = streams.error_writer();
        let mut text = Vec::new();
        let outcome = match streams.output.take() {
            None => run(self, invocation, &mut Cleaned::new(io::stdout())),
            // The reader is started after this; a full pipe must not hold up the shell.
            Some(output) if piped => run(self, invocation, &mut text).inspect(|_| {
                std::thread::spawn(move || std::fs::File::from(output).write_all(&text));
            }),
            Some(output) => run(self, invocation, &mut Cleaned::new(std::fs::File::from(output))),
        };
        let status = outcome.unwrap_or_else(|failure| failure.report_to(&invocation.name, &mut error));
        // What cannot be written to standard output is not to be kept for later.
        let _ = io::stdout().flush();
        status
    }

    /// The program of a builtin or of a name, without its arguments.
    fn program(&self, name: &OsStr, builtin: Option<&Builtin>) -> Result<process::Command, Missing> {
        let file = match builtin {
            // Under a builtin's name the shell runs the builtin.
            Some(_) => locate::sibling("llmsh"),
            None => {
                let path = self.variables.value("PATH").unwrap_or_default();
                locate::program(name, OsStr::new(&path))?.into()
            }
        };
        let mut command = process::Command::new(file);
        command.arg0(name);
        Ok(command)
    }

    /// Starts a program as part of a job. The first one on a terminal becomes the leader of the job's group.
    fn spawn(
        &self,
        mut command: process::Command,
        name: &OsStr,
        mut streams: Streams,
        group: &mut Option<OsPid>,
        background: bool,
    ) -> Member {
        command.envs(self.variables.exported()).env(SOCKET_VAR, &self.socket);
        if self.terminal.is_some() {
            command.process_group(group.map_or(0, OsPid::as_raw));
        } else if background && streams.input.is_none() {
            // Two readers of one standard input would take each other's lines.
            streams.input = std::fs::File::open("/dev/null").ok().map(Into::into);
        }
        streams.apply(&mut command);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                note!("llmsh: {}: cannot be executed: {error}", name.to_string_lossy());
                let missing = error.kind() == io::ErrorKind::NotFound;
                return Member::Done(if missing { NOT_FOUND } else { NOT_EXECUTABLE });
            }
        };
        let pid = OsPid::from_raw(i32::try_from(child.id()).expect("the system's pids fit"));
        if let Some(terminal) = &self.terminal
            && group.is_none()
        {
            *group = Some(pid);
            if !background && let Err(error) = terminal.give(pid) {
                note!("llmsh: the terminal cannot be handed over: {error}");
            }
        }
        Member::Running(pid)
    }
}

/// Says on the command's own standard error why there is no such program, and gives the exit status.
fn tell_missing(name: &OsStr, missing: Missing, streams: &mut Streams) -> u8 {
    let name = name.to_string_lossy();
    let (status, why) = match missing {
        Missing::NotFound => (NOT_FOUND, format!("no such command{}", suggestion(&name))),
        Missing::NotExecutable => {
            (NOT_EXECUTABLE, "is no program; `chmod +x` makes one of a script".to_owned())
        }
    };
    // Where this cannot be written, the exit status is all that is left to tell.
    let _ = writeln!(streams.error_writer(), "llmsh: {name}: {why}");
    status
}

/// What a mistyped name may have meant.
fn suggestion(name: &str) -> String {
    let names: Vec<&str> =
        ALL.iter().map(|b| b.name).chain(help::APPLICATIONS.iter().map(|(app, _)| *app)).collect();
    match syscalls::call::nearest(name, &names) {
        Some(near) => format!("; did you mean `{near}`?"),
        None => "; `help` lists the builtins".into(),
    }
}
