//! What the system says of a process, and what it lets the process have.

use std::fs;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// Descriptors that a process has open.
pub fn open_files(os_pid: u32) -> usize {
    entries(os_pid, "fd")
}

/// Threads of a process.
pub fn threads(os_pid: u32) -> usize {
    entries(os_pid, "task")
}

fn entries(os_pid: u32, folder: &str) -> usize {
    fs::read_dir(format!("/proc/{os_pid}/{folder}")).expect("the process lives").count()
}

/// A size that `/proc/PID/status` has in kibibytes.
pub fn status_kib(os_pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{os_pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
    let size = line.unwrap_or_else(|| panic!("no {field} in {status}")).trim().trim_end_matches(" kB");
    size.parse().expect("the size is a number")
}

/// Processes that a process has started and that nobody has waited for, zombies among them.
pub fn children(os_pid: u32) -> Vec<u32> {
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Behind the name, which may have anything in it: the state, and the parent.
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        parent == Some(os_pid)
    };
    let pids = fs::read_dir("/proc").expect("Linux has it");
    pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(is_child).collect()
}

/// Whether limits of other users' processes may be set here.
pub fn may_limit_others() -> bool {
    /// The bit of CAP_SYS_RESOURCE.
    const RESOURCE: u64 = 1 << 24;
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let caps = status.lines().find_map(|l| l.strip_prefix("CapEff:")).expect("it has capabilities");
    u64::from_str_radix(caps.trim(), 16).is_ok_and(|caps| caps & RESOURCE != 0)
}

/// Sets the soft limit of a resource for a process, and gives what it was.
pub fn limit(os_pid: u32, resource: libc::__rlimit_resource_t, soft: u64) -> u64 {
    let pid = libc::pid_t::try_from(os_pid).expect("pids are positive");
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: no new limit is given, and the old one is written to a place that is there.
    let read = unsafe { libc::prlimit(pid, resource, std::ptr::null(), &mut limits) };
    assert_eq!(read, 0, "{}", std::io::Error::last_os_error());
    let before = std::mem::replace(&mut limits.rlim_cur, soft);
    // SAFETY: the limit is read, and no old one is written.
    let set = unsafe { libc::prlimit(pid, resource, &limits, std::ptr::null_mut()) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    before
}

/// Sends a signal to a process that lives.
pub fn kill(os_pid: u32, signal: Signal) {
    signal::kill(Pid::from_raw(i32::try_from(os_pid).expect("pids are positive")), signal).expect("it lives");
}
