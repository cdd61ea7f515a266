//! The scheduling policies that a run can be made under.

use anyhow::{Result, bail};
use kernel::core::KernelConfig;

/// The kernel's default.
pub const DEFAULT: &str = "fair";

/// The names of all that the kernel has.
pub fn names() -> impl Iterator<Item = &'static str> {
    [DEFAULT].into_iter()
}

/// The configuration of a kernel under a policy.
///
/// # Errors
///
/// The kernel has no policy of this name.
pub fn config(name: &str) -> Result<KernelConfig> {
    if !names().any(|known| known == name) {
        bail!("there is no policy `{name}`; there are {}", names().collect::<Vec<_>>().join(", "));
    }
    Ok(KernelConfig::default())
}
