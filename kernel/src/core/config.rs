//! What the kernel is told when it is made, and what of it a configuration that is read again changes.

use super::Kernel;
use super::sched::policy::Policy;
use super::service::ServiceConfig;
use super::user::UserLimits;

/// What the host knows of the machine and of itself; `sysinfo` reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostInfo {
    /// The daemon's release.
    pub version: String,
    /// The daemon's process.
    pub os_pid: u32,
    /// The socket that it listens on.
    pub socket: String,
    /// Where it keeps its state.
    pub data: String,
    /// What programs and workers are jailed with.
    pub jail: String,
    /// Name of the processor.
    pub cpu: String,
    /// Processors that it may use.
    pub cpus: u32,
    /// Bytes of main memory.
    pub memory_bytes: u64,
}

/// A device that models can be loaded to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// `cpu` for main memory, `cuda:0`, ….
    pub name: String,
    /// Bytes that models may take.
    pub memory_bytes: u64,
}

/// The settings of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelConfig {
    /// The machine.
    pub host: HostInfo,
    /// The devices; main memory is without bounds if it is not among them.
    pub devices: Vec<DeviceConfig>,
    /// The host will say which others there are, and nothing is loaded before.
    pub devices_to_come: bool,
    /// The smallest pool, in tokens, that a model gets or keeps where memory is short and its mount fixes no context.
    /// The default has room for some pages of prompt and answer of a few contexts.
    pub pool_tokens_min: u32,
    /// The model that calls mean which name none.
    pub default_model: Option<String>,
    /// Sequences at once in one worker; llama.cpp has room for 256.
    pub sequences_max: u16,
    /// Where workers keep what they have measured.
    pub cache_dir: Option<String>,
    /// Tokens of prompts that a step takes beside decoding contexts while it is not known what tokens cost. 32 rows
    /// is where a matrix product begins to pay on every machine measured.
    pub prefill_tokens_min: u32,
    /// How long a step without decoding contexts may be expected to take, in microseconds: signals and newcomers
    /// wait for the step that runs.
    pub step_us_max: u64,
    /// How the contexts of a class share a model.
    pub policy: Policy,
    /// Under `fair`: how far ahead of the least served a process may be before it sits steps out, in microseconds
    /// of device time at nice 0, ...
    pub fair_lag_us: u64,
    /// ... or, if that is longer, as long as so many tokens of a prompt are measured to take. The default lets a long
    /// prompt through in one go, on slow machines as on fast ones.
    pub fair_lag_tokens: u32,
    /// How long a step that decodes may become by prompts beside it, in percent of its time without them. At 200 an
    /// arriving prompt keeps the others for twice their normal time between two tokens, and a step that takes half
    /// as long again by chance stays below three times that.
    pub latency_target_percent: u32,
    /// How long a process that asked for signals may take to end after TERM, before it is killed.
    pub term_grace_ms: u64,
    /// What each user may have.
    pub user: UserLimits,
    /// How long a worker may take over one step before it counts as hung.
    pub worker_patience_ms: u64,
    /// Bytes of main memory for pages that had to leave device memory; 0 for none.
    pub swap_host_bytes: u64,
    /// Bytes of files for pages that had to leave that, and for pages that outlive the daemon; 0 for none.
    pub swap_disk_bytes: u64,
    /// Services that are declared, each name once and in no circle.
    pub services: Vec<ServiceConfig>,
    /// How long the daemon may take at its end to write pages that are not on disk yet.
    pub save_at_end_ms: u64,
    /// Deaths of a model's workers within ten minutes that do not take it offline yet, but for those of a user's calls. One
    /// that is worth restarting dies less often than every twenty seconds.
    pub worker_deaths_max: usize,
}

impl Default for KernelConfig {
    fn default() -> Self {
        KernelConfig {
            host: HostInfo::default(),
            devices: Vec::new(),
            devices_to_come: false,
            pool_tokens_min: 2048,
            default_model: None,
            sequences_max: 256,
            cache_dir: None,
            prefill_tokens_min: 32,
            step_us_max: 1_000_000,
            policy: Policy::Fair,
            fair_lag_us: 1_000_000,
            fair_lag_tokens: 8192,
            latency_target_percent: 200,
            term_grace_ms: 10_000,
            user: UserLimits::default(),
            worker_patience_ms: 120_000,
            swap_host_bytes: 0,
            swap_disk_bytes: 0,
            services: Vec::new(),
            save_at_end_ms: 3000,
            worker_deaths_max: 30,
        }
    }
}

impl Kernel {
    /// Takes over what steps, mounts, graces and deaths to come go by, and the services. Devices, tiers of the swap area, the
    /// time to save pages at the end, which the host reckons with, and what workers are told stay until the next start.
    pub(super) fn configured(&mut self, new: KernelConfig) {
        self.declare_services(new.services);
        self.set_policy(new.policy);
        self.config = KernelConfig {
            pool_tokens_min: new.pool_tokens_min,
            default_model: new.default_model,
            prefill_tokens_min: new.prefill_tokens_min,
            step_us_max: new.step_us_max,
            fair_lag_us: new.fair_lag_us,
            fair_lag_tokens: new.fair_lag_tokens,
            latency_target_percent: new.latency_target_percent,
            term_grace_ms: new.term_grace_ms,
            user: new.user,
            worker_patience_ms: new.worker_patience_ms,
            worker_deaths_max: new.worker_deaths_max,
            ..self.config.clone()
        };
    }
}
