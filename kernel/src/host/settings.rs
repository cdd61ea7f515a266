//! Where the daemon's settings come from: flags win over the environment, the environment over the file, the file
//! over what is built in.
//!
//! The file is RON. It is read strictly: an unknown key is an error with its place in the file, never ignored.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ron::extensions::Extensions;
use serde::Deserialize;
use syscalls::call::{Attention, Mount, nearest};
use syscalls::limits::{CONTEXT_TOKENS_MAX, MODELS_MAX, NAME_BYTES_MAX};
use syscalls::{Tokens, paths};
use thiserror::Error;

use super::log::LEVELS;
use super::machine;
use super::size::Bytes;
use crate::core::{DeviceConfig, KernelConfig, MAIN_MEMORY, Policy};

/// Where a daemon of the system keeps its state.
const SYSTEM_DATA: &str = "/var/lib/llmasos";
/// Where a daemon of the system is configured.
const SYSTEM_CONFIG: &str = "/etc/llmasos/llmasos.ron";
/// The name by which the environment sets the level of the log.
const LOG_VAR: &str = "LLMASOS_LOG";
/// A user's socket is for that user alone.
const USER_SOCKET_MODE: u32 = 0o600;
/// The system's socket is for the group that the daemon runs in.
const SYSTEM_SOCKET_MODE: u32 = 0o660;
/// Devices of one machine.
const DEVICES_MAX: usize = 64;
/// Sequence ids that llama.cpp has at most.
const SEQUENCES_MAX: u16 = 256;

/// The disk tier of the swap area where nobody says: a hundred thousand tokens of a model of seven billion weights.
const SWAP_DISK_BYTES: u64 = 8 << 30;

/// What the command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Flags {
    /// Reads settings from this file [default: LLMASOS_CONFIG, or ~/.config/llmasos/llmasos.ron where it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Listens on this socket [default: LLMASOS_SOCKET, or $XDG_RUNTIME_DIR/llmasos/llmasos.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Keeps its state in this folder [default: LLMASOS_DATA, or ~/.local/state/llmasos]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Takes the system's places: /run/llmasos, /var/lib/llmasos and /etc/llmasos
    #[arg(long)]
    pub system: bool,
    /// Lets models take so much main memory, such as 12GiB [default: four fifths of it]
    #[arg(long, value_name = "SIZE", value_parser = Bytes::parse)]
    pub device_memory: Option<Bytes>,
    /// How much to log: error, warn, info, debug or trace [default: LLMASOS_LOG, or info]
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,
    /// Writes a line to this file descriptor and closes it as soon as the socket is served
    #[arg(long, value_name = "FD")]
    pub ready_fd: Option<i32>,
}

impl Flags {
    /// Fills in from the environment what the command line does not say.
    fn or_environment(self, var: impl Fn(&str) -> Option<OsString>) -> Flags {
        let path = |name| var(name).map(PathBuf::from);
        Flags {
            config: self.config.or_else(|| path(paths::CONFIG_VAR)),
            socket: self.socket.or_else(|| path(paths::SOCKET_VAR)),
            data: self.data.or_else(|| path(paths::DATA_VAR)),
            log: self.log.or_else(|| var(LOG_VAR).map(|level| level.to_string_lossy().into_owned())),
            ..self
        }
    }
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    socket: Option<PathBuf>,
    socket_mode: Option<u32>,
    data: Option<PathBuf>,
    log: String,
    default_model: Option<String>,
    mounts: Vec<MountEntry>,
    driver: Option<PathBuf>,
    devices: Option<Vec<DeviceEntry>>,
    pool_tokens_min: u32,
    sequences_max: u16,
    prefill_tokens_min: u32,
    step_us_max: u64,
    policy: String,
    fair_lag_us: u64,
    fair_lag_tokens: u32,
    latency_target_percent: u32,
    swap_host_bytes: Option<u64>,
    swap_disk_bytes: u64,
}

