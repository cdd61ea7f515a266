//! Calls about services: programs that the daemon starts, watches over and starts again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Class;

args! {
    /// Arguments of `service_start`.
    struct ServiceStart {
        /// The service.
        name: String,
        /// Makes a transient service of this name for the caller's user, which is forgotten when it has ended well or was
        /// stopped. EEXIST where there is a service of that name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        transient: Option<Transient>,
    }

    /// Arguments of `service_stop`.
    struct ServiceStop {
        /// The service. Those that require it are stopped first.
        name: String,
    }

    /// Arguments of `service_restart`.
    struct ServiceRestart {
        /// The service. One that does not run is started; those that require it and run are started again too.
        name: String,
    }

    /// Arguments of `service_status`.
    struct ServiceStatus {
        /// The service.
        name: String,
        /// So many of the last lines that it has printed; all that are kept if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lines: Option<u32>,
    }

    /// Arguments of `service_list`.
    struct ServiceList {}

    /// A service that nobody has declared in the configuration.
    struct Transient {
        /// The program and its arguments, as for `spawn`.
        argv: Vec<String>,
        /// The scheduling class; the caller's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        class: Option<Class>,
        /// From −20 (most) to 19 (least); the caller's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nice: Option<i8>,
        /// A group inside the user's own, such as `a/b`; the user's own if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
        /// Whether it is started again when it has ended.
        #[serde(default)]
        restart: Restart,
        /// How often and how soon.
        #[serde(default)]
        rules: RestartRules,
    }
}

/// When a service is started again that has ended without being stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// When it has failed: its status is not 0, and it was not ended by HUP, INT, PIPE or TERM.
    #[default]
    OnFailure,
    /// In any case.
    Always,
    /// Not at all.
    Never,
}

/// How often and how soon a service is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RestartRules {
    /// The pause before the first new start, in milliseconds: at least 1, and at most `backoff_max_ms`. It doubles from
    /// start to start.
    pub backoff_start_ms: u64,
    /// The longest pause. A service that has run for so long begins with the shortest pause again.
    pub backoff_max_ms: u64,
    /// So many starts are allowed ...
    pub start_limit_burst: u32,
    /// ... within so many milliseconds; one more, and the service has failed for good. 0 for no limit.
    pub start_limit_interval_ms: u64,
}

impl Default for RestartRules {
    /// The pause and the limit are systemd's.
    fn default() -> Self {
        RestartRules {
            backoff_start_ms: 100,
            backoff_max_ms: 30_000,
            start_limit_burst: 5,
            start_limit_interval_ms: 10_000,
        }
    }
}
