//! The scheduling policies that a run can be made under.

use anyhow::{Result, bail};
use kernel::core::{KernelConfig, Policy};

/// The kernel's default.
pub const DEFAULT: &str = "fair";

/// The names of all that the kernel has.
pub fn names() -> impl Iterator<Item = &'static str> {
    Policy::ALL.iter().map(|(name, _)| *name)
}

/// The configuration of a kernel under a policy.
///
/// # Errors
///
/// The kernel has no policy of this name.
pub fn config(name: &str) -> Result<KernelConfig> {
    match Policy::ALL.iter().find(|(known, _)| *known == name) {
        // Faults that are injected are nobody's, however many.
        Some((_, policy)) => {
            Ok(KernelConfig { policy: *policy, worker_deaths_max: usize::MAX, ..KernelConfig::default() })
        }
        None => bail!("there is no policy `{name}`; there are {}", names().collect::<Vec<_>>().join(", ")),
    }
}