impl Default for File {
    fn default() -> Self {
        let kernel = KernelConfig::default();
        File {
            socket: None,
            socket_mode: None,
            data: None,
            log: "info".into(),
            default_model: None,
            mounts: Vec::new(),
            driver: None,
            devices: None,
            pool_tokens_min: kernel.pool_tokens_min,
            sequences_max: kernel.sequences_max,
            prefill_tokens_min: kernel.prefill_tokens_min,
            step_us_max: kernel.step_us_max,
            policy: kernel.policy.name().into(),
            fair_lag_us: kernel.fair_lag_us,
            fair_lag_tokens: kernel.fair_lag_tokens,
            latency_target_percent: kernel.latency_target_percent,
            swap_host_bytes: None,
            swap_disk_bytes: SWAP_DISK_BYTES,
        }
    }
}

/// A model that the file wants mounted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct MountEntry {
    path: String,
    name: String,
    #[serde(default)]
    context: Option<u32>,
    #[serde(default)]
    attention: Attention,
    #[serde(default)]
    gpu_layers: Option<u32>,
    #[serde(default)]
    device: Option<String>,
    #[serde(default)]
    threads: Option<u32>,
    #[serde(default)]
    deterministic: bool,
}

/// A device of which the file says how much models may take.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceEntry {
    name: String,
    memory: Bytes,
}

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
    #[error("{name} is {value}; {rule}")]
    OutOfRange { name: &'static str, value: String, rule: String },
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
}

/// Reads a file; a missing one is as good as an empty one unless somebody `asked` for it.
fn read(path: &Path, asked: bool) -> Result<File, SettingsError> {
    match fs::read_to_string(path) {
        Ok(text) => parse(path, &text),
        Err(e) if e.kind() == io::ErrorKind::NotFound && !asked => Ok(File::default()),
        Err(source) => Err(SettingsError::Unreadable { path: path.into(), source }),
    }
}

fn parse(path: &Path, text: &str) -> Result<File, SettingsError> {
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

fn explain(error: &ron::Error) -> String {
    match error {
        ron::Error::NoSuchStructField { expected, found, .. } => {
            let hint = match nearest(found, expected) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the keys are {}", expected.join(", ")),
            };
            format!("unknown key `{found}`; {hint}")
        }
        other => other.to_string(),
    }
}

fn merge(flags: Flags, file: File) -> Result<Settings, SettingsError> {
    let own = |system: &str, user: fn() -> PathBuf| if flags.system { system.into() } else { user() };
    let mode = if flags.system { SYSTEM_SOCKET_MODE } else { USER_SOCKET_MODE };
    let socket = flags.socket.or(file.socket);
    let data = flags.data.or(file.data).unwrap_or_else(|| own(SYSTEM_DATA, paths::data));
    let settings = Settings {
        socket: socket.unwrap_or_else(|| own(paths::SYSTEM_SOCKET, paths::user_socket)),
        socket_mode: file.socket_mode.unwrap_or(mode),
        log: flags.log.unwrap_or(file.log),
        mounts: file.mounts.into_iter().map(mount).collect(),
        driver: file.driver,
        ready_fd: flags.ready_fd,
        kernel: KernelConfig {
            devices_to_come: file.devices.is_none(),
            devices: devices(flags.device_memory, file.devices.unwrap_or_default()),
            pool_tokens_min: file.pool_tokens_min,
            default_model: file.default_model,
            sequences_max: file.sequences_max,
            prefill_tokens_min: file.prefill_tokens_min,
            step_us_max: file.step_us_max,
            policy: policy(&file.policy)?,
            fair_lag_us: file.fair_lag_us,
            fair_lag_tokens: file.fair_lag_tokens,
            latency_target_percent: file.latency_target_percent,
            swap_host_bytes: file.swap_host_bytes.unwrap_or(machine::memory_bytes() / 4),
            swap_disk_bytes: file.swap_disk_bytes,
            cache_dir: Some(data.join("cache").to_string_lossy().into_owned()),
            ..KernelConfig::default()
        },
        data,
    };
    check(&settings)?;
    Ok(settings)
}

