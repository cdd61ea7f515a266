//! The shell's own arguments, and where its lines come from.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use nix::errno::Errno;
use syscalls::client::blocking::Client;
use syscalls::paths;

use super::builtin::arguments::Invocation;
use super::builtin::failure::{Failure, USAGE};
use super::builtin::mount::mount_unless_there;
use super::builtin::{self, Builtin};
use super::syntax::{self, SyntaxError};
use super::{Shell, edit, start};
use crate::program::refuse;
use crate::terminal::note;

/// The shell of llmasos
///
/// Without a script, reads commands from standard input: with line editing on a terminal, else line by line.
/// `help` inside lists the commands; each is also `llmasos COMMAND` for scripts of other shells.
#[derive(Debug, Parser)]
#[command(name = "llmsh", version, max_term_width = 100)]
struct Options {
    /// Runs this line; the script and its arguments are then its $0, $1, …
    #[arg(short = 'c', value_name = "LINE", allow_hyphen_values = true)]
    line: Option<String>,
    /// The daemon's socket [default: LLMASOS_SOCKET, or the user's own daemon, or the system's]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Starts a daemon in the background where none listens
    #[arg(long)]
    start: bool,
    /// Mounts a model before the first command, unless the name is taken; may be given several times
    #[arg(long, value_name = "FILE=NAME", value_parser = file_and_name)]
    mount: Vec<(PathBuf, String)>,
    /// Ends the daemon when the shell ends, if this shell has started it
    #[arg(long, requires = "start")]
    stop_on_exit: bool,
    /// A file of commands, and its arguments
    #[arg(value_name = "SCRIPT", trailing_var_arg = true)]
    script: Vec<String>,
}

fn file_and_name(text: &str) -> Result<(PathBuf, String), String> {
    match text.rsplit_once('=') {
        Some((file, name)) if !file.is_empty() && !name.is_empty() => Ok((file.into(), name.into())),
        _ => Err("give a file and a name, as in model.gguf=starter".into()),
    }
}

/// The shell with all that it can be told, for its manual.
pub fn command() -> clap::Command {
    Options::command()
}

/// Runs `llmsh`, or the builtin that it was called as, and gives the exit status.
pub fn main(argv: &[OsString]) -> u8 {
    if let Some(invocation) = builtin_invocation(argv) {
        return builtin::run_program(&invocation);
    }
    let options = match Options::try_parse_from(argv) {
        Ok(options) => options,
        Err(error) => {
            return refuse(&error);
        }
    };
    run(&options).unwrap_or_else(|failure| failure.report("llmsh"))
}

/// The builtin that this process is to be: `llmsh --builtin NAME ARGS…` is what `llmasos NAME ARGS…` runs, and
/// under a builtin's own name the shell runs it.
fn builtin_invocation(argv: &[OsString]) -> Option<Invocation> {
    if argv.get(1).is_some_and(|a| a == "--builtin") {
        let name = argv.get(2).map_or_else(|| "help".into(), |n| n.to_string_lossy().into_owned());
        let args = argv.get(3..).unwrap_or_default().to_vec();
        return Some(Invocation { prefix: "llmasos ", name, args });
    }
    let name = Path::new(argv.first()?).file_name().and_then(OsStr::to_str)?;
    Builtin::named(name)?.program()?;
    Some(Invocation { prefix: "", name: name.into(), args: argv[1..].to_vec() })
}

fn run(options: &Options) -> Result<u8, Failure> {
    let mut socket = options.socket.clone().unwrap_or_else(paths::socket);
    let mut started = None;
    if options.start {
        let named = options.socket.is_some();
        started = start::unless_running(&mut socket, named)?;
    }
    mount(options, &socket)?;
    let status = run_lines(options, &socket, started.is_some());
    if let Some(daemon) = started {
        daemon.leave(&socket, options.stop_on_exit);
    }
    status
}

/// Mounts what the options name. A model that cannot be mounted is told, and the shell is there to look into it.
fn mount(options: &Options, socket: &Path) -> Result<(), Failure> {
    if options.mount.is_empty() {
        return Ok(());
    }
    let mut client = Client::connect(socket, "llmsh")?;
    for (file, name) in &options.mount {
        if let Err(failure) = mount_unless_there(&mut client, file, name) {
            failure.report("mount");
        }
    }
    Ok(())
}

fn run_lines(options: &Options, socket: &Path, started: bool) -> Result<u8, Failure> {
    let scripted = |name: &str, arguments: &[String]| {
        Shell::scripted(name, arguments.to_vec(), socket.to_owned())
            .map_err(|e| Failure::Message(format!("no handler for SIGINT can be set: {e}")))
    };
    if let Some(line) = &options.line {
        let (name, arguments) = match options.script.split_first() {
            Some((name, arguments)) => (name.as_str(), arguments),
            None => ("llmsh", &[][..]),
        };
        return Ok(run_source(&mut scripted(name, arguments)?, "llmsh", line));
    }
    if let Some((script, arguments)) = options.script.split_first() {
        let source = fs::read_to_string(script)
            .map_err(|e| Failure::Message(format!("the script {script} cannot be read: {e}")))?;
        return Ok(run_source(&mut scripted(script, arguments)?, script, &source));
    }
    if io::stdin().is_terminal() {
        let shell = Shell::interactive(socket.to_owned())
            .map_err(|e| Failure::Message(format!("the terminal cannot be controlled: {e}")))?;
        return edit::converse(shell, started);
    }
    Ok(run_input(&mut scripted("llmsh", &[])?))
}

/// Runs a whole script, or nothing of it where it cannot be understood.
fn run_source(shell: &mut Shell, name: &str, source: &str) -> u8 {
    match shell.run(source) {
        Ok(status) => shell.leaving().unwrap_or(status),
        Err(error) => {
            tell(name, error.line(source), &error, source);
            USAGE
        }
    }
}

fn tell(name: &str, line: usize, error: &SyntaxError, source: &str) {
    note::part(format_args!("{name}: line {line}: {}", error.show(source)));
}

/// Runs standard input line by line. What a command leaves unread of it is the next line, as in sh, so no more
/// than a line may be taken at a time.
fn run_input(shell: &mut Shell) -> u8 {
    let mut source = String::new();
    let mut line_number = 1;
    loop {
        let more = match read_line(&mut source) {
            Ok(more) => more,
            Err(error) => {
                note!("llmsh: standard input cannot be read: {error}");
                return 1;
            }
        };
        if more && matches!(syntax::parse(&source), Err(error) if error.incomplete) {
            continue;
        }
        if let Err(error) = shell.run(&source) {
            tell("llmsh", line_number + error.line(&source) - 1, &error, &source);
            return USAGE;
        }
        if let Some(status) = shell.leaving() {
            return status;
        }
        if !more {
            return shell.status();
        }
        line_number += source.matches('\n').count();
        source.clear();
    }
}

/// Adds one line of standard input, read byte by byte; false at the end.
fn read_line(source: &mut String) -> io::Result<bool> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        match nix::unistd::read(io::stdin().as_fd(), &mut byte) {
            Ok(0) => break,
            Ok(_) => line.push(byte[0]),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        if byte[0] == b'\n' {
            break;
        }
    }
    let more = line.last() == Some(&b'\n');
    let line = String::from_utf8(line).map_err(|_| io::Error::other("it is not UTF-8"))?;
    source.push_str(&line);
    Ok(more)
}
