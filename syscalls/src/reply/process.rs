//! What is told of processes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::call::{Capability, Class, Lifetime};
use crate::event::OutputLine;
use crate::id::{ContextId, Pid, Ticket, Tokens};

/// Answer to `hello`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HelloReply {
    /// The version that both speak from now on.
    pub version: u32,
    /// The daemon's release.
    pub daemon: String,
    /// The caller's process.
    pub pid: Pid,
    /// The caller's user, from the socket's peer credentials.
    pub uid: u32,
    /// The longest line, in bytes, that the daemon reads.
    pub line_bytes_max: u32,
}

/// Answer to `output`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OutputReply {
    /// The last lines, oldest first.
    pub lines: Vec<OutputLine>,
    /// Lines before the oldest that is kept.
    pub dropped: u64,
    /// No more lines will come.
    pub ended: bool,
}

/// Answer to `attach`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AttachedReply {
    /// The process.
    pub pid: Pid,
    /// Its contexts.
    pub contexts: Vec<ContextInfo>,
    /// Its calls that run, and those that have ended and whose replies nobody has fetched, in the order in which they
    /// came.
    pub calls: Vec<CallInfo>,
}

/// A context of an attached process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContextInfo {
    /// Its number.
    pub context: ContextId,
    /// The name of its model.
    pub model: String,
    /// How many tokens it has.
    pub length: Tokens,
    /// How many it can have.
    pub tokens_max: Tokens,
}

/// A call of an attached process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CallInfo {
    /// What `follow` finds it by.
    pub ticket: Ticket,
    /// Its name.
    pub call: String,
    /// The context that it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<ContextId>,
    /// Its reply is there.
    pub ended: bool,
}

/// One process, as `ps` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessInfo {
    /// Its number.
    pub pid: Pid,
    /// Who started it.
    pub parent: Pid,
    /// Its user.
    pub uid: u32,
    /// The operating system's process behind it, 0 where there is none.
    pub os_pid: u32,
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: ProcessState,
    /// What it waits for, where it is blocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// Its class.
    pub class: Class,
    /// Its nice value.
    pub nice: i8,
    /// Its contexts.
    pub contexts: u32,
    /// Tokens in its contexts.
    pub context_tokens: u64,
    /// Frames in device memory that it maps.
    pub frames: u32,
    /// How much it is in the way where memory is short: its frames, times 1 for realtime, 2 for interactive, 4 for
    /// normal and 8 for batch, and times what its nice value divides its share of time by (1 for nice 0).
    #[serde(default)]
    pub oom_score: u32,
    /// Tokens evaluated for it.
    pub prompt_tokens_evaluated: u64,
    /// Tokens generated for it.
    pub tokens_generated: u64,
    /// Model time that it has had, in microseconds.
    pub service_us: u64,
    /// Its group.
    #[serde(default)]
    pub group: String,
    /// How long it usually rests between generations, in microseconds, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_idle_us: Option<u64>,
    /// What it outlives.
    #[serde(default)]
    pub lifetime: Lifetime,
    /// No connection has it.
    #[serde(default)]
    pub detached: bool,
    /// What it may do.
    #[serde(default)]
    pub caps: Vec<Capability>,
    /// Since its start, in milliseconds.
    pub age_ms: u64,
    /// The exit status of a zombie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
}

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// It has not made a call yet.
    New,
    /// None of its calls needs the model.
    Idle,
    /// It has work for the next step.
    Ready,
    /// It has work in the step that runs.
    Running,
    /// It waits for something other than the model's time.
    Blocked,
    /// STOP holds it.
    Stopped,
    /// It has ended and its parent has not waited for it.
    Zombie,
    /// It ended with the last daemon.
    Dead,
}
