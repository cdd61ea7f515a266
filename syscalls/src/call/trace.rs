//! The call that watches what processes ask for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::Pid;

args! {
    /// Arguments of `trace`. Exactly one of `pid` and `os_pid` is given.
    struct Trace {
        /// The process.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<Pid>,
        /// A process of the operating system: each process that it says `hello` as from now on. The call then lasts
        /// until INT ends it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        os_pid: Option<u32>,
        /// Children too, from their beginning on; with `os_pid`, those of the operating system's children as well.
        #[serde(default)]
        follow: bool,
        /// Each token (`sampled`) and each step (`step`) too.
        #[serde(default)]
        tokens: bool,
        /// Arguments and results in full, and what contexts hold already (`held`): all that a replay needs. Otherwise
        /// long texts and lists are cut.
        #[serde(default)]
        whole: bool,
    }
}
