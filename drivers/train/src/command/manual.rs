//! `manual`: writes the manual pages and the completions of shells, for whoever installs llmasos.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate_to};

use super::Arguments;
use crate::run::RunError;

#[derive(Debug, Args)]
pub(super) struct Manual {
    /// The folder
    folder: PathBuf,
}

/// Writes a page for the program and for each of its commands, and completions for bash, zsh and fish.
pub(super) fn manual(arguments: &Manual) -> Result<ExitCode, RunError> {
    let folder = &arguments.folder;
    write(folder).map_err(RunError::io(folder))?;
    Ok(ExitCode::SUCCESS)
}

fn write(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut command = Arguments::command();
    let name = command.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, name.as_str(), folder)?;
    }
    clap_mangen::generate_to(command, folder)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn manual_has_a_page_and_completions_for_every_command() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        for (command, option) in [("run", "go-on"), ("export", "matrices"), ("predict", "patience")] {
            let page = read(&format!("llmasos-trainer-{command}.1"));
            assert!(page.contains(".SH SYNOPSIS"), "{command}");
            for file in ["llmasos-trainer.bash", "_llmasos-trainer", "llmasos-trainer.fish"] {
                assert!(read(file).contains(option), "--{option} in {file}");
            }
        }
        for command in Arguments::command().get_subcommands() {
            assert!(read("llmasos-trainer.1").contains(command.get_name()), "{}", command.get_name());
        }
    }
}
