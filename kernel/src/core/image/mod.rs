//! Images of processes that outlive the daemon: what is on disk of them at every step boundary.
//!
//! An image is what a process cannot be made again without: who it is, what it may have, the logs of its contexts, the
//! calls in line on them, and of a generation that has begun its options and its text so far. The worker chooses token
//! number n from the log, the seed and n alone, so no state of a sampler is kept: the next daemon sets it up from the
//! log, as this one does when a worker has died. Entries in the pool, service and prices are not in it.
//!
//! While a kernel runs it tells what changed ([`Entry`], in `write.rs`), once for each step: whole heads of processes
//! and contexts where calls changed them, and tokens alone where a generation grew. [`Images`] is what the entries come
//! to; after a restart its records come with `Booted`, and `restore.rs` makes processes of them again.

mod entry;
mod kept;
mod restore;
mod write;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use syscalls::call::{Class, Message, OnFull};
use syscalls::event::TokenLogprob;
use syscalls::{ContextId, Pid, Token};

use super::call::CallNo;
use super::capability::Caps;
use super::context::Work;
use super::effect::Program;
use super::generate::{TextOut, Valid};
use super::memory::Space;
use super::process::{Ended, Limits};

pub use entry::{EndedCall, Entry, Images};
pub use kept::Kept;
pub(super) use write::Journal;

/// A process as it outlives the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessImage {
    pub pid: Pid,
    pub parent: Pid,
    pub uid: u32,
    pub name: String,
    pub class: Class,
    pub nice: i8,
    /// The path of its group.
    pub group: String,
    /// STOP holds it.
    pub stopped: bool,
    /// It was asked to end, and has not yet.
    #[serde(default)]
    pub ending: bool,
    pub(in crate::core) limits: Limits,
    /// What it may do at most.
    #[serde(default = "all")]
    pub(in crate::core) caps: Caps,
    /// Tokens that it has generated: what its limit looks at.
    pub tokens_generated: u64,
    /// Calls of it that have killed two workers each.
    #[serde(default)]
    pub deadly_calls: u32,
    /// What is started in its place: it is a program that goes on from files of its own. Everything else about it begins anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Box<Program>>,
    /// Messages that wait for it. They have entries of their own.
    #[serde(skip)]
    pub mailbox: VecDeque<(Pid, Kept)>,
    /// Replies that nobody has fetched. They have entries of their own.
    #[serde(skip)]
    pub(in crate::core) results: VecDeque<Ended>,
}

/// Processes that began before there were capabilities may do all that their users may.
fn all() -> Caps {
    Caps::ALL
}

/// A context as it outlives the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContextImage {
    pub id: ContextId,
    pub owner: Pid,
    /// The name of its model, and the fingerprint: tokens say nothing to another model.
    pub model: String,
    pub fingerprint: u64,
    pub(in crate::core) space: Space,
    pub tokens_max: u32,
    pub on_full: OnFull,
    pub instructions: u32,
    pub messages: Vec<Message>,
    pub answering: bool,
    pub condemned: Option<u32>,
    /// The calls in line.
    pub(in crate::core) queue: Vec<QueuedImage>,
    /// The generation that has begun; its call is the first in line.
    pub(in crate::core) generation: Option<Box<GenerationImage>>,
    /// The tokens. They have entries of their own.
    #[serde(skip)]
    pub log: Vec<Token>,
}

/// A call in line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::core) struct QueuedImage {
    pub call: CallNo,
    /// Its name in the manual.
    pub name: String,
    /// What to do; absent of a generation that has begun.
    pub work: Option<Work>,
}

/// A generation that has begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::core) struct GenerationImage {
    pub call: CallNo,
    pub valid: Valid,
    /// The length of the log when it began.
    pub start: u32,
    pub tokens_max: u32,
    pub text: TextOut,
    pub logprobs: Vec<TokenLogprob>,
    /// Tokens of it that slid out of the log, and what the sampler looks at since then.
    pub slid: Vec<Token>,
    pub history: Option<Vec<Token>>,
}
