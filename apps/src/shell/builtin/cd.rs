//! `cd`: the shell's folder.

use std::env;
use std::io::Write;
use std::path::PathBuf;

use clap::Parser;

use super::arguments::{self, Invocation};
use super::failure::Failure;
use super::{Builtin, Outcome, Run};
use crate::shell::Shell;
use crate::shell::syntax::expand::Scope;

pub const BUILTIN: Builtin =
    Builtin { name: "cd", command: || arguments::command::<Args>("cd"), run: Run::Shell(run) };

/// Changes the folder
#[derive(Debug, Parser)]
struct Args {
    /// The folder; - is the one before [default: HOME]
    folder: Option<PathBuf>,
}

fn run(shell: &mut Shell, invocation: &Invocation, out: &mut dyn Write) -> Outcome {
    let args: Args = invocation.parse()?;
    let back = args.folder.as_deref().is_some_and(|f| f.as_os_str() == "-");
    let variable = |name: &str| {
        let value = shell.variables.value(name).filter(|v| !v.is_empty());
        value.map(PathBuf::from).ok_or_else(|| Failure::Message(format!("{name} is not set; name a folder")))
    };
    let folder = match args.folder {
        Some(_) if back => variable("OLDPWD")?,
        Some(folder) => folder,
        None => variable("HOME")?,
    };
    let before = env::current_dir();
    env::set_current_dir(&folder).map_err(|e| Failure::Message(format!("{}: {e}", folder.display())))?;
    if let Ok(before) = before {
        shell.variables.set("OLDPWD", before.display().to_string());
    }
    if let Ok(now) = env::current_dir() {
        shell.variables.set("PWD", now.display().to_string());
    }
    if back {
        writeln!(out, "{}", folder.display())?;
    }
    Ok(0)
}
