//! Asks a model: messages go in, the answer streams out, and how it ended is checked.
//!
//! Each question gets a context of its own. The kernel shares what contexts begin with, so repeating the
//! instructions costs nothing.

use std::io;

use syscalls::call::{Generate, Message, Sampling};
use syscalls::client::Opened;
use syscalls::client::blocking::{Client, Interrupter};
use syscalls::reply::{Finish, GeneratedReply, ModelInfo};
use syscalls::{ContextId, Event, Fault, Tokens};

use crate::program::{Failure, ModelArgs};
use crate::terminal::interrupt::{self, Interrupted};
use crate::text::chunk::Count;
use answer::AnswerText;

pub mod answer;

/// Takes the pieces of an answer as they come.
pub type Sink<'a> = &'a mut dyn FnMut(&str) -> io::Result<()>;

/// A connection that asks one model.
#[derive(Debug)]
pub struct Prompter {
    program: &'static str,
    client: Client,
    model: ModelInfo,
    sampling: Sampling,
    max_tokens: Option<u32>,
    interrupted: Interrupted,
    interrupter: Interrupter,
}

impl Prompter {
    /// Will ask `model` over this connection. From now on SIGINT ends an answer first.
    ///
    /// # Errors
    ///
    /// The system refuses the signal handler.
    pub fn new(
        program: &'static str,
        client: Client,
        model: ModelInfo,
        args: &ModelArgs,
        temperature: f32,
    ) -> Result<Prompter, Failure> {
        let interrupter = client.interrupter();
        let interrupted = interrupt::on_sigint(interrupter.clone())
            .map_err(|e| Failure::Message(format!("SIGINT cannot be handled: {e}")))?;
        let (sampling, max_tokens) = (args.sampling(temperature), args.max_tokens);
        Ok(Prompter { program, client, model, sampling, max_tokens, interrupted, interrupter })
    }

    /// The model that is asked.
    pub fn model(&self) -> &ModelInfo {
        &self.model
    }

    /// Whether SIGINT has come.
    pub fn interrupted(&self) -> &Interrupted {
        &self.interrupted
    }

    /// The connection, for calls that are no questions.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Opens a context on the model.
    ///
    /// # Errors
    ///
    /// Those of the call.
    pub fn open(&mut self) -> Result<Opened, Fault> {
        self.client.open(Some(&self.model.name))
    }

    /// Asks with one message and gives the answer, which has streamed to `sink` without the space around it.
    /// `answer_max` bounds an answer that does not come to an end.
    ///
    /// # Errors
    ///
    /// The daemon refuses, the sink fails, SIGINT came, or the answer is not whole.
    pub fn ask(&mut self, messages: Vec<Message>, answer_max: u32, sink: Sink) -> Result<String, Failure> {
        let context = self.open()?.context;
        let generated = self.append_messages(context, messages).and_then(|_| {
            let max_tokens = Some(self.max_tokens.map_or(answer_max, |own| own.min(answer_max)));
            self.answer(context, max_tokens, Vec::new(), sink)
        });
        let closed = self.client.close(context);
        let (generated, text) = generated?;
        closed?;
        self.check_whole(&generated)?;
        Ok(text)
    }

    /// How many tokens a prompt takes, instructions and template included.
    ///
    /// # Errors
    ///
    /// Those of the calls.
    pub fn prompt_tokens(&mut self, messages: Vec<Message>) -> Result<u32, Failure> {
        let context = self.open()?.context;
        let length = self.append_messages(context, messages);
        self.client.close(context)?;
        Ok(length?.0)
    }

    /// Appends messages; a call that SIGINT ended is an interruption.
    ///
    /// # Errors
    ///
    /// Those of the call.
    pub fn append_messages(&mut self, context: ContextId, messages: Vec<Message>) -> Result<Tokens, Failure> {
        let appended = self.client.append_messages(context, messages).map_err(Failure::Fault);
        self.or_interrupted(appended)
    }

