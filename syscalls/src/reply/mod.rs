//! What calls answer, and how a frame (a reply or an event) is written to a line.
//!
//! A reply is `{"id":7,"ok":{"opened":{…}}}` or `{"id":7,"error":{"errno":"ENOMEM","message":"…"}}`; an event is
//! `{"id":7,"event":"tokens",…}`. A fault that belongs to no request has the id 0.
//!
//! What the replies carry stands by subject in the files of this folder; all are named here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::call::Signal;
use crate::id::{ContextId, Pid, Token, Tokens};

mod frame;
mod generate;
mod group;
mod inspect;
mod model;
mod process;
mod segment;
mod service;
mod system;

pub use frame::{Frame, NO_CALL};
pub use generate::*;
pub use group::*;
pub use inspect::*;
pub use model::*;
pub use process::*;
pub use segment::*;
pub use service::*;
pub use system::*;

/// What a call answers, named as in the manual.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is done; there is nothing to say.
    Done {},
    /// Answer to `hello`.
    Hello(HelloReply),
    /// Answer to `spawn` and `train`.
    Spawned {
        /// The child.
        pid: Pid,
    },
    /// Answer to `wait`.
    Waited {
        /// The child that ended.
        pid: Pid,
        /// 0 for success, 128 + n for the end by signal n.
        status: u8,
    },
    /// Answer to `sigwait`.
    Signalled {
        /// The signal.
        signal: Signal,
        /// The process is killed after so many milliseconds.
        grace_ms: u64,
    },
    /// Answer to `output`.
    Output(OutputReply),
    /// Answer to `attach`.
    Attached(AttachedReply),
    /// Answer to `ps`.
    Processes(Vec<ProcessInfo>),
    /// Answer to `inspect`.
    Inspected(Box<InspectReply>),
    /// Answer to `groups`.
    Groups(Vec<GroupInfo>),
    /// Answer to `service_start`, `service_stop` and `service_restart`.
    Service(ServiceInfo),
    /// Answer to `service_status`.
    ServiceStatus(ServiceStatusReply),
    /// Answer to `service_list`.
    Services(Vec<ServiceInfo>),
    /// Answer to `stat`.
    Stat(Stats),
    /// Answer to `open` and `restore`.
    Opened {
        /// The new context.
        context: ContextId,
        /// The model that it is on.
        model: String,
        /// How many tokens it has.
        length: Tokens,
        /// How many it can have.
        tokens_max: Tokens,
    },
    /// Answer to `fork`.
    Forked {
        /// The copies.
        contexts: Vec<ContextId>,
    },
    /// Answer to `append`.
    Appended {
        /// How many tokens the context has now.
        length: Tokens,
        /// How many of them this call added.
        added: Tokens,
    },
    /// Answer to `generate`.
    Generated(GeneratedReply),
    /// Answer to `tokens` and `tokenize`.
    Tokens(Vec<Token>),
    /// Answer to `detokenize`.
    Text(String),
    /// Answer to `embed`: one vector of length 1 for each text.
    Embedded(Vec<Vec<f32>>),
    /// Answer to `score`: the sum of natural log-probabilities of each continuation's tokens.
    Scored(Vec<f64>),
    /// Answer to `receive`.
    Message {
        /// The sender.
        from: Pid,
        /// The message.
        data: serde_json::Value,
    },
    /// Answer to `store_get`.
    Value(Option<serde_json::Value>),
    /// Answer to `store_list`.
    Keys(Vec<String>),
    /// Answer to `store_search`: keys with their scores, best first.
    Found(Vec<(String, f32)>),
    /// Answer to `mount`.
    Mounted(ModelInfo),
    /// Answer to `models`.
    Models(Vec<ModelInfo>),
    /// Answer to `segments`.
    Segments(Vec<SegmentInfo>),
    /// Answer to `snapshots`.
    Snapshots(Vec<SnapshotInfo>),
    /// Answer to `compute`.
    Quantum {
        /// How long it is, in microseconds.
        us: u32,
    },
    /// Answer to `compress`.
    Compressed(serde_json::Value),
    /// Answer to `evaluate`.
    Evaluated(serde_json::Value),
    /// Answer to `sysinfo`.
    Sysinfo(SysinfoReply),
}
