//! Contexts: address spaces of tokens.
//!
//! The token log is the truth; the entries in the worker's pool are a cache of its beginning. So a context whose
//! pages were taken, or whose worker died, loses nothing: it is computed again from its log when it is needed.
//! Appending is lazy for the same reason: tokens are computed when a generation first needs them.
//!
//! Calls on one context are carried out one after another, in the order of arrival, with these exceptions, that
//! would be useless in line: `fork`, `share`, `snapshot` and `tokens` act at once on a context whose only call is a running
//! generation (they see it as it was at the last step), and `close` withdraws what is in line.
//!
//! The token that ended a generation (end-of-generation, or the end of a stop string) is part of the log, because
//! chat templates expect it there.

mod append;
mod close;
mod compact;
mod fork;
mod log;
mod queue;
mod recap;
mod slide;
mod tokens;

use std::collections::VecDeque;

use drivers::wire::{PAGE_TOKENS, TokenizeRequest};
use serde::{Deserialize, Serialize};
use syscalls::call::{Fork, Message, OnFull, ReadTokens, Share, Snapshot};
use syscalls::{ContextId, Pid, Token};

use super::call::CallNo;
use super::event::ModelId;
use super::generate::{Generation, Valid};
use super::memory::{Resident, Space};
use super::sched::Place;

pub(super) use log::Log;
pub(super) use queue::Started;

/// Something to do to a context.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Work {
    AppendText(TokenizeRequest),
    AppendTokens(Vec<Token>),
    AppendMessages(Vec<Message>),
    Generate(Box<Valid>),
    Truncate(u32),
    Fork(Fork),
    Read(ReadTokens),
    Share(Share),
    Snapshot(Snapshot),
}

/// A call in line.
#[derive(Debug)]
pub(super) struct Queued {
    pub call: CallNo,
    pub work: Option<Work>,
    /// What a worker was asked for it, where the context outlives the daemon.
    pub asked: Option<Box<Work>>,
    /// It has waited for a summary, or does.
    pub summed_up: bool,
}

impl Queued {
    /// One that has not begun.
    pub(super) fn new(call: CallNo, work: Option<Work>) -> Self {
        Queued { call, work, asked: None, summed_up: false }
    }
}

/// One context.
#[derive(Debug)]
pub(super) struct Context {
    pub id: ContextId,
    pub owner: Pid,
    pub model: ModelId,
    /// Whose log this is: with whom it shares its pages.
    pub space: Space,
    /// The tokens.
    pub log: Log,
    pub tokens_max: u32,
    /// What happens when it is full.
    pub on_full: OnFull,
    /// How much of the log was ever computed: below this, computing is computing again.
    pub evaluated: u32,
    /// Tokens at the beginning that are the system messages of a conversation.
    pub instructions: u32,
    /// The conversation, where `append` was given messages; generated answers included.
    pub messages: Vec<Message>,
    /// The last message is the answer that a further generation continues.
    pub answering: bool,
    /// Calls in line; work is absent from the first one when it has begun.
    pub queue: VecDeque<Queued>,
    /// A summary of its beginning that is being written; it does not run meanwhile.
    pub compaction: Option<Box<compact::Compaction>>,
    /// The generation that has begun.
    pub generation: Option<Box<Generation>>,
    /// Its part of the worker's pool.
    pub resident: Option<Resident>,
    /// Where the scheduler keeps it.
    pub place: Place,
    /// The step that runs has a row of it, or loads pages for it.
    pub in_step: bool,
    /// The length at which its worker died twice: a generation from there on is refused.
    pub condemned: Option<u32>,
    /// So much of its log is on disk, where it outlives the daemon.
    pub kept: Option<u32>,
}

impl Context {
    /// Tokens in the log.
    pub(super) fn length(&self) -> u32 {
        self.log.len() as u32
    }

    /// Tokens of the log whose entries are in the worker's pool.
    pub(super) fn computed(&self) -> u32 {
        self.resident.as_ref().map_or(0, |r| r.computed)
    }

    /// Tokens of the log to compute.
    pub(super) fn remaining(&self) -> u32 {
        self.length() - self.computed()
    }

    /// The call of the generation that has begun.
    pub(super) fn generating(&self) -> Option<CallNo> {
        self.generation.as_ref().map(|g| g.call)
    }

    /// Pages that its log takes.
    pub(super) fn pages(&self) -> u32 {
        self.length().div_ceil(PAGE_TOKENS)
    }

    /// Frames that it maps.
    pub(super) fn frames(&self) -> u32 {
        self.resident.as_ref().map_or(0, |r| r.pages.len() as u32)
    }
}
