//! What is told of the system as a whole.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DeviceInfo;

/// Counters since the daemon's start, and levels of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stats {
    /// Prompt tokens that a forward pass computed.
    pub prompt_tokens_evaluated: u64,
    /// Prompt tokens that were there already.
    pub prompt_tokens_shared: u64,
    /// Tokens that came out.
    pub tokens_generated: u64,
    /// Tokens computed again after their pages were lost or taken.
    pub tokens_recomputed: u64,
    /// Forward passes.
    pub steps: u64,
    /// Time in forward passes, in microseconds.
    pub step_us: u64,
    /// Steps that were withdrawn because somebody in a hurry arrived: rows that were not through were computed again.
    #[serde(default)]
    pub steps_withdrawn: u64,
    /// Frames in device memory.
    pub frames_total: u64,
    /// Frames that no page occupies.
    pub frames_free: u64,
    /// Frames that hold what closed contexts have left, for the next one with the same beginning. They are free
    /// for whoever needs them.
    #[serde(default)]
    pub frames_cached: u64,
    /// Pages in host memory.
    pub pages_host: u64,
    /// Pages on disk.
    pub pages_disk: u64,
    /// Bytes paged out since the start.
    pub swap_out_bytes: u64,
    /// Bytes paged in since the start.
    pub swap_in_bytes: u64,
    /// Tokens that were guessed from what stands before and checked.
    #[serde(default)]
    pub tokens_drafted: u64,
    /// Guesses that were right.
    #[serde(default)]
    pub tokens_accepted: u64,
    /// Pages that were taken from a context and brought back, by loading or computing them.
    #[serde(default)]
    pub refaults: u64,
    /// Saved pages that could not be loaded, and were computed again.
    #[serde(default)]
    pub pages_corrupted: u64,
    /// Workers that were started again.
    pub worker_restarts: u64,
    /// Processes of now, zombies included.
    pub processes: u64,
    /// Contexts of now.
    pub contexts: u64,
    /// Calls since the start.
    pub calls: u64,
    /// Since the daemon's start, in milliseconds.
    pub uptime_ms: u64,
}

/// Answer to `sysinfo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SysinfoReply {
    /// The daemon's release.
    pub daemon: String,
    /// The daemon's process.
    pub os_pid: u32,
    /// The socket that it listens on.
    pub socket: String,
    /// Where it keeps its state.
    pub data: String,
    /// What programs that the daemon starts, workers among them, are jailed with; `off` where they are not.
    #[serde(default)]
    pub jail: String,
    /// Name of the processor.
    pub cpu: String,
    /// Processors that it may use.
    pub cpus: u32,
    /// Bytes of main memory.
    pub memory_bytes: u64,
    /// The scheduling policy.
    pub policy: String,
    /// Since the daemon's start, in milliseconds.
    pub uptime_ms: u64,
    /// Processes that ended with the last daemon, although nobody wanted it.
    #[serde(default)]
    pub interrupted: u64,
    /// The devices that models are loaded to, main memory first.
    #[serde(default)]
    pub devices: Vec<DeviceInfo>,
}
