//! What is declared of a service.

use serde::Deserialize;
use syscalls::call::{Class, Restart, RestartRules, Signal};

use super::super::capability::Caps;
use super::super::process::Limits;

/// A service as the configuration, or a user, wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    pub name: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Variables beside those that every program has.
    pub environment: Vec<(String, String)>,
    /// Whom it runs as.
    pub uid: u32,
    /// What it may do. No service is an administrator.
    pub caps: Caps,
    pub class: Class,
    pub nice: i8,
    /// A group inside the user's own.
    pub group: Option<String>,
    pub limits: ServiceLimits,
    /// Services that are started before it, where they are started.
    pub after: Vec<String>,
    /// Services that are started before it, and that it does not run without.
    pub requires: Vec<String>,
    pub restart: Restart,
    pub rules: RestartRules,
    /// What asks it to end.
    pub stop_signal: Signal,
    /// How long it may take then before it is killed.
    pub stop_grace_ms: u64,
    /// It is started with the daemon.
    pub enabled: bool,
}

impl ServiceConfig {
    /// A program under a name, with the defaults of everything else.
    pub fn new(name: &str, argv: Vec<String>, uid: u32) -> Self {
        ServiceConfig {
            name: name.to_owned(),
            argv,
            environment: Vec::new(),
            uid,
            caps: Caps::USER,
            class: Class::default(),
            nice: 0,
            group: None,
            limits: ServiceLimits::default(),
            after: Vec::new(),
            requires: Vec::new(),
            restart: Restart::default(),
            rules: RestartRules::default(),
            stop_signal: Signal::Term,
            stop_grace_ms: 10_000,
            enabled: true,
        }
    }

    /// The services that are started before it.
    pub(super) fn before(&self) -> impl Iterator<Item = &String> {
        self.requires.iter().chain(&self.after)
    }
}

/// What the process of a service may have, as `setlimit` knows it; nothing where there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceLimits {
    pub contexts: Option<u64>,
    pub context_tokens: Option<u64>,
    pub resident_frames: Option<u64>,
    pub generated_tokens: Option<u64>,
    pub swap_pages: Option<u64>,
    pub tokens_per_second: Option<u64>,
    pub service_us: Option<u64>,
}

impl From<Limits> for ServiceLimits {
    /// What happens at a limit is not told of a service.
    fn from(limits: Limits) -> ServiceLimits {
        ServiceLimits {
            contexts: limits.contexts,
            context_tokens: limits.context_tokens,
            resident_frames: limits.resident_frames,
            generated_tokens: limits.generated_tokens,
            swap_pages: limits.swap_pages,
            tokens_per_second: limits.tokens_per_second,
            service_us: limits.service_us,
        }
    }
}

impl From<ServiceLimits> for Limits {
    fn from(limits: ServiceLimits) -> Limits {
        Limits {
            contexts: limits.contexts,
            context_tokens: limits.context_tokens,
            resident_frames: limits.resident_frames,
            generated_tokens: limits.generated_tokens,
            swap_pages: limits.swap_pages,
            tokens_per_second: limits.tokens_per_second,
            service_us: limits.service_us,
            generated_then: None,
            service_then: None,
        }
    }
}
