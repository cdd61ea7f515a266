//! Which settings make sense.

use std::path::PathBuf;

use syscalls::Tokens;
use syscalls::call::Mount;
use syscalls::limits::{CONTEXT_TOKENS_MAX, MODELS_MAX, NAME_BYTES_MAX};

use super::super::log::LEVELS;
use super::{Settings, SettingsError};
use crate::jail::Policy;

/// Devices of one machine.
const DEVICES_MAX: usize = 64;
/// Values of one user: with keys of 128 bytes, each of them escaped, the reply to `store_list` takes 50 MiB.
const STORE_VALUES_MAX: u64 = 200_000;
/// Sequence ids that llama.cpp has at most.
const SEQUENCES_MAX: u16 = 256;
/// systemd kills a service that takes 90 s to end.
const SAVE_AT_END_MS_MAX: u64 = 60_000;

/// Checks all that the types do not say.
///
/// # Errors
///
/// The first value that is out of its range.
pub(super) fn check(settings: &Settings) -> Result<(), SettingsError> {
    let kernel = &settings.kernel;
    require("log", &settings.log, LEVELS.contains(&settings.log.as_str()), || one_of(LEVELS))?;
    require("socket_mode", &format!("{:#o}", settings.socket_mode), settings.socket_mode <= 0o777, || {
        "permission bits go from 0o000 to 0o777".into()
    })?;
    require(
        "sequences_max",
        &kernel.sequences_max,
        (1..=SEQUENCES_MAX).contains(&kernel.sequences_max),
        || format!("from 1 to {SEQUENCES_MAX} sequences fit into a worker"),
    )?;
    require("prefill_tokens_min", &kernel.prefill_tokens_min, kernel.prefill_tokens_min >= 1, || {
        "prompts need at least 1 token a step".into()
    })?;
    require("step_us_max", &kernel.step_us_max, kernel.step_us_max >= 1, || {
        "a step needs at least 1 microsecond".into()
    })?;
    require("worker_patience_ms", &kernel.worker_patience_ms, kernel.worker_patience_ms >= 1000, || {
        "a worker needs at least 1000 ms for a step, or slow steps count as hung".into()
    })?;
    require("save_at_end_ms", &kernel.save_at_end_ms, kernel.save_at_end_ms <= SAVE_AT_END_MS_MAX, || {
        format!("a service has to end soon after it was asked to; at most {SAVE_AT_END_MS_MAX} ms")
    })?;
    require(
        "latency_target_percent",
        &kernel.latency_target_percent,
        kernel.latency_target_percent > 100,
        || "a step with prompts takes longer than 100 percent of one without".into(),
    )?;
    require("mounts", &settings.mounts.len(), settings.mounts.len() <= MODELS_MAX, || {
        format!("at most {MODELS_MAX} models can be mounted")
    })?;
    let pool_min = kernel.pool_tokens_min;
    require("pool_tokens_min", &pool_min, (1..=CONTEXT_TOKENS_MAX).contains(&pool_min), || {
        format!("a pool needs from 1 token to the {CONTEXT_TOKENS_MAX} of the largest context")
    })?;
    require("store_values_max", &settings.values.values, settings.values.values <= STORE_VALUES_MAX, || {
        format!("the keys of {STORE_VALUES_MAX} values are what fits into one reply")
    })?;
    require("devices", &kernel.devices.len(), kernel.devices.len() <= DEVICES_MAX, || {
        format!("at most {DEVICES_MAX} devices can be told apart")
    })?;
    settings.mounts.iter().try_for_each(check_mount)?;
    let jailed = [&settings.jail.worker, &settings.jail.program];
    jailed.into_iter().flat_map(reached).try_for_each(|path| {
        require("path of the jail", &format!("`{}`", path.display()), path.is_absolute(), || {
            "whoever is jailed has a folder of his own; give the path from / on".into()
        })
    })
}

/// All that a policy lets somebody reach.
fn reached(policy: &Policy) -> impl Iterator<Item = &PathBuf> {
    [&policy.list, &policy.read, &policy.execute, &policy.write, &policy.devices].into_iter().flatten()
}

fn check_mount(mount: &Mount) -> Result<(), SettingsError> {
    let name = mount.name.as_deref().unwrap_or_default();
    require("name of a mount", &format!("`{name}`"), (1..=NAME_BYTES_MAX).contains(&name.len()), || {
        format!("from 1 to {NAME_BYTES_MAX} bytes name a model")
    })?;
    let absolute = mount.path.starts_with('/') || mount.path.starts_with("sim:");
    require("path of a mount", &format!("`{}`", mount.path), absolute, || {
        "the daemon has no folder of its own; give the path from / on".into()
    })?;
    let context = mount.context.unwrap_or(Tokens(1));
    require("context of a mount", &context, (1..=CONTEXT_TOKENS_MAX).contains(&context.0), || {
        format!("a context holds from 1 to {CONTEXT_TOKENS_MAX} tokens")
    })
}

pub(super) fn require(
    name: &str,
    value: &impl ToString,
    holds: bool,
    rule: impl FnOnce() -> String,
) -> Result<(), SettingsError> {
    if holds {
        Ok(())
    } else {
        Err(SettingsError::OutOfRange { name: name.into(), value: value.to_string(), rule: rule() })
    }
}

/// What to choose from.
pub(super) fn one_of(words: &[&str]) -> String {
    format!("choose one of {}", words.join(", "))
}
