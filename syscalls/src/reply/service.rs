//! What is told of services.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::call::Restart;
use crate::id::Pid;

use super::OutputReply;

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceInfo {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: ServiceState,
    /// Why it has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its user.
    pub uid: u32,
    /// Its process, or the last one that it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<Pid>,
    /// The status of the last process that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// How often it was started again without anybody asking, since somebody last did.
    pub restarts: u64,
    /// Since when it is in its state, in milliseconds.
    pub since_ms: u64,
    /// When it is started again, in milliseconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_start_ms: Option<u64>,
    /// It is started with the daemon.
    pub enabled: bool,
    /// It is not in the configuration.
    pub transient: bool,
    /// When it is started again.
    pub restart: Restart,
    /// Services that are started before it.
    pub after: Vec<String>,
    /// Services that it does not run without.
    pub requires: Vec<String>,
}

/// What a service is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// It does not run, because it was not started, was stopped, or has ended well.
    Inactive,
    /// It is started when those are that come before it.
    Waiting,
    /// Its program is being started.
    Starting,
    /// Its program runs.
    Running,
    /// Its program was asked to end.
    Stopping,
    /// Its program has ended, and is started again after a pause.
    Backoff,
    /// It does not run although it should.
    Failed,
}

/// Answer to `service_status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceStatusReply {
    /// The service.
    pub service: ServiceInfo,
    /// The program and its arguments, and what it has printed; for its user and the administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ServiceProgram>,
}

/// The program of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceProgram {
    /// Its name and its arguments.
    pub argv: Vec<String>,
    /// What it has printed last, through all its starts.
    pub output: OutputReply,
}
