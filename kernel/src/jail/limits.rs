//! Limits of what a program takes, as the system has them for each process.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::policy::Limits;

/// Sets the limits for this process and all that come from it. A limit that is lower already stays.
///
/// # Errors
///
/// The system refuses one.
pub(super) fn set(limits: &Limits, uid: u32) -> io::Result<()> {
    let processes = limits.processes.map(|more| tasks_of(uid).saturating_add(more));
    let all = [
        (Resource::RLIMIT_NOFILE, limits.files),
        (Resource::RLIMIT_NPROC, processes),
        (Resource::RLIMIT_DATA, limits.memory_bytes),
        (Resource::RLIMIT_CPU, limits.cpu_seconds),
        (Resource::RLIMIT_FSIZE, limits.file_bytes),
        // Nobody wants the prompts of others in a core file.
        (Resource::RLIMIT_CORE, Some(0)),
    ];
    for (resource, most) in all {
        let Some(most) = most else { continue };
        let (_, hard) = getrlimit(resource)?;
        let most = most.min(hard);
        setrlimit(resource, most, most)?;
    }
    Ok(())
}

/// Processes and threads that a user has now.
fn tasks_of(uid: u32) -> u64 {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let own = entries.filter(|e| e.metadata().is_ok_and(|m| m.is_dir() && m.uid() == uid));
    own.filter_map(|e| {
        let status = fs::read_to_string(e.path().join("status")).ok()?;
        status.lines().find_map(|l| l.strip_prefix("Threads:"))?.trim().parse::<u64>().ok()
    })
    .sum()
}
