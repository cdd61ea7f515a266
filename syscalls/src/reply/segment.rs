//! What is told of shared segments.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::Tokens;

/// One shared segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SegmentInfo {
    /// Its name.
    pub name: String,
    /// The model that it is on.
    pub model: String,
    /// Its owner.
    pub uid: u32,
    /// Its permission bits.
    pub mode: u32,
    /// Its tokens.
    pub length: Tokens,
}

/// One snapshot, as `snapshots` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotInfo {
    /// Its name.
    pub name: String,
    /// The name of its model when it was made.
    pub model: String,
    /// How many tokens it has.
    pub length: Tokens,
}
