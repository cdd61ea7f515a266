//! `manual`: writes the manual pages and the completions of shells, for whoever installs llmasos.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory, Parser};
use clap_complete::{Shell, generate_to};
use syscalls::{Errno, Fault};

use super::arguments::{self, Invocation};
use super::{ALL, Builtin, Outcome, Run};
use crate::shell::command_line;
use crate::{chat, qa, summariser, translator};

pub const BUILTIN: Builtin =
    Builtin { name: "manual", command: || arguments::command::<Args>("manual"), run: Run::Program(run) };

/// Writes manual pages and completions into a folder
///
/// There is a page for each command and each program that users call, and completions for bash, zsh and fish.
#[derive(Parser)]
struct Args {
    /// The folder
    folder: PathBuf,
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    write(&args.folder).map_err(|e| {
        Fault::new(Errno::EIO, format!("cannot write the manual to {}: {e}", args.folder.display()))
    })?;
    Ok(0)
}

fn write(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    for mut command in std::iter::once(whole()).chain(programs()) {
        let name = command.get_name().to_owned();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            generate_to(shell, &mut command, name.as_str(), folder)?;
        }
        clap_mangen::generate_to(command, folder)?;
    }
    Ok(())
}

/// The programs beside `llmasos` that users call.
fn programs() -> [Command; 5] {
    [
        command_line::command(),
        chat::Args::command(),
        qa::Args::command(),
        summariser::Args::command(),
        translator::Args::command(),
    ]
}

/// `llmasos` with all that it can be told.
fn whole() -> Command {
    let daemon = Command::new("daemon").about("Serves programs on a socket until it is asked to end");
    let builtins = ALL.iter().filter(|builtin| builtin.program().is_some());
    Command::new("llmasos")
        .version(env!("CARGO_PKG_VERSION"))
        .about("An operating system for language models")
        .disable_help_subcommand(true)
        .subcommand(daemon)
        .subcommands(builtins.map(|builtin| (builtin.command)().name(builtin.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_has_a_page_and_completions_for_every_command() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path()).expect("the folder can be written");
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("it was written");
        for builtin in ALL.iter().filter(|b| b.program().is_some()) {
            let page = read(&format!("llmasos-{}.1", builtin.name));
            assert!(page.contains(".SH SYNOPSIS"), "{}", builtin.name);
            for file in ["llmasos.bash", "_llmasos", "llmasos.fish"] {
                assert!(read(file).contains(builtin.name), "{} in {file}", builtin.name);
            }
        }
        assert!(read("llmasos.1").contains("daemon"));
    }

    #[test]
    fn manual_has_a_page_and_completions_for_every_program() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path()).expect("the folder can be written");
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("it was written");
        for (name, option) in [
            ("llmsh", "stop-on-exit"),
            ("chat", "system"),
            ("qa", "doc"),
            ("summariser", "words"),
            ("translator", "max-tokens"),
        ] {
            assert!(read(&format!("{name}.1")).contains(".SH SYNOPSIS"), "{name}");
            for file in [format!("{name}.bash"), format!("_{name}"), format!("{name}.fish")] {
                assert!(read(&file).contains(option), "--{option} in {file}");
            }
        }
    }
}
