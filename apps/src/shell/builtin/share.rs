//! `share`: publishes a beginning of contexts, and takes it back.

use clap::Parser;
use syscalls::call::{Append, Message, Share, Unshare};
use syscalls::client::blocking::Client;

use super::arguments::{self, Daemon, Invocation};
use super::failure::Failure;
use super::generate::prompt;
use super::{Builtin, Outcome, Run};

pub const BUILTIN: Builtin =
    Builtin { name: "share", command: || arguments::command::<Args>("share"), run: Run::Program(run) };

/// Publishes text that contexts can begin with
///
/// The text is evaluated once, however many contexts begin with it (generate --prefix NAME). A model with a chat
/// template gets it as instructions; one without, or --raw, as plain text. It stays until it is removed or its
/// model is unmounted.
#[derive(Debug, Parser)]
struct Args {
    /// The model [default: the only one that is mounted]
    #[arg(long, short, value_name = "NAME")]
    model: Option<String>,
    /// Who may begin with it, in octal: 600 the user alone, 644 everyone
    #[arg(long, value_name = "MODE", default_value = "600", value_parser = octal)]
    mode: u32,
    /// Takes the text as it is, without a chat template
    #[arg(long)]
    raw: bool,
    /// Removes the segment of this name instead
    #[arg(long, conflicts_with_all = ["model", "mode", "raw", "text"])]
    remove: bool,
    /// The name
    name: String,
    /// The text; - is standard input, as it is
    #[arg(required_unless_present = "remove")]
    text: Option<String>,
    #[command(flatten)]
    daemon: Daemon,
}

fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .map_err(|_| format!("`{text}` is not octal; give digits from 0 to 7, as in 644"))
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let mut client = args.daemon.connect("share")?;
    let Some(text) = args.text.as_deref().filter(|_| !args.remove) else {
        client.call(Unshare { name: args.name })?;
        return Ok(0);
    };
    publish(&mut client, &args, prompt::read(text)?)
}

fn publish(client: &mut Client, args: &Args, text: String) -> Outcome {
    let opened = client.open(args.model.as_deref())?;
    let context = opened.context;
    let chat = client.models()?.iter().any(|m| m.name == opened.model && m.chat_template);
    if chat && !args.raw {
        client.append_messages(context, vec![Message { role: "system".into(), content: text }])?;
    } else {
        client.append(Append { context, text: Some(text), tokens: None, messages: None, special: false })?;
    }
    client
        .call(Share { context, name: args.name.clone(), length: None, mode: args.mode })
        .map_err(Failure::Fault)?;
    Ok(0)
}
