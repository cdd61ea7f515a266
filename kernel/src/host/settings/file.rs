//! What the file says, and how it is read: strictly, so that a misspelt key is an error and not a default.

use std::path::{Path, PathBuf};
use std::{fs, io};

use ron::extensions::Extensions;
use serde::Deserialize;
use syscalls::call::{Attention, nearest};
use syscalls::limits::{CONNECTIONS_MAX, PROCESSES_MAX};
use syscalls::shown;

use super::super::log::LEVEL_DEFAULT;
use super::super::size::Bytes;
use super::super::store::values::Quota;
use super::SettingsError;
use super::services::ServiceEntry;
use crate::core::KernelConfig;
use crate::jail::{Policy, Strictness};

/// The disk tier of the swap area where nobody says: a hundred thousand tokens of a model of seven billion weights.
const SWAP_DISK_BYTES: u64 = 8 << 30;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub socket: Option<PathBuf>,
    pub socket_mode: Option<u32>,
    pub data: Option<PathBuf>,
    pub log: String,
    pub default_model: Option<String>,
    pub mounts: Vec<MountEntry>,
    pub services: Vec<ServiceEntry>,
    pub driver: Option<PathBuf>,
    pub devices: Option<Vec<DeviceEntry>>,
    pub jail: JailSettings,
    pub pool_tokens_min: u32,
    pub sequences_max: u16,
    pub prefill_tokens_min: u32,
    pub step_us_max: u64,
    pub policy: String,
    pub fair_lag_us: u64,
    pub fair_lag_tokens: u32,
    pub latency_target_percent: u32,
    pub term_grace_ms: u64,
    pub worker_patience_ms: u64,
    pub worker_deaths_max: usize,
    pub swap_host_bytes: Option<u64>,
    pub swap_disk_bytes: u64,
    pub admin_group: String,
    pub user_limits: UserLimitEntries,
    pub save_at_end_ms: u64,
    pub store_values_max: u64,
    pub store_bytes_max: u64,
}

impl Default for File {
    fn default() -> Self {
        let kernel = KernelConfig::default();
        File {
            socket: None,
            socket_mode: None,
            data: None,
            log: LEVEL_DEFAULT.into(),
            default_model: None,
            mounts: Vec::new(),
            services: Vec::new(),
            driver: None,
            devices: None,
            jail: JailSettings::default(),
            pool_tokens_min: kernel.pool_tokens_min,
            sequences_max: kernel.sequences_max,
            prefill_tokens_min: kernel.prefill_tokens_min,
            step_us_max: kernel.step_us_max,
            policy: kernel.policy.name().into(),
            fair_lag_us: kernel.fair_lag_us,
            fair_lag_tokens: kernel.fair_lag_tokens,
            latency_target_percent: kernel.latency_target_percent,
            term_grace_ms: kernel.term_grace_ms,
            worker_patience_ms: kernel.worker_patience_ms,
            worker_deaths_max: kernel.worker_deaths_max,
            swap_host_bytes: None,
            swap_disk_bytes: SWAP_DISK_BYTES,
            admin_group: "llmasos-admin".into(),
            user_limits: UserLimitEntries::default(),
            save_at_end_ms: kernel.save_at_end_ms,
            store_values_max: Quota::default().values,
            store_bytes_max: Quota::default().bytes,
        }
    }
}

/// What each user may have at once, but the administrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct UserLimitEntries {
    pub processes: u64,
    pub contexts: u64,
    pub connections: u64,
    pub calls: u64,
}

impl Default for UserLimitEntries {
    /// A quarter of what there is for all, and of what has no such bound as many as a hundred busy agents have.
    fn default() -> Self {
        UserLimitEntries {
            processes: PROCESSES_MAX as u64 / 4,
            contexts: 65_536,
            connections: CONNECTIONS_MAX as u64 / 4,
            calls: 16_384,
        }
    }
}

/// How programs are jailed, and what they may reach beside what is built in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JailSettings {
    pub strictness: Strictness,
    pub worker: Policy,
    pub program: Policy,
}

/// A model that the file wants mounted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MountEntry {
    pub path: String,
    pub name: String,
    #[serde(default)]
    pub context: Option<u32>,
    #[serde(default)]
    pub attention: Attention,
    #[serde(default)]
    pub gpu_layers: Option<u32>,
    #[serde(default)]
    pub device: Option<String>,
    #[serde(default)]
    pub threads: Option<u32>,
    #[serde(default)]
    pub deterministic: bool,
}

/// A device of which the file says how much models may take.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeviceEntry {
    pub name: String,
    pub memory: Bytes,
}

/// Reads a file; a missing one is as good as an empty one unless somebody `asked` for it.
pub(super) fn read(path: &Path, asked: bool) -> Result<File, SettingsError> {
    match fs::read_to_string(path) {
        Ok(text) => parse(path, &text),
        Err(e) if e.kind() == io::ErrorKind::NotFound && !asked => Ok(File::default()),
        Err(source) => Err(SettingsError::Unreadable { path: path.into(), source }),
    }
}

pub(super) fn parse(path: &Path, text: &str) -> Result<File, SettingsError> {
    let options = ron::Options::default()
        .with_default_extension(Extensions::IMPLICIT_SOME)
        .with_default_extension(Extensions::UNWRAP_NEWTYPES);
    options.from_str(text).map_err(|e| SettingsError::Malformed {
        path: path.into(),
        line: e.span.start.line,
        column: e.span.start.col,
        message: explain(&e.code),
    })
}

/// What is wrong, with what the file says cut short. The keys are ours, and all of them are told.
fn explain(error: &ron::Error) -> String {
    match error {
        ron::Error::NoSuchStructField { expected, found, .. } => {
            let hint = match nearest(found, expected) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the keys are {}", expected.join(", ")),
            };
            format!("unknown key `{}`; {hint}", shown(found))
        }
        other => shown(&other.to_string()),
    }
}
