//! Calls of programs that compute by themselves, such as trainers: they ask for the device's time as models do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

args! {
    /// Arguments of `compute`.
    struct Compute {
        /// The device that it wants to compute on, as `sysinfo` names it; main memory's processors if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<String>,
        /// How long it wants to compute before it asks again, in microseconds, from 1 to `QUANTUM_US_MAX`.
        #[serde(default = "quantum_us")]
        us: u32,
    }

    /// Arguments of `yield`.
    struct Yield {}
}

/// 50 ms: a person does not notice such a pause, and asking costs a thousandth of it.
fn quantum_us() -> u32 {
    50_000
}
