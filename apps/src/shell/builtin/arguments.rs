//! Arguments of builtins: how they are read, what is wrong with them, and the ones that many have.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use serde::de::DeserializeOwned;
use serde::de::value::{Error, StrDeserializer};
use syscalls::Fault;
use syscalls::call::{Attention, Class, Hello, OnFull, Signal};
use syscalls::client::{blocking::Client, hello};
use syscalls::paths;

use super::Builtin;
use super::failure::{Failure, USAGE};
use crate::terminal::note;

/// A builtin's name and arguments, as they were given.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// What stands before the name in usage texts: `llmasos ` for scripts, nothing in the shell.
    pub prefix: &'static str,
    /// The builtin's name.
    pub name: String,
    /// What comes behind the name.
    pub args: Vec<OsString>,
}

impl Invocation {
    /// A builtin inside the shell.
    pub fn in_shell(name: &str, args: &[OsString]) -> Invocation {
        Invocation { prefix: "", name: name.into(), args: args.to_vec() }
    }

    /// As the user would type it.
    pub fn shown(&self) -> String {
        format!("{}{}", self.prefix, self.name)
    }

    /// Reads the arguments.
    ///
    /// # Errors
    ///
    /// [`Failure::Told`]: usage was wrong, or help was asked for, and it has been told.
    pub fn parse<A: Parser>(&self) -> Result<A, Failure> {
        self.parse_from(&self.args)
    }

    /// Reads arguments that were brought into another form first.
    ///
    /// # Errors
    ///
    /// As [`Invocation::parse`].
    pub fn parse_from<A: Parser>(&self, args: &[OsString]) -> Result<A, Failure> {
        let name = Builtin::named(&self.name).map_or("llmsh", |b| b.name);
        let command = command::<A>(name).bin_name(self.shown());
        let argv = std::iter::once(OsStr::new(&self.name)).chain(args.iter().map(OsString::as_os_str));
        command.try_get_matches_from(argv).and_then(|m| A::from_arg_matches(&m)).map_err(|e| self.tell(&e))
    }

    fn tell(&self, error: &clap::Error) -> Failure {
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            return match error.print() {
                Ok(()) => Failure::Told(0),
                Err(e) => Failure::Output(e),
            };
        }
        let rendered = error.render();
        let text = rendered.to_string();
        note::part(format_args!("{}: {}", self.name, text.strip_prefix("error: ").unwrap_or(&text)));
        Failure::Told(USAGE)
    }
}

/// The arguments of a builtin under its name.
pub fn command<A: CommandFactory>(name: &'static str) -> clap::Command {
    A::command().name(name).styles(clap::builder::Styles::plain()).disable_version_flag(true)
}

/// Which daemon is meant.
#[derive(Clone, Debug, clap::Args)]
pub struct Daemon {
    /// The daemon's socket [default: LLMASOS_SOCKET, or the user's own daemon, or the system's]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

impl Daemon {
    /// Connects as a process with this name.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`].
    pub fn connect(&self, name: &str) -> Result<Client, Fault> {
        self.connect_with(hello(name))
    }

    /// Connects with a class and nice value of one's own.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`].
    pub fn connect_with(&self, hello: Hello) -> Result<Client, Fault> {
        Client::connect_with(&self.path(), hello)
    }

    /// The socket that is meant.
    pub fn path(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(paths::socket)
    }
}

/// The classes by name.
pub fn class() -> impl TypedValueParser<Value = Class> {
    PossibleValuesParser::new(["realtime", "interactive", "normal", "batch"]).map(|name| named(&name))
}

/// The attention kernels by name.
pub fn attention() -> impl TypedValueParser<Value = Attention> {
    PossibleValuesParser::new(["auto", "flash", "plain", "blocked"]).map(|name| named(&name))
}

/// What happens when a context is full, by name.
pub fn on_full() -> impl TypedValueParser<Value = OnFull> {
    PossibleValuesParser::new(["stop", "slide", "compact"]).map(|name| named(&name))
}

/// The signals by name and number.
pub fn signal() -> impl TypedValueParser<Value = Signal> {
    let signals = [Signal::Int, Signal::Term, Signal::Kill, Signal::Stop, Signal::Cont];
    PossibleValuesParser::new(["INT", "TERM", "KILL", "STOP", "CONT", "2", "9", "15", "18", "19"]).map(
        move |name| match name.parse::<u8>() {
            Ok(number) => *signals.iter().find(|s| s.number() == number).expect("only these are possible"),
            Err(_) => named(&name),
        },
    )
}

/// The value that has this name on the wire, so that both speak of it in the same words.
fn named<T: DeserializeOwned>(name: &str) -> T {
    T::deserialize(StrDeserializer::<Error>::new(name)).expect("only names of the wire are possible")
}

/// The name that a value has on the wire.
pub fn name_of(value: impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        other => unreachable!("{other:?} has no name on the wire"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_offered_are_those_of_the_wire() {
        let parse = |parser: &dyn Fn(&OsStr) -> bool, names: &[&str]| {
            for name in names {
                assert!(parser(OsStr::new(name)), "{name}");
            }
        };
        let command = clap::Command::new("test");
        parse(
            &|n| class().parse_ref(&command, None, n).is_ok(),
            &["realtime", "interactive", "normal", "batch"],
        );
        parse(&|n| attention().parse_ref(&command, None, n).is_ok(), &["auto", "flash", "plain", "blocked"]);
        parse(&|n| on_full().parse_ref(&command, None, n).is_ok(), &["stop", "slide", "compact"]);
        let numbers = ["INT", "2", "TERM", "15", "KILL", "9", "STOP", "19", "CONT", "18"];
        for pair in numbers.chunks(2) {
            let signal = |n: &str| signal().parse_ref(&command, None, OsStr::new(n)).expect("possible");
            assert_eq!(signal(pair[0]), signal(pair[1]));
        }
    }
}
