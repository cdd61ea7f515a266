//! The scheduling policies that a run can be made under.

use anyhow::{Result, bail};
use kernel::core::KernelConfig;

/// All that the kernel has, the default first.
pub const ALL: &[&str] = &["fair"];

/// The configuration of a kernel under a policy.
///
/// # Errors
///
/// The kernel has no policy of this name.
pub fn config(name: &str) -> Result<KernelConfig> {
    if !ALL.contains(&name) {
        bail!("there is no policy `{name}`; there are {}", ALL.join(", "));
    }
    Ok(KernelConfig::default())
}

/// Their names.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().copied()
}
