//! What every application is outside its job: arguments that all have, one line for a failure, an exit status.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use syscalls::call::{Class, Hello, Sampling};
use syscalls::client::{blocking::Client, hello};
use syscalls::{Errno, Fault, paths};

use crate::terminal::interrupt::INTERRUPTED;
use crate::terminal::{note, output};
use crate::text::document::DocumentError;

/// The exit status of wrong usage.
const USAGE: u8 = 2;

/// Why an application ends before its work is done.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The daemon, or the connection to it, refused.
    #[error("{}", .0.message)]
    Fault(#[from] Fault),
    /// An input is no text.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Standard output cannot be written.
    #[error("standard output cannot be written: {0}")]
    Output(#[from] io::Error),
    /// Anything else that is a failure.
    #[error("{0}")]
    Message(String),
    /// The arguments make no sense together.
    #[error("{0}")]
    Usage(String),
    /// The user ended it.
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    /// Whether the failure is what a signal leaves of a call.
    pub fn is_interruption(&self) -> bool {
        match self {
            Failure::Interrupted => true,
            Failure::Fault(fault) => matches!(fault.errno, Errno::EINTR | Errno::ECANCELED),
            _ => false,
        }
    }

    /// Tells the failure where it is worth telling, and gives the exit status.
    fn report(self, program: &str) -> u8 {
        match self {
            Failure::Interrupted => INTERRUPTED,
            Failure::Output(error) => output::write_failed(program, &error),
            Failure::Usage(message) => {
                note!("{program}: {message}");
                USAGE
            }
            failure => {
                note!("{program}: {failure}");
                1
            }
        }
    }
}

/// Runs an application with the arguments of this process, and tells its failure.
pub fn main<A: Parser>(program: &str, run: impl FnOnce(&A) -> Result<(), Failure>) -> ExitCode {
    let result = match A::try_parse() {
        Ok(args) => run(&args),
        Err(error) => return refuse(&error).into(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(program).into(),
    }
}

/// Tells what is wrong with the arguments of a program, or what was asked of them, and gives the exit status.
/// clap would repeat arguments as they are, and on a terminal they are not to act.
pub fn refuse(error: &clap::Error) -> u8 {
    if error.use_stderr() {
        note::part(format_args!("{}", error.render()));
    } else {
        // Where not even this can be written, the status says it.
        let _ = error.print();
    }
    u8::try_from(error.exit_code()).unwrap_or(USAGE)
}

/// Arguments by which every application finds its model and chooses tokens.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// The model [default: the mounted one that fits the job]
    #[arg(long, short, value_name = "NAME")]
    pub model: Option<String>,
    /// The daemon's socket [default: LLMASOS_SOCKET, or the user's own daemon, or the system's]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Makes the choice of tokens repeatable
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Divides the logits; 0 takes the likeliest token always
    #[arg(long, value_name = "T")]
    pub temperature: Option<f32>,
    /// The most tokens of one answer [default: until the model ends]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,
}

impl ModelArgs {
    /// Connects to the daemon as a process with this name and class.
    ///
    /// # Errors
    ///
    /// As [`Client::connect_with`].
    pub fn connect(&self, program: &str, class: Class) -> Result<Client, Fault> {
        let socket = self.socket.clone().unwrap_or_else(paths::socket);
        Client::connect_with(&socket, Hello { class, ..hello(program) })
    }

    /// How tokens are chosen, at a temperature that suits the job where none was given.
    pub fn sampling(&self, temperature: f32) -> Sampling {
        let temperature = self.temperature.unwrap_or(temperature);
        Sampling { temperature, seed: self.seed, ..Sampling::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_has_the_exit_status_of_its_kind() {
        let fault = |errno| Failure::Fault(Fault::new(errno, "a sentence"));
        assert_eq!(fault(Errno::ENOENT).report("test"), 1);
        assert_eq!(Failure::Usage("no".into()).report("test"), 2);
        assert_eq!(Failure::Interrupted.report("test"), 130);
        assert_eq!(Failure::Output(io::ErrorKind::BrokenPipe.into()).report("test"), 141);
        assert!(fault(Errno::EINTR).is_interruption() && !fault(Errno::EIO).is_interruption());
    }
}
