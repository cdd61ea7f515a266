//! What is told of one process in full. No prompt and no text is in it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ProcessInfo, Stats};
use crate::call::{AtLimit, Limit, Signal};
use crate::errno::Errno;
use crate::id::{ContextId, Pid, Ticket, Tokens};

/// Answer to `inspect`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InspectReply {
    /// When, in microseconds since the daemon's start.
    pub at_us: u64,
    /// What `ps` shows.
    pub process: ProcessInfo,
    /// Its children.
    pub children: Vec<Pid>,
    /// Its calls without an answer, in the order in which they came.
    pub waits: Vec<WaitInfo>,
    /// Its contexts.
    pub contexts: Vec<ContextView>,
    /// Its limits, and what it has used of them.
    pub limits: Vec<LimitInfo>,
    /// Signals that have come and have not done all that they do.
    pub signals: Vec<PendingSignal>,
    /// Messages that wait until it receives them.
    pub messages: u32,
    /// Its last calls that have been answered, the oldest first.
    pub calls: Vec<PastCall>,
    /// Its counters.
    pub stats: Stats,
}

/// A call without an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitInfo {
    /// Its number, by which `follow` finds it.
    pub ticket: Ticket,
    /// Its name.
    pub call: String,
    /// The context that it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<ContextId>,
    /// What it waits for.
    pub waits_for: String,
    /// For how long, in microseconds.
    pub for_us: u64,
    /// When it gives up, in microseconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gives_up_us: Option<u64>,
}

/// A context, with its page table in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContextView {
    /// Its number.
    pub context: ContextId,
    /// The name of its model.
    pub model: String,
    /// How many tokens it has.
    pub length: Tokens,
    /// How many it can have.
    pub tokens_max: Tokens,
    /// What it is doing.
    pub state: ContextState,
    /// Its pages.
    pub pages: PageTable,
    /// Who else has some of its pages in memory.
    pub shared_with: Vec<Sharer>,
}

/// What a context is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContextState {
    /// It is not in memory and has nothing to run.
    Parked,
    /// It is in memory and has nothing to run.
    Idle,
    /// Its generation waits for memory.
    Waiting,
    /// Its generation runs.
    Running,
    /// It outlived the daemon, and its model is not loaded yet.
    Asleep,
}

/// The pages of a context, each counted in one of `resident`, `swapped_host`, `swapped_disk` and `missing`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PageTable {
    /// Pages that its tokens take.
    pub total: u32,
    /// In device memory.
    pub resident: u32,
    /// Those of the resident ones that others have too.
    pub shared: u32,
    /// Saved in host memory.
    pub swapped_host: u32,
    /// Saved on disk.
    pub swapped_disk: u32,
    /// Nowhere: they are computed when they are needed.
    pub missing: u32,
}

/// Somebody who has pages of a context in memory as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sharer {
    /// The process; absent for those of other users, who share what was published, and for what closed contexts have
    /// left, which is kept for the next one with that beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<Pid>,
    /// How many pages.
    pub pages: u32,
}

/// A limit of a process, and what it has used of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LimitInfo {
    /// Which limit.
    pub limit: Limit,
    /// What it has or has had; of `tokens_per_second`, what it may generate at once now.
    pub used: u64,
    /// The most; absent where there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<u64>,
    /// What happens when it is used up, of those that can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<AtLimit>,
}

/// A signal that acts later, or until another one comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PendingSignal {
    /// The signal: KILL for a process that was asked to end, STOP for one that is held.
    pub signal: Signal,
    /// When it acts, in microseconds from now; 0 for one that acts already.
    pub in_us: u64,
}

/// A call that has been answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PastCall {
    /// Its name.
    pub call: String,
    /// When it came, in microseconds since the daemon's start.
    pub at_us: u64,
    /// How long its answer took, in microseconds.
    pub took_us: u64,
    /// Why it failed, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<Errno>,
}
