//! Calls about the system as a whole.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::Pid;

args! {
    /// Arguments of `stat`; without any, the whole system.
    struct Stat {
        /// One process.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<Pid>,
        /// One model.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
    }

    /// Arguments of `setpolicy`.
    struct Setpolicy {
        /// `fifo`, `rr`, `fair`, `mlfq` or `edf`.
        policy: String,
    }

    /// Arguments of `subscribe`.
    struct Subscribe {
        /// Kinds of events: `process`, `step`, `page`, `worker`, `service`; all if empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        kinds: Vec<String>,
        /// Ends the subscription after so many milliseconds, with the reply. Otherwise INT ends it, with EINTR.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    }

    /// Arguments of `sysinfo`.
    struct Sysinfo {}

    /// Arguments of `shutdown`.
    struct Shutdown {}
}