fn policy(name: &str) -> Result<Policy, SettingsError> {
    name.parse().map_err(|_| {
        let rule = one_of(&Policy::ALL.map(|(name, _)| name));
        SettingsError::OutOfRange { name: "policy", value: format!("`{name}`"), rule }
    })
}

/// The devices of the file, with main memory among them, of which the command line has the last word.
fn devices(main_memory: Option<Bytes>, entries: Vec<DeviceEntry>) -> Vec<DeviceConfig> {
    let mut devices: Vec<DeviceConfig> = entries
        .into_iter()
        .map(|entry| DeviceConfig { name: entry.name, memory_bytes: entry.memory.0 })
        .collect();
    let at = devices.iter().position(|device| device.name == MAIN_MEMORY);
    match (at, main_memory) {
        (Some(at), Some(bytes)) => devices[at].memory_bytes = bytes.0,
        (Some(_), None) => {}
        (None, bytes) => {
            let memory_bytes = bytes.map_or_else(machine::device_memory_bytes, |bytes| bytes.0);
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
    }
}

fn check(settings: &Settings) -> Result<(), SettingsError> {
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
    require(
        "latency_target_percent",
        &kernel.latency_target_percent,
        kernel.latency_target_percent > 100,
        || "a step with prompts takes longer than 100 percent of one without".into(),
    )?;
    require("mounts", &settings.mounts.len(), settings.mounts.len() <= MODELS_MAX, || {
        format!("at most {MODELS_MAX} models can be mounted")
    })?;
    require("pool_tokens_min", &kernel.pool_tokens_min, kernel.pool_tokens_min >= 1, || {
        "a pool needs at least 1 token".into()
    })?;
    require("devices", &kernel.devices.len(), kernel.devices.len() <= DEVICES_MAX, || {
        format!("at most {DEVICES_MAX} devices can be told apart")
    })?;
    settings.mounts.iter().try_for_each(check_mount)
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

fn require(
    name: &'static str,
    value: &impl ToString,
    holds: bool,
    rule: impl FnOnce() -> String,
) -> Result<(), SettingsError> {
    if holds {
        Ok(())
    } else {
        Err(SettingsError::OutOfRange { name, value: value.to_string(), rule: rule() })
    }
}

fn one_of(words: &[&str]) -> String {
    format!("choose one of {}", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../dist/llmasos.ron");

    fn file(text: &str) -> Result<File, String> {
        parse(Path::new("f.ron"), text).map_err(|e| e.to_string())
    }

    #[test]
    fn file_shipped_says_the_defaults() {
        assert_eq!(file(SHIPPED), Ok(File::default()));
    }

    #[test]
    fn file_shipped_explains_every_key() {
        for line in SHIPPED.lines().filter_map(|l| l.trim_start().strip_prefix("// ")) {
            // An example in a comment is valid, too.
            if line.starts_with("mounts:") {
                assert_eq!(file(&format!("({line})")).map(|f| f.mounts.len()), Ok(1), "{line}");
            }
        }
        let error = file("(nonsense: 1)").expect_err("no such key");
        for key in error.split("the keys are ").nth(1).expect("lists the keys").split(", ") {
            assert!(SHIPPED.contains(&format!("{key}:")), "{key} is missing in dist/llmasos.ron");
        }
    }

    #[test]
    fn key_unknown_is_named_with_its_place() {
        let error = file("(\n  sokcet: \"/s\",\n)").expect_err("no such key");
        assert!(error.starts_with("f.ron:2:"), "{error}");
        assert!(error.contains("unknown key `sokcet`; did you mean `socket`?"), "{error}");
    }

    #[test]
    fn value_of_a_wrong_type_is_named_with_its_place() {
        let error = file("(\n\n  log: 7,\n)").expect_err("no text");
        assert!(error.starts_with("f.ron:3:"), "{error}");
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let text = r#"(socket: "/file/s", data: "/file/d", log: "warn", mounts: [(path: "/m", name: "m")])"#;
        let flags = Flags { socket: Some("/flag/s".into()), ..Flags::default() };
        let settings = merge(flags, file(text).expect("valid")).expect("valid");
        assert_eq!(settings.socket, Path::new("/flag/s"));
        assert_eq!((settings.data.as_path(), settings.log.as_str()), (Path::new("/file/d"), "warn"));
        assert_eq!(settings.kernel.cache_dir.as_deref(), Some("/file/d/cache"));
        assert_eq!(settings.mounts[0].name.as_deref(), Some("m"));
        assert_eq!(settings.socket_mode, 0o600);
    }

    #[test]
    fn environment_stands_between_flags_and_file() {
        let flags = Flags { data: Some("/flag/d".into()), ..Flags::default() };
        let var = |name: &str| match name {
            paths::SOCKET_VAR => Some("/env/s".into()),
            paths::DATA_VAR => Some("/env/d".into()),
            _ => None,
        };
        let text = r#"(socket: "/file/s", data: "/file/d", log: "warn")"#;
        let settings = merge(flags.or_environment(var), file(text).expect("valid")).expect("valid");
        assert_eq!(
            (settings.socket.as_path(), settings.data.as_path()),
            (Path::new("/env/s"), Path::new("/flag/d"))
        );
        assert_eq!(settings.log, "warn");
    }

    #[test]
    fn devices_of_the_file_are_all_there_are_and_main_memory_is_always_one() {
        let settled = |flag: Option<&str>, text: &str| {
            let device_memory = flag.map(|size| Bytes::parse(size).expect("a size"));
            let flags = Flags { device_memory, ..Flags::default() };
            let kernel = merge(flags, file(text).expect("valid")).expect("valid").kernel;
            let devices = kernel.devices.into_iter().map(|d| (d.name, d.memory_bytes)).collect::<Vec<_>>();
            (devices, kernel.devices_to_come)
        };
        let cpu = |bytes| ("cpu".to_owned(), bytes);
        let default = machine::device_memory_bytes();
        assert_eq!(settled(None, "()"), (vec![cpu(default)], true));
        assert_eq!(settled(Some("8MiB"), "()"), (vec![cpu(8 << 20)], true));
        let gpu = ("cuda:0".to_owned(), 24 << 30);
        let text = r#"(devices: [(name: "cuda:0", memory: "24 GiB")])"#;
        assert_eq!(settled(None, text), (vec![cpu(default), gpu.clone()], false));
        let text = r#"(devices: [(name: "cpu", memory: 1000), (name: "cuda:0", memory: "24GiB")])"#;
        assert_eq!(settled(Some("3000"), text), (vec![cpu(3000), gpu], false));
    }

    #[test]
    fn system_takes_the_places_of_the_system() {
        let flags = Flags { system: true, ..Flags::default() };
        let settings = merge(flags, File::default()).expect("valid");
        assert_eq!(settings.socket, Path::new("/run/llmasos/llmasos.sock"));
        assert_eq!(settings.data, Path::new("/var/lib/llmasos"));
        assert_eq!(settings.socket_mode, 0o660);
    }

    #[test]
    fn value_out_of_range_names_the_limit() {
        let refused = |text: &str| {
            let error = merge(Flags::default(), file(text).expect("parses")).expect_err("out of range");
            error.to_string()
        };
        assert!(refused("(sequences_max: 300)").contains("300; from 1 to 256"));
        let policy = refused("(policy: \"lottery\")");
        assert!(policy.contains("choose one of fifo, rr, fair, mlfq, edf"), "{policy}");
        assert!(refused("(latency_target_percent: 100)").contains("100; a step"));
        assert!(refused("(log: \"loud\")").contains("error, warn, info"));
        assert!(refused("(mounts: [(path: \"m.gguf\", name: \"m\")])").contains("from / on"));
    }

    #[test]
    fn file_asked_for_and_missing_is_an_error() {
        let flags = Flags { config: Some("/nonexistent/llmasos.ron".into()), ..Flags::default() };
        let error = Settings::settle(flags).expect_err("missing").to_string();
        assert!(error.contains("/nonexistent/llmasos.ron"), "{error}");
    }
}
