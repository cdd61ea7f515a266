//! `tokenize`: text as the model sees it.

use clap::Parser;
use serde_json::json;
use syscalls::call::Tokenize;
use syscalls::{Reply, Token};

use super::arguments::{self, Daemon, Invocation};
use super::failure::Failure;
use super::generate::prompt;
use super::{Builtin, Outcome, Run};
use crate::terminal::output::Output;

pub const BUILTIN: Builtin =
    Builtin { name: "tokenize", command: || arguments::command::<Args>("tokenize"), run: Run::Program(run) };

/// Turns text into tokens
#[derive(Debug, Parser)]
struct Args {
    /// The model [default: the only one that is mounted]
    #[arg(long, short, value_name = "NAME")]
    model: Option<String>,
    /// Puts the model's beginning-of-text token first, where it wants one
    #[arg(long)]
    bos: bool,
    /// Reads names of special tokens, such as <|im_end|>, as these tokens
    #[arg(long)]
    special: bool,
    /// Prints the number of tokens alone
    #[arg(long, short, conflicts_with = "json")]
    count: bool,
    /// Prints {"tokens":[…]}
    #[arg(long)]
    json: bool,
    /// The text; - is standard input
    text: String,
    #[command(flatten)]
    daemon: Daemon,
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let text = prompt::read(&args.text)?;
    let call = Tokenize { model: args.model, text, bos: args.bos, special: args.special };
    let Reply::Tokens(tokens) = args.daemon.connect("tokenize")?.call(call)? else {
        return Err(Failure::Message("the daemon answered with the reply of another call".into()));
    };
    let mut output = Output::stdout();
    let numbers = || tokens.iter().map(Token::to_string).collect::<Vec<_>>().join(" ");
    match (args.json, args.count) {
        (true, _) => output.write_json(&json!({ "tokens": tokens }))?,
        (_, true) => output.write(&format!("{}\n", tokens.len()))?,
        _ => output.write(&format!("{}\n", numbers()))?,
    }
    Ok(0)
}
