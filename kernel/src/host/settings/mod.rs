//! Where the daemon's settings come from: flags win over the environment, the environment over the file, the file
//! over what is built in.
//!
//! The file is RON. It is read strictly: an unknown key is an error with its place in the file, never ignored.

use std::io;
use std::path::{Path, PathBuf};

use syscalls::call::Mount;
use syscalls::{Tokens, paths, shown};
use thiserror::Error;

use super::machine;
use super::size::Bytes;
use super::store::values::Quota;
use crate::core::service::OrderError;
use crate::core::{DeviceConfig, KernelConfig, MAIN_MEMORY, Policy, UserLimits};

mod check;
mod file;
mod flags;
mod services;
#[cfg(test)]
mod tests;

pub use file::JailSettings;
pub use flags::Flags;

use check::{check, one_of};
use file::{DeviceEntry, File, MountEntry, parse, read};
use services::services;

/// Where a daemon of the system keeps its state.
const SYSTEM_DATA: &str = "/var/lib/llmasos";
/// Where a daemon of the system is configured.
const SYSTEM_CONFIG: &str = "/etc/llmasos/llmasos.ron";
/// A user's socket is for that user alone.
const USER_SOCKET_MODE: u32 = 0o600;
/// The system's socket is for the group that the daemon runs in.
const SYSTEM_SOCKET_MODE: u32 = 0o660;

/// All settings, settled.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The socket to listen on.
    pub socket: PathBuf,
    /// Its permission bits.
    pub socket_mode: u32,
    /// The folder of the daemon's state.
    pub data: PathBuf,
    /// The level of the log.
    pub log: String,
    /// Models to mount beside those that are remembered.
    pub mounts: Vec<Mount>,
    /// The worker's executable, where it is not the one beside the daemon's.
    pub driver: Option<PathBuf>,
    /// Where to tell that the socket is served.
    pub ready_fd: Option<i32>,
    /// How programs that the daemon starts are jailed.
    pub jail: JailSettings,
    /// The command line and the environment, to settle again.
    pub flags: Flags,
    /// The group whose members may do everything.
    pub admin_group: String,
    /// How much each user may keep in stores.
    pub values: Quota,
    /// What the kernel is told; the host fills in what it knows of the machine.
    pub kernel: KernelConfig,
}

/// What is wrong with the settings.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// The file is not there, or may not be read.
    #[error("cannot read the configuration {path}: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    /// The file is not what it should be.
    #[error("{path}:{line}:{column}: {message}")]
    Malformed { path: PathBuf, line: usize, column: usize, message: String },
    /// A value is out of its range.
    #[error("{name} is {}; {rule}", shown(.value))]
    OutOfRange { name: String, value: String, rule: String },
    /// The services have no order.
    #[error(transparent)]
    Services(#[from] OrderError),
}

impl Settings {
    /// Settles the flags with the file that they, or the defaults, name.
    ///
    /// # Errors
    ///
    /// The file is missing although it was asked for, malformed, or a value is out of range.
    pub fn settle(flags: Flags) -> Result<Settings, SettingsError> {
        let flags = flags.or_environment(|name| std::env::var_os(name).filter(|value| !value.is_empty()));
        let file = match (&flags.config, flags.system) {
            (Some(path), _) => read(path, true)?,
            (None, true) => read(Path::new(SYSTEM_CONFIG), false)?,
            (None, false) => read(&paths::config(), false)?,
        };
        merge(flags, file)
    }

    /// Settles what a file would say that has this text, without flags.
    ///
    /// # Errors
    ///
    /// The text is malformed, or a value is out of range.
    pub fn from_text(text: &str) -> Result<Settings, SettingsError> {
        merge(Flags::default(), parse(Path::new("configuration"), text)?)
    }
}

