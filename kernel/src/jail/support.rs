//! What the system has to make a jail of.

use std::fmt;
use std::path::Path;

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// The version of Landlock, 0 without.
    pub landlock: u32,
    /// Whether system calls can be filtered.
    pub seccomp: bool,
}

/// The version of Landlock that keeps signals and abstract sockets in, and with that all that a policy says.
pub(super) const LANDLOCK_WHOLE: u32 = 6;

impl Support {
    /// Whether a policy is enforced as a whole.
    pub fn is_whole(&self) -> bool {
        self.landlock >= LANDLOCK_WHOLE && self.seccomp
    }
}

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seccomp = if self.seccomp { "seccomp" } else { "no seccomp" };
        match self.landlock {
            0 => write!(f, "no landlock, {seccomp}"),
            version => write!(f, "landlock {version}, {seccomp}"),
        }
    }
}

/// Asks the system what it has.
pub fn support() -> Support {
    /// Asks for the version instead of a ruleset.
    const VERSION: libc::c_uint = 1;
    // SAFETY: with these arguments the call reads no memory and makes nothing.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0usize, VERSION)
    };
    Support {
        landlock: u32::try_from(version).unwrap_or(0),
        seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
    }
}
