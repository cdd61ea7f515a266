//! `chat`: a conversation with a model, in one context that grows turn by turn.
//!
//! On a terminal it reads lines with an editor; otherwise each line of standard input is one turn. With a model
//! that follows instructions the turns are chat messages; with one that only continues text they are written
//! down as a dialogue, which the model goes on with.

use std::io::{self, BufRead, IsTerminal};

use clap::Parser;
use syscalls::call::Class;
use syscalls::reply::{Finish, ModelInfo};

use crate::model::{INSTRUCTED, Mounted, Unfit};
use crate::program::{Failure, ModelArgs};
use crate::prompt::Prompter;
use crate::terminal::note;
use crate::terminal::output::Output;
use command::{Command, HELP};
use conversation::Conversation;
use editor::{Editor, Read};

mod command;
mod conversation;
mod editor;
mod transcript;

/// Talks with a model
///
/// On a terminal, type a line and read the answer; /help lists the commands, Ctrl-C ends an answer, Ctrl-D the
/// chat. Otherwise each line of standard input is a turn, and the answers go to standard output.
#[derive(Debug, Parser)]
#[command(name = "chat", version, after_help = EXAMPLES)]
pub struct Args {
    /// What the model is told before the first turn
    #[arg(long, short, value_name = "TEXT")]
    pub system: Option<String>,
    #[command(flatten)]
    pub model: ModelArgs,
}

const EXAMPLES: &str = "\
Examples:
  chat --system 'Answer in one sentence.'
  echo 'What is a context window?' | chat --seed 1";

const PROGRAM: &str = "chat";

/// As llama.cpp's own tools have it.
const TEMPERATURE: f32 = 0.8;

/// Runs the program.
///
/// # Errors
///
/// No model generates text, standard input is no text, or the daemon or SIGINT ends it.
pub fn run(args: &Args) -> Result<(), Failure> {
    let typed = io::stdin().is_terminal();
    let class = if typed { Class::Interactive } else { Class::Normal };
    let mut client = args.model.connect(PROGRAM, class)?;
    let model = Mounted::list(&mut client)?.generating(args.model.model.as_deref()).map_err(no_model)?;
    note_limits(&model);
    // The editor sets a handler of SIGINT for itself; the one that ends an answer comes after it, and calls it.
    let editor = if typed { Some(Editor::open()?) } else { None };
    let prompter = Prompter::new(PROGRAM, client, model, &args.model, TEMPERATURE)?;
    let conversation = Conversation::open(prompter, args.system.clone(), args.model.max_tokens)?;
    let mut chat = Chat { conversation, output: Output::stdout(), typed };
    match editor {
        Some(editor) => chat.type_turns(editor),
        None => chat.read_turns(),
    }
}

fn no_model(unfit: Unfit) -> Failure {
    Failure::Message(format!("{unfit}; chatting needs a model that generates text, at best {INSTRUCTED}"))
}

/// Says once what cannot be expected of the model.
fn note_limits(model: &ModelInfo) {
    if !model.chat_template {
        note!(
            "{PROGRAM}: model `{}` continues text and follows no instructions; the turns are written down as a dialogue",
            model.name
        );
    }
    if !model.any_text {
        note!("{PROGRAM}: model `{}` knows only some characters; others are refused", model.name);
    }
}

struct Chat {
    conversation: Conversation,
    output: Output,
    typed: bool,
}

impl Chat {
    /// Turns from an editor, until the user leaves. What goes wrong in a turn is told, and the chat goes on.
    fn type_turns(&mut self, mut editor: Editor) -> Result<(), Failure> {
        note!("{PROGRAM}: {}; /help lists the commands", self.conversation.model_line());
        loop {
            let line = match editor.read()? {
                Read::Line(line) => line,
                Read::Interrupted => {
                    note!("{PROGRAM}: Ctrl-D or /exit ends the chat");
                    continue;
                }
                Read::End => return Ok(()),
            };
            match Command::read(&line) {
                _ if line.trim().is_empty() => {}
                Err(message) => note!("{PROGRAM}: {message}"),
                Ok(Some(Command::Exit)) => return Ok(()),
                Ok(Some(command)) => self.obey(command),
                Ok(None) => match self.turn(&line) {
                    Err(Failure::Output(error)) => return Err(Failure::Output(error)),
                    Err(failure) if self.conversation.is_lost(&failure) => return Err(failure),
                    Err(failure) => note!("{PROGRAM}: {failure}"),
                    Ok(_) => {}
                },
            }
        }
    }

    /// Turns from standard input, a line each. The first failure ends the chat: nobody is there to react to it.
    fn read_turns(&mut self) -> Result<(), Failure> {
        for (at, line) in io::stdin().lock().lines().enumerate() {
            let line = line.map_err(|error| {
                Failure::Message(match error.kind() {
                    io::ErrorKind::InvalidData => format!("line {} of standard input is not UTF-8", at + 1),
                    _ => format!("standard input cannot be read: {error}"),
                })
            })?;
            if line.trim().is_empty() {
                continue;
            }
            if self.turn(&line)? == Finish::Interrupted {
                return Err(Failure::Interrupted);
            }
        }
        Ok(())
    }

    /// One turn: the answer streams to standard output and ends with a line break.
    fn turn(&mut self, line: &str) -> Result<Finish, Failure> {
        if self.typed {
            self.conversation.forget_interruption();
        }
        let output = &mut self.output;
        let result = self.conversation.turn(line, &mut |piece| output.write(piece));
        if result.is_ok() {
            self.output.write("\n")?;
        } else {
            self.output.end()?;
        }
        let finish = result?;
        match finish {
            Finish::ContextFull => note!(
                "{PROGRAM}: the answer was cut: the context is full at {} tokens; /reset begins anew, and the next \
                 turn makes room by forgetting the oldest",
                self.conversation.tokens_max()
            ),
            Finish::Length => note!("{PROGRAM}: the answer was cut, as --max-tokens says"),
            Finish::Interrupted | Finish::Eos | Finish::Stop => {}
        }
        Ok(finish)
    }

    fn obey(&mut self, command: Command) {
        let result = match command {
            Command::Help => {
                note::part(format_args!("{HELP}"));
                Ok(())
            }
            Command::Reset => self.conversation.reset(),
            Command::Save(path) => self.conversation.save(&path),
            Command::Exit => Ok(()),
        };
        if let Err(failure) = result {
            note!("{PROGRAM}: {failure}");
        }
    }
}
