//! Calls about models: mounting them, and making others of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Class;
use crate::id::Tokens;

args! {
    /// Arguments of `mount`.
    struct Mount {
        /// The model's file, as an absolute path; or `sim:` and a script for the driver without a model.
        path: String,
        /// The name to mount it under; from the file's name if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Tokens that one context can hold, and that the pool has room for; what the model was trained with,
        /// at most 8,192, if absent, and less where memory is short.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        context: Option<Tokens>,
        /// Which attention kernel runs.
        #[serde(default)]
        attention: Attention,
        /// Layers that go to the graphics device, the output counted as one, from the last one on; if absent, as
        /// many as fit there beside the pool.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gpu_layers: Option<u32>,
        /// The device that it goes to, as `sysinfo` names them: `cpu`, `cuda:0`, …; the one where most of it fits if
        /// absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<String>,
        /// Threads of the worker; one for each physical core if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        threads: Option<u32>,
        /// What a context generates depends on it alone, to the last bit, and not on what else the model is doing.
        /// Costs speed.
        #[serde(default)]
        deterministic: bool,
        /// Takes the file for what was mounted under this name, where that is offline because it has changed.
        #[serde(default)]
        accept_changed: bool,
    }

    /// Arguments of `unmount`.
    struct Unmount {
        /// The model's name.
        name: String,
        /// Ends the calls that use it instead of refusing.
        #[serde(default)]
        force: bool,
    }

    /// Arguments of `models`.
    struct Models {}

    /// Arguments of `train`.
    struct Train {
        /// The specification of `llmasos-trainer`, as JSON; `llmasos-trainer resolve` makes it of a RON file. Paths are
        /// absolute: what it names may be read, and the folder `out`, which must be there, may be written to.
        spec: serde_json::Value,
        /// Goes on from the newest checkpoint in the folder `out`.
        #[serde(default)]
        resume: bool,
        /// Over how many ranks it trains, which are threads of the process and share its processors, from 1 to
        /// `RANKS_MAX`; `ranks` in the specification lays them out, and is of one rank if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ranks: Option<u32>,
        /// What `ps` shows; `train` if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The scheduling class; `batch` if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        class: Option<Class>,
        /// From −20 (most) to 19 (least); the parent's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nice: Option<i8>,
        /// A group inside the parent's, such as `a/b`; the parent's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
    }

    /// Arguments of `compress`.
    struct Compress {
        /// The compression specification.
        spec: serde_json::Value,
    }

    /// Arguments of `evaluate`.
    struct Evaluate {
        /// The evaluation specification.
        spec: serde_json::Value,
    }
}

/// Which attention kernel the driver runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Attention {
    /// What is faster here by measurement.
    #[default]
    Auto,
    /// The fused kernel.
    Flash,
    /// Two matrix products with a softmax between.
    Plain,
    /// The driver's own kernel for CPUs, which reads what many sequences share once for all of them. Where it cannot
    /// run, the fused kernel does.
    Blocked,
}
