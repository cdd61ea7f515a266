//! A conversation: one context that holds what was said, and the transcript to make it again from.
//!
//! Each turn appends what is new and generates. When the context is full, the oldest turns are forgotten and the
//! rest goes into a new context, which is told on standard error.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use syscalls::reply::Finish;
use syscalls::{ContextId, Errno, Tokens};

use super::PROGRAM;
use super::transcript::{STOP, Transcript};
use crate::program::Failure;
use crate::prompt::{Prompter, Sink, assistant, user};

/// Room that an answer should have, in tokens, before turns are forgotten for it; less in small contexts.
const ANSWER_ROOM: u32 = 256;

/// The share of a context that an answer's room takes at most.
const ANSWER_SHARE: u32 = 4;

/// A conversation with one model.
pub struct Conversation {
    prompter: Prompter,
    transcript: Transcript,
    context: ContextId,
    tokens_max: Tokens,
    /// Turns of the transcript that the context holds.
    held: usize,
    max_tokens: Option<u32>,
}

impl Conversation {
    /// Begins a conversation.
    ///
    /// # Errors
    ///
    /// No context can be opened.
    pub fn open(
        mut prompter: Prompter,
        system: Option<String>,
        max_tokens: Option<u32>,
    ) -> Result<Conversation, Failure> {
        let opened = prompter.open()?;
        let transcript = Transcript::new(system);
        let (context, tokens_max) = (opened.context, opened.tokens_max);
        Ok(Conversation { prompter, transcript, context, tokens_max, held: 0, max_tokens })
    }

    /// Tokens that the context can hold.
    pub fn tokens_max(&self) -> u32 {
        self.tokens_max.0
    }

    /// Who is on the other side, in a few words.
    pub fn model_line(&self) -> String {
        let model = self.prompter.model();
        format!("talking with `{}`, which remembers {} tokens", model.name, self.tokens_max.0)
    }

    /// Lets the next Ctrl-C end the next answer.
    pub fn forget_interruption(&self) {
        self.prompter.interrupted().clear();
    }

    /// Whether no further turn can succeed: the daemon is gone.
    pub fn is_lost(&self, failure: &Failure) -> bool {
        matches!(failure, Failure::Fault(fault) if fault.errno == Errno::ECONNRESET)
    }

    /// Says one turn and streams the answer. A turn that fails is taken back.
    ///
    /// # Errors
    ///
    /// The daemon refuses, or the sink fails.
    pub fn turn(&mut self, line: &str, sink: Sink) -> Result<Finish, Failure> {
        let said = line.strip_prefix('/').filter(|rest| rest.starts_with('/')).unwrap_or(line);
        self.transcript.push(user(said));
        match self.append().and_then(|length| self.generate(length, sink)) {
            Ok(finish) => Ok(finish),
            Err(failure) => {
                self.transcript.pop();
                if !self.is_lost(&failure) {
                    self.renew()?;
                }
                Err(failure)
            }
        }
    }

    /// Begins anew.
    ///
    /// # Errors
    ///
    /// No context can be opened.
    pub fn reset(&mut self) -> Result<(), Failure> {
        self.transcript.clear();
        self.renew()
    }

    /// Writes what was said to a new file.
    ///
    /// # Errors
    ///
    /// The file is there already or cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        let written = File::create_new(path).and_then(|mut f| f.write_all(self.transcript.text().as_bytes()));
        written.map_err(|error| {
            let path = path.display();
            Failure::Message(match error.kind() {
                ErrorKind::AlreadyExists => format!("{path} is there already; choose another name"),
                _ => format!("{path} cannot be written: {error}"),
            })
        })
    }

    /// Brings the context up to date, and makes room where there is too little for an answer. Gives its length.
    fn append(&mut self) -> Result<Tokens, Failure> {
        loop {
            let appended = self.append_new();
            let room = ANSWER_ROOM.min(self.tokens_max.0 / ANSWER_SHARE);
            let fits = match &appended {
                Ok(length) => length.0 + room <= self.tokens_max.0,
                Err(Failure::Fault(fault)) => fault.errno != Errno::ENOSPC,
                Err(_) => true,
            };
            if fits {
                return appended;
            }
            let forgotten = self.transcript.forget_oldest();
            if forgotten == 0 {
                return appended;
            }
            note!(
                "{PROGRAM}: the conversation is longer than the model's {} tokens; it has forgotten the oldest {forgotten} turns",
                self.tokens_max.0
            );
            self.renew()?;
        }
    }

    fn append_new(&mut self) -> Result<Tokens, Failure> {
        let length = if self.prompter.model().chat_template {
            let new = self.transcript.messages_from(self.held);
            self.prompter.append_messages(self.context, new)?
        } else {
            let new = self.transcript.dialogue_from(self.held);
            self.prompter.client().append_text(self.context, &new)?
        };
        self.held = self.transcript.len();
        Ok(length)
    }

    fn generate(&mut self, length: Tokens, sink: Sink) -> Result<Finish, Failure> {
        let chat = self.prompter.model().chat_template;
        let stop = if chat { Vec::new() } else { vec![STOP.to_owned()] };
        let (generated, text) = self.prompter.answer(self.context, self.max_tokens, stop, sink)?;
        self.transcript.push(assistant(text));
        if chat {
            // The context holds the answer, and the kernel knows it as the assistant's message.
            self.held = self.transcript.len();
        } else {
            // The tokens of the stop string go beyond the answer; the next turn appends the answer as text.
            self.prompter.client().truncate(self.context, length)?;
        }
        Ok(generated.finish)
    }

    /// A new context that holds nothing yet.
    fn renew(&mut self) -> Result<(), Failure> {
        let old = self.context;
        self.context = self.prompter.open()?.context;
        self.held = 0;
        // A context that is gone already is no trouble.
        match self.prompter.client().close(old) {
            Err(fault) if fault.errno != Errno::EBADF => Err(fault.into()),
            _ => Ok(()),
        }
    }
}
