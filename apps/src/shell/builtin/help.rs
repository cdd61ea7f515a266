//! `help`: what there is, and how it is used.

use std::fmt::Write;

use clap::Parser;

use super::arguments::{self, Invocation};
use super::failure::Failure;
use super::{ALL, Builtin, Outcome, Run};
use crate::terminal::output::Output;

pub const BUILTIN: Builtin =
    Builtin { name: "help", command: || arguments::command::<Args>("help"), run: Run::Program(run) };

/// Lists the commands, or explains one
#[derive(Debug, Parser)]
struct Args {
    /// The command to explain
    command: Option<String>,
}

/// The applications, which are programs of their own and have their own `--help`.
pub const APPLICATIONS: &[(&str, &str)] = &[
    ("translator", "Translates text"),
    ("summariser", "Makes text shorter"),
    ("qa", "Answers questions about documents"),
    ("chat", "Holds a conversation"),
];

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let shown = match args.command.as_deref() {
        None => overview(invocation.prefix),
        Some(name) => explain(invocation.prefix, name)?,
    };
    Output::stdout().write(&shown)?;
    Ok(0)
}

fn explain(prefix: &str, name: &str) -> Result<String, Failure> {
    if let Some(builtin) = Builtin::named(name) {
        let command = (builtin.command)().bin_name(format!("{prefix}{name}"));
        return Ok(command.clone().render_long_help().to_string());
    }
    if APPLICATIONS.iter().any(|(app, _)| *app == name) {
        return Err(Failure::Message(format!("`{name}` is an application; `{name} --help` explains it")));
    }
    let names: Vec<&str> = ALL.iter().map(|b| b.name).collect();
    let hint = match syscalls::call::nearest(name, &names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("`{prefix}help` lists the commands"),
    };
    Err(Failure::Message(format!("there is no command `{name}`; {hint}")))
}

/// Every command in one line each. Outside of the shell, those that change a shell are left out.
fn overview(prefix: &str) -> String {
    let mut text = String::from("Commands:\n");
    for builtin in ALL.iter().filter(|b| prefix.is_empty() || b.program().is_some()) {
        line(&mut text, builtin.name, &builtin.summary());
    }
    text.push_str("\nApplications:\n");
    for (name, summary) in APPLICATIONS {
        line(&mut text, name, summary);
    }
    let _ = writeln!(text, "\n`{prefix}help COMMAND` explains one; applications have `--help`.");
    if prefix.is_empty() {
        text.push_str(
            "Pipes, redirections, `;`, `&&`, `||`, `&`, quotes, $variables and *globs* are as in sh:\n  \
             summariser article.txt | translator --to de > kurz.txt\n",
        );
    }
    text
}

fn line(text: &mut String, name: &str, summary: &str) {
    let _ = writeln!(text, "  {name:<12}{summary}");
}
