//! Services of the file: what they say, and what makes sense.

use std::collections::BTreeMap;

use nix::unistd::{User, getuid};
use serde::Deserialize;
use syscalls::call::{Class, Restart, RestartRules, Signal};
use syscalls::limits::{ARGUMENT_BYTES_MAX, NICE_MAX, NICE_MIN, SERVICE_STARTS_MAX, SERVICES_MAX};
use syscalls::paths;

use super::SettingsError;
use super::check::require;
use crate::core::service::{ServiceConfig, ServiceLimits, check_order, is_service_name};

/// Signals that may ask a service to end.
const STOP_SIGNALS: [Signal; 3] = [Signal::Term, Signal::Int, Signal::Kill];

/// A service of the file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ServiceEntry {
    pub name: String,
    pub argv: Vec<String>,
    pub environment: BTreeMap<String, String>,
    pub user: Option<String>,
    pub class: Class,
    pub nice: i8,
    pub group: Option<String>,
    pub limits: ServiceLimits,
    pub after: Vec<String>,
    pub requires: Vec<String>,
    pub restart: Restart,
    pub backoff_start_ms: u64,
    pub backoff_max_ms: u64,
    pub start_limit_burst: u32,
    pub start_limit_interval_ms: u64,
    pub stop_signal: Signal,
    pub stop_grace_ms: u64,
    pub enabled: bool,
}

impl Default for ServiceEntry {
    fn default() -> Self {
        let config = ServiceConfig::new("", Vec::new(), 0);
        ServiceEntry {
            name: config.name,
            argv: config.argv,
            environment: BTreeMap::new(),
            user: None,
            class: config.class,
            nice: config.nice,
            group: config.group,
            limits: config.limits,
            after: config.after,
            requires: config.requires,
            restart: config.restart,
            backoff_start_ms: config.rules.backoff_start_ms,
            backoff_max_ms: config.rules.backoff_max_ms,
            start_limit_burst: config.rules.start_limit_burst,
            start_limit_interval_ms: config.rules.start_limit_interval_ms,
            stop_signal: config.stop_signal,
            stop_grace_ms: config.stop_grace_ms,
            enabled: config.enabled,
        }
    }
}

/// Makes the kernel's services of those of the file.
///
/// # Errors
///
/// A value is out of its range, a user is unknown, or the services have no order.
pub(super) fn services(entries: Vec<ServiceEntry>) -> Result<Vec<ServiceConfig>, SettingsError> {
    require("services", &entries.len(), entries.len() <= SERVICES_MAX, || {
        format!("at most {SERVICES_MAX} services can be declared")
    })?;
    let services = entries.into_iter().map(service).collect::<Result<Vec<_>, _>>()?;
    check_order(&services)?;
    Ok(services)
}

fn service(entry: ServiceEntry) -> Result<ServiceConfig, SettingsError> {
    check(&entry)?;
    let uid = entry.user.as_deref().map_or(Ok(getuid().as_raw()), uid_of)?;
    Ok(ServiceConfig {
        environment: entry.environment.into_iter().collect(),
        class: entry.class,
        nice: entry.nice,
        group: entry.group,
        limits: entry.limits,
        after: entry.after,
        requires: entry.requires,
        restart: entry.restart,
        rules: RestartRules {
            backoff_start_ms: entry.backoff_start_ms,
            backoff_max_ms: entry.backoff_max_ms,
            start_limit_burst: entry.start_limit_burst,
            start_limit_interval_ms: entry.start_limit_interval_ms,
        },
        stop_signal: entry.stop_signal,
        stop_grace_ms: entry.stop_grace_ms,
        enabled: entry.enabled,
        ..ServiceConfig::new(&entry.name, entry.argv, uid)
    })
}

fn check(entry: &ServiceEntry) -> Result<(), SettingsError> {
    require("name of a service", &format!("`{}`", entry.name), is_service_name(&entry.name), || {
        "letters, digits, dots, dashes and underscores name a service".into()
    })?;
    let of = |field: &str| format!("{field} of service {}", entry.name);
    let bytes: usize = entry.argv.iter().map(|argument| argument.len() + 1).sum();
    let sound = entry.argv.first().is_some_and(|program| !program.is_empty())
        && bytes <= ARGUMENT_BYTES_MAX
        && !entry.argv.iter().any(|argument| argument.contains('\0'));
    require(&of("argv"), &format!("{:?}", entry.argv), sound, || {
        format!("name a program, with arguments of at most {ARGUMENT_BYTES_MAX} bytes and no zero byte")
    })?;
    for (name, value) in &entry.environment {
        let own = [paths::SOCKET_VAR, paths::SOCKET_FD_VAR].contains(&name.as_str());
        let sound = !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
        require(&of("environment"), &format!("`{name}`"), sound && !own, || {
            "a variable needs a name without `=`, a value without zero bytes, and none that the daemon sets"
                .into()
        })?;
    }
    require(&of("nice"), &entry.nice, (NICE_MIN..=NICE_MAX).contains(&entry.nice), || {
        format!("from {NICE_MIN} to {NICE_MAX}")
    })?;
    let burst = entry.start_limit_burst;
    require(&of("start_limit_burst"), &burst, (1..=SERVICE_STARTS_MAX).contains(&burst), || {
        format!("from 1 to {SERVICE_STARTS_MAX} starts; for no limit set start_limit_interval_ms to 0")
    })?;
    let pauses = entry.backoff_start_ms >= 1 && entry.backoff_start_ms <= entry.backoff_max_ms;
    require(&of("backoff_start_ms"), &entry.backoff_start_ms, pauses, || {
        format!("at least 1, and at most backoff_max_ms, which is {}", entry.backoff_max_ms)
    })?;
    let signal = format!("{:?}", entry.stop_signal).to_uppercase();
    require(&of("stop_signal"), &signal, STOP_SIGNALS.contains(&entry.stop_signal), || {
        "TERM, INT or KILL ask a service to end".into()
    })
}

fn uid_of(name: &str) -> Result<u32, SettingsError> {
    let user = User::from_name(name).ok().flatten();
    user.map(|user| user.uid.as_raw()).ok_or_else(|| SettingsError::OutOfRange {
        name: "user of a service".into(),
        value: format!("`{name}`"),
        rule: "the system does not know him".into(),
    })
}