fn merge(flags: Flags, file: File) -> Result<Settings, SettingsError> {
    let again = flags.clone();
    let own = |system: &str, user: fn() -> PathBuf| if flags.system { system.into() } else { user() };
    let mode = if flags.system { SYSTEM_SOCKET_MODE } else { USER_SOCKET_MODE };
    let socket = flags.socket.or(file.socket);
    let socket = socket.unwrap_or_else(|| own(paths::SYSTEM_SOCKET, paths::user_socket));
    let data = flags.data.or(file.data).unwrap_or_else(|| own(SYSTEM_DATA, paths::data));
    let (socket, data) = (absolute(socket), absolute(data));
    let usable = machine::usable_bytes();
    let devices_to_come = file.devices.is_none();
    let devices = devices(flags.device_memory, file.devices.unwrap_or_default(), usable);
    let main_memory = devices.iter().find(|device| device.name == MAIN_MEMORY).map_or(0, |d| d.memory_bytes);
    let settings = Settings {
        socket,
        socket_mode: file.socket_mode.unwrap_or(mode),
        log: flags.log.unwrap_or(file.log),
        mounts: file.mounts.into_iter().map(mount).collect(),
        driver: file.driver,
        ready_fd: flags.ready_fd,
        jail: file.jail,
        flags: again,
        admin_group: file.admin_group,
        values: Quota { values: file.store_values_max, bytes: file.store_bytes_max },
        kernel: KernelConfig {
            devices_to_come,
            devices,
            pool_tokens_min: file.pool_tokens_min,
            default_model: file.default_model,
            sequences_max: file.sequences_max,
            prefill_tokens_min: file.prefill_tokens_min,
            step_us_max: file.step_us_max,
            policy: policy(&file.policy)?,
            fair_lag_us: file.fair_lag_us,
            fair_lag_tokens: file.fair_lag_tokens,
            latency_target_percent: file.latency_target_percent,
            term_grace_ms: file.term_grace_ms,
            worker_patience_ms: file.worker_patience_ms,
            worker_deaths_max: file.worker_deaths_max,
            user: UserLimits {
                processes: file.user_limits.processes,
                contexts: file.user_limits.contexts,
                connections: file.user_limits.connections,
                calls: file.user_limits.calls,
            },
            swap_host_bytes: file
                .swap_host_bytes
                .unwrap_or_else(|| machine::host_tier_share(usable, main_memory)),
            swap_disk_bytes: file.swap_disk_bytes,
            services: services(file.services)?,
            save_at_end_ms: file.save_at_end_ms,
            cache_dir: Some(data.join("cache").to_string_lossy().into_owned()),
            ..KernelConfig::default()
        },
        data,
    };
    check(&settings)?;
    Ok(settings)
}

/// A path from / on: workers and programs, which are told of it, have other folders than the daemon.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

fn policy(name: &str) -> Result<Policy, SettingsError> {
    name.parse().map_err(|_| {
        let rule = one_of(&Policy::ALL.map(|(name, _)| name));
        SettingsError::OutOfRange { name: "policy".into(), value: format!("`{name}`"), rule }
    })
}

/// The devices of the file, with main memory among them, of which the command line has the last word.
fn devices(main_memory: Option<Bytes>, entries: Vec<DeviceEntry>, usable: Option<u64>) -> Vec<DeviceConfig> {
    let mut devices: Vec<DeviceConfig> = entries
        .into_iter()
        .map(|entry| DeviceConfig { name: entry.name, memory_bytes: entry.memory.0 })
        .collect();
    let at = devices.iter().position(|device| device.name == MAIN_MEMORY);
    match (at, main_memory) {
        (Some(at), Some(bytes)) => devices[at].memory_bytes = bytes.0,
        (Some(_), None) => {}
        (None, bytes) => {
            let memory_bytes = bytes.map_or_else(|| machine::device_share(usable), |bytes| bytes.0);
            devices.insert(0, DeviceConfig { name: MAIN_MEMORY.into(), memory_bytes });
        }
    }
    devices
}

fn mount(entry: MountEntry) -> Mount {
    Mount {
        path: entry.path,
        name: Some(entry.name),
        context: entry.context.map(Tokens),
        attention: entry.attention,
        gpu_layers: entry.gpu_layers,
        device: entry.device,
        threads: entry.threads,
        deterministic: entry.deterministic,
        accept_changed: false,
    }
}
