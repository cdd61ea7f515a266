//! `restore`: goes on from a snapshot.

use clap::Parser;
use syscalls::Tokens;
use syscalls::call::Generate;

use super::arguments::{self, Daemon, Invocation};
use super::generate::{self, Prompt, prompt, sampling};
use super::{Builtin, Outcome, Run};
use crate::terminal::interrupt;

pub const BUILTIN: Builtin =
    Builtin { name: "restore", command: || arguments::command::<Args>("restore"), run: Run::Program(run) };

/// Goes on from a snapshot
///
/// Opens a context as `snapshot` has kept it, adds the prompt if there is one, and prints what is generated. In a
/// conversation the prompt is a user's message, unless --raw is given. The snapshot stays as it is.
#[derive(Debug, Parser)]
struct Args {
    /// The most tokens to generate [default: until the model ends or the context is full]
    #[arg(long, short = 'n', value_name = "COUNT")]
    max_tokens: Option<u32>,
    /// Goes on past the model's end-of-generation tokens
    #[arg(long)]
    ignore_eos: bool,
    /// Ends the text before this string; may be given several times
    #[arg(long, value_name = "STRING")]
    stop: Vec<String>,
    /// Adds the prompt as it is, without a chat template
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    sampling: sampling::Options,
    /// Prints one object with text, tokens, finish, seed and usage, when all is done
    #[arg(long)]
    json: bool,
    /// Tells on standard error what it took
    #[arg(long)]
    stats: bool,
    /// The snapshot, as `snapshots` lists it
    name: String,
    /// What to add first; - is standard input, as it is
    #[arg(value_name = "PROMPT")]
    words: Vec<String>,
    #[command(flatten)]
    daemon: Daemon,
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let text = prompt::read(&args.words.join(" "))?;
    let sampling = args.sampling.read()?;
    let mut client = args.daemon.connect("restore")?;
    let interrupted = interrupt::on_sigint(client.interrupter())?;
    let opened = client.restore(&args.name)?;
    if !text.is_empty() {
        let prompt = Prompt { text, system: None, raw: args.raw, special: false };
        if let Err(failure) = prompt.append("restore", &mut client, &opened) {
            return generate::end("restore", Err(failure), &interrupted, false);
        }
    }
    let call = Generate {
        context: opened.context,
        max_tokens: args.max_tokens.map(Tokens),
        stop: args.stop,
        sampling,
        ignore_eos: args.ignore_eos,
        logprobs: None,
        stream: !args.json,
        deadline_ms: None,
    };
    let result = generate::stream("restore", &mut client, call, args.json);
    generate::end("restore", result, &interrupted, args.stats)
}