    /// Generates in a context, and streams the text without the space around it.
    ///
    /// # Errors
    ///
    /// The daemon refuses, or the sink fails.
    pub fn answer(
        &mut self,
        context: ContextId,
        max_tokens: Option<u32>,
        stop: Vec<String>,
        sink: Sink,
    ) -> Result<(GeneratedReply, String), Failure> {
        if self.interrupted.is_set() {
            return Err(Failure::Interrupted);
        }
        let generate = Generate {
            context,
            max_tokens: max_tokens.map(Tokens),
            stop,
            sampling: self.sampling.clone(),
            ignore_eos: false,
            logprobs: None,
            stream: true,
            deadline_ms: None,
        };
        let mut stream = Stream {
            program: self.program,
            text: AnswerText::default(),
            sink,
            failed: None,
            interrupted: self.interrupted.clone(),
            interrupter: self.interrupter.clone(),
        };
        let generated = self.client.generate(generate, |event| stream.event(event)).map_err(Failure::Fault);
        stream.end();
        let Stream { text, failed, .. } = stream;
        if let Some(error) = failed {
            return Err(Failure::Output(error));
        }
        Ok((self.or_interrupted(generated)?, text.whole()))
    }

    /// What a signal leaves of a call is an interruption; other failures stay what they are.
    fn or_interrupted<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        result.map_err(|failure| {
            let ended = self.interrupted.is_set() && failure.is_interruption();
            if ended { Failure::Interrupted } else { failure }
        })
    }

    fn check_whole(&self, generated: &GeneratedReply) -> Result<(), Failure> {
        let tokens = generated.usage.tokens_generated;
        match generated.finish {
            Finish::Eos | Finish::Stop => Ok(()),
            Finish::Interrupted => Err(Failure::Interrupted),
            Finish::Length if self.max_tokens.is_some_and(|own| tokens >= own) => {
                note!("{}: the answer was cut after {tokens} tokens, as --max-tokens says", self.program);
                Ok(())
            }
            Finish::Length => Err(Failure::Message(format!(
                "model `{}` did not end its answer within {tokens} tokens; try another model or a shorter text",
                self.model.name
            ))),
            Finish::ContextFull => Err(Failure::Message(format!(
                "the answer was cut: the context of model `{}` is full at {} tokens; mount it with a larger --context",
                self.model.name, generated.length.0
            ))),
        }
    }
}

impl Count for Prompter {
    type Error = Failure;

    fn count(&mut self, text: &str) -> Result<usize, Failure> {
        if self.interrupted.is_set() {
            return Err(Failure::Interrupted);
        }
        Ok(self.client.tokenize(Some(&self.model.name), text)?.len())
    }
}

/// A message of the user.
pub fn user(content: impl Into<String>) -> Message {
    Message { role: "user".into(), content: content.into() }
}

/// A message of the model.
pub fn assistant(content: impl Into<String>) -> Message {
    Message { role: "assistant".into(), content: content.into() }
}

/// An answer on its way from the daemon to the sink.
struct Stream<'a> {
    program: &'static str,
    text: AnswerText,
    sink: Sink<'a>,
    failed: Option<io::Error>,
    interrupted: Interrupted,
    interrupter: Interrupter,
}

impl Stream<'_> {
    fn event(&mut self, event: Event) {
        match event {
            Event::Tokens { text, .. } => {
                let ready = self.text.push(&text);
                self.give(&ready);
                // A SIGINT that came just before the call found nothing to end, and where nobody reads the
                // model's time is for others. If sending fails, the connection is gone and the reply says so.
                if self.failed.is_some() || self.interrupted.is_set() {
                    let _ = self.interrupter.interrupt();
                }
            }
            Event::Replaying { tokens } => {
                note!("{}: the model's worker died; {tokens} tokens are computed again", self.program);
            }
            _ => {}
        }
    }

    fn end(&mut self) {
        let rest = self.text.end();
        self.give(&rest);
    }

    fn give(&mut self, text: &str) {
        if self.failed.is_none() && !text.is_empty() {
            self.failed = (self.sink)(text).err();
        }
    }
}
