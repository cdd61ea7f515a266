//! `generate`: continues a prompt, or answers it where the model follows instructions.

use std::io::{self, IsTerminal};
use std::path::Path;

use clap::Parser;
use syscalls::call::{Append, Class, Generate, Hello, Lifetime, Message, OnFull, Open, Signal};
use syscalls::client::blocking::{Client, Interrupter};
use syscalls::client::{Opened, hello};
use syscalls::reply::{Finish, GeneratedReply};
use syscalls::{Errno, Event, Fault, Tokens};

use super::arguments::{self, Daemon, Invocation, name_of};
use super::failure::Failure;
use super::{Builtin, Outcome, Run};
use crate::terminal::interrupt::{self, INTERRUPTED, Interrupted};
use crate::terminal::output::Output;

pub mod prompt;
pub mod sampling;

pub const BUILTIN: Builtin =
    Builtin { name: "generate", command: || arguments::command::<Args>("generate"), run: Run::Program(run) };

/// Generates text
///
/// Prints the generated text alone, as it comes. A model with a chat template gets the prompt as a user's
/// message; one without, or --raw, continues it. Ctrl-C ends the generation, and twice ends the command.
#[derive(Debug, Parser)]
struct Args {
    /// The model [default: the only one that is mounted]
    #[arg(long, short, value_name = "NAME")]
    model: Option<String>,
    /// The most tokens to generate [default: until the model ends or the context is full]
    #[arg(long, short = 'n', value_name = "COUNT")]
    max_tokens: Option<u32>,
    /// Goes on past the model's end-of-generation tokens
    #[arg(long)]
    ignore_eos: bool,
    /// Ends the text before this string; may be given several times
    #[arg(long, value_name = "STRING")]
    stop: Vec<String>,
    /// Continues the prompt as it is, without a chat template
    #[arg(long, conflicts_with = "system")]
    raw: bool,
    /// Reads names of special tokens, such as <|im_end|>, in a raw prompt as these tokens
    #[arg(long, requires = "raw")]
    special: bool,
    /// What the model is told before the prompt
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    sampling: sampling::Options,
    /// Begins with a shared segment, as `segments` lists them, and with its model
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    prefix: Option<String>,
    /// What happens when the context is full: stop, slide (its oldest part is dropped) or
    /// compact (a summary stands for that)
    #[arg(long, value_name = "HOW", default_value = "stop", value_parser = arguments::on_full())]
    on_full: OnFull,
    /// The scheduling class [default: interactive on a terminal, else normal]
    #[arg(long, value_parser = arguments::class())]
    class: Option<Class>,
    /// Prints one object with text, tokens, finish, seed and usage, when all is done
    #[arg(long)]
    json: bool,
    /// Reports this many alternatives for each token
    #[arg(long, value_name = "COUNT", requires = "json")]
    logprobs: Option<u32>,
    /// When it should have ended, in milliseconds; the class realtime and the policy edf look at it
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..))]
    deadline: Option<u32>,
    /// Tells on standard error what it took
    #[arg(long)]
    stats: bool,
    /// Prints the number of the process and leaves; `attach` reads the text later
    #[arg(long, conflicts_with_all = ["json", "stats"])]
    detach: bool,
    /// Goes on after a restart of the daemon, at the same token
    #[arg(long)]
    persistent: bool,
    /// The prompt; - is standard input, as it is
    #[arg(required = true, value_name = "PROMPT")]
    words: Vec<String>,
    #[command(flatten)]
    daemon: Daemon,
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let text = prompt::read(&args.words.join(" "))?;
    let sampling = args.sampling.read()?;
    let watched = if io::stdout().is_terminal() { Class::Interactive } else { Class::Normal };
    let class = args.class.unwrap_or(watched);
    let lifetime = match (args.persistent, args.detach) {
        (true, _) => Lifetime::Persistent,
        (false, true) => Lifetime::Detached,
        (false, false) => Lifetime::Connection,
    };
    let mut client = args.daemon.connect_with(Hello { class, lifetime, ..hello("generate") })?;
    let interrupted = interrupt::on_sigint(client.interrupter())?;

    let (model, prefix, on_full) = (args.model.clone(), args.prefix.clone(), args.on_full);
    let opened = client.open_with(Open { model, tokens_max: None, on_full, prefix })?;
    let generate = Generate {
        context: opened.context,
        max_tokens: args.max_tokens.map(Tokens),
        stop: args.stop.clone(),
        sampling,
        ignore_eos: args.ignore_eos,
        logprobs: args.logprobs,
        stream: !args.json,
        deadline_ms: args.deadline.map(i64::from),
    };
    if args.detach {
        return leave(client, &args, &opened, text, generate);
    }
    let result = prompt_of(&args, text)
        .append("generate", &mut client, &opened)
        .and_then(|()| stream("generate", &mut client, generate, args.json));
    end("generate", result, &interrupted, args.stats)
}

/// The exit status of a command that has generated, or failed to.
pub fn end(
    command: &str,
    result: Result<GeneratedReply, Failure>,
    interrupted: &Interrupted,
    stats: bool,
) -> Outcome {
    match result {
        Err(Failure::Fault(fault)) if interrupted.is_set() && ended_by_signal(&fault) => Ok(INTERRUPTED),
        Err(failure) => Err(failure),
        Ok(generated) => {
            if stats {
                note!("{command}: {}", took(&generated));
            }
            Ok(if generated.finish == Finish::Interrupted { INTERRUPTED } else { 0 })
        }
    }
}

