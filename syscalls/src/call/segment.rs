//! Calls about shared segments.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{ContextId, Tokens};

args! {
    /// Arguments of `share`.
    struct Share {
        /// The context.
        context: ContextId,
        /// The name of the segment.
        name: String,
        /// How much of the context; all if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        length: Option<Tokens>,
        /// Who may open on it, bits as for files: 0o400 the owner, 0o004 everyone else. There are no groups and
        /// nothing to write, so the other bits up to 0o777 mean nothing; 0o644 is for everyone.
        #[serde(default = "owner_only")]
        mode: u32,
    }

    /// Arguments of `unshare`.
    struct Unshare {
        /// The name of the segment.
        name: String,
    }

    /// Arguments of `segments`.
    struct Segments {}
}

fn owner_only() -> u32 {
    0o600
}
