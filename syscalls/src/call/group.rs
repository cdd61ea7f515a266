//! Calls about groups of processes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

args! {
    /// Arguments of `setgroup`.
    struct Setgroup {
        /// The group inside the caller's own, such as `a/b`; from the root on if it begins with a slash, such as
        /// `/user.1000/a`, for the administrator.
        group: String,
        /// Its share of the device's time beside its siblings, from 1 to 10,000; 100 if never set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight: Option<u32>,
        /// Which limit to set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<GroupLimit>,
        /// The new value of the limit; none lifts it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<u64>,
        /// Forgets all that was set. The group goes when it is empty.
        #[serde(default)]
        remove: bool,
    }

    /// Arguments of `groups`.
    struct Groups {}
}

/// A limit of a group, on all its processes and those of the groups in it together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupLimit {
    /// Contexts at once.
    Contexts,
    /// Tokens in all contexts together. Generations end with the step that reaches it.
    ContextTokens,
    /// Frames in device memory.
    ResidentFrames,
    /// Frames in device memory above which the group gets no further ones while others wait for some.
    ResidentFramesSoft,
    /// Pages in the swap area. Above it pages of the group are dropped, and computed again when they are needed.
    SwapPages,
    /// Tokens that may be generated in a second. What is not used is kept, up to one second's worth.
    TokensPerSecond,
}