/// Begins to generate, and leaves the process to itself.
fn leave(mut client: Client, args: &Args, opened: &Opened, text: String, generate: Generate) -> Outcome {
    prompt_of(args, text).append("generate", &mut client, opened)?;
    let id = client.start(generate)?;
    let pid = client.pid();
    client.detach(None)?;
    // A call that runs is answered so when its process is detached; anything else is its own failure.
    if let Err(fault) = client.finish(id, |_| {})
        && fault.errno != Errno::ECANCELED
    {
        args.daemon.connect("generate")?.kill(pid, Signal::Kill)?;
        return Err(fault.into());
    }
    let mut output = Output::stdout();
    output.write(&format!("{pid}\n"))?;
    output.end()?;
    Ok(0)
}

fn ended_by_signal(fault: &Fault) -> bool {
    matches!(fault.errno, Errno::EINTR | Errno::ECANCELED)
}

/// What a context is given before it generates.
pub struct Prompt {
    pub text: String,
    /// What the model is told before the text.
    pub system: Option<String>,
    /// As it is, without a chat template.
    pub raw: bool,
    /// Names of special tokens in it are these tokens.
    pub special: bool,
}

fn prompt_of(args: &Args, text: String) -> Prompt {
    Prompt { text, system: args.system.clone(), raw: args.raw, special: args.special }
}

impl Prompt {
    /// Brings the prompt into the context: as messages where the model knows messages.
    pub fn append(self, command: &str, client: &mut Client, opened: &Opened) -> Result<(), Failure> {
        let chat = !self.raw && has_template(client, &opened.model)?;
        if chat {
            let system = self.system.map(|content| Message { role: "system".into(), content });
            let user = Message { role: "user".into(), content: self.text };
            client.append_messages(opened.context, system.into_iter().chain([user]).collect())?;
            return Ok(());
        }
        if !self.raw {
            note!(
                "{command}: {} has no chat template, so it continues the prompt as plain text; --raw asks for that",
                opened.model
            );
        }
        let text = match self.system {
            Some(system) => format!("{system}\n\n{}", self.text),
            None => self.text,
        };
        let (context, special) = (opened.context, self.special);
        client.append(Append { context, text: Some(text), tokens: None, messages: None, special })?;
        Ok(())
    }
}

fn has_template(client: &mut Client, model: &str) -> Result<bool, Fault> {
    Ok(client.models()?.iter().any(|m| m.name == model && m.chat_template))
}

/// Generates, and shows the text as it comes or the reply at the end.
pub fn stream(
    command: &'static str,
    client: &mut Client,
    generate: Generate,
    json: bool,
) -> Result<GeneratedReply, Failure> {
    let interrupter = client.interrupter();
    let mut shown = Shown { command, output: Output::stdout(), failed: None, interrupter };
    let generated = client.generate(generate, |event| shown.event(event));
    if let Some(error) = shown.failed {
        return Err(Failure::Output(error));
    }
    if generated.is_err() {
        shown.output.end()?;
    }
    let generated = generated?;
    if json {
        shown.output.write_json(&generated)?;
    } else {
        shown.output.end()?;
    }
    Ok(generated)
}

/// What has been shown of a generation.
struct Shown {
    command: &'static str,
    output: Output,
    failed: Option<io::Error>,
    interrupter: Interrupter,
}

impl Shown {
    fn event(&mut self, event: Event) {
        let command = self.command;
        match event {
            Event::Tokens { text, .. } if self.failed.is_none() => {
                if let Err(error) = self.output.write(&text) {
                    self.failed = Some(error);
                    // Nobody reads: the model's time is for others. If this fails too, the connection is gone
                    // and the reply will say so.
                    let _ = self.interrupter.interrupt();
                }
            }
            Event::Replaying { tokens } => {
                note!("{command}: the model's worker died; {tokens} tokens are computed again");
            }
            Event::Slid { tokens, .. } => {
                note!("{command}: the context was full; its oldest {tokens} tokens were dropped");
            }
            Event::Compacted { summary, messages, .. } if messages > 0 => {
                note!(
                    "{command}: the context was full; a summary of {summary} tokens stands for its oldest {messages} messages"
                );
            }
            Event::Compacted { tokens, summary, .. } => {
                note!(
                    "{command}: the context was full; a summary of {summary} tokens stands for its oldest {tokens}"
                );
            }
            _ => {}
        }
    }
}

/// What a generation took, in one line.
fn took(generated: &GeneratedReply) -> String {
    let usage = &generated.usage;
    let seconds = usage.total_us as f64 / 1e6;
    // The first token belongs to the prompt's time.
    let decode_us = usage.total_us.saturating_sub(usage.first_token_us).max(1);
    let speed = f64::from(usage.tokens_generated.saturating_sub(1)) * 1e6 / decode_us as f64;
    format!(
        "prompt {} tokens evaluated and {} shared, first token after {:.3} s; {} tokens in {seconds:.3} s, \
         {speed:.1} tokens/s; ended by {}, seed {}",
        usage.prompt_tokens_evaluated,
        usage.prompt_tokens_shared,
        usage.first_token_us as f64 / 1e6,
        usage.tokens_generated,
        name_of(generated.finish),
        generated.seed,
    )
}

/// A file of a grammar or schema, bounded as the daemon bounds it.
fn grammar_file(path: &Path) -> Result<String, Failure> {
    prompt::read_bounded(path, syscalls::limits::GRAMMAR_BYTES_MAX)
}
