//! What is told of groups of processes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One group of processes, with all that are in groups inside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GroupInfo {
    /// The names from the outside, with slashes; `/` for all processes.
    pub name: String,
    /// Its share of the device's time beside its siblings.
    pub weight: u32,
    /// Its processes.
    pub processes: u64,
    /// Their contexts.
    pub contexts: u64,
    /// The most that they may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contexts_max: Option<u64>,
    /// Tokens in these.
    pub context_tokens: u64,
    /// The most that there may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_tokens_max: Option<u64>,
    /// Frames that they map.
    pub frames: u64,
    /// The most that they may map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames_max: Option<u64>,
    /// The number from which on they get no further ones while others wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames_soft: Option<u64>,
    /// Pages that they have in the swap area.
    #[serde(default)]
    pub swap_pages: u64,
    /// The most that they may have there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_pages_max: Option<u64>,
    /// The most tokens that they may generate in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_second_max: Option<u64>,
    /// How much of the time work waited for memory.
    pub memory: PressureInfo,
    /// How much of the time work that was in memory had no part in the step that ran.
    pub steps: PressureInfo,
}

/// Shares of time in percent, as averages over about the last 10, 60 and 300 seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PressureInfo {
    /// At least one generation waited.
    pub some: [f32; 3],
    /// Generations waited, and none ran.
    pub full: [f32; 3],
}
