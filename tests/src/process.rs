//! What the system says of a process, and what it lets the process have.

use std::fs;
use std::process::Command;

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

/// Sets the soft limit of processes and threads for another user's process, and gives what it was. That user may do it,
/// root without CAP_SYS_RESOURCE, as in many containers, may not.
pub fn limit_processes_of(uid: u32, os_pid: u32, soft: u64) -> u64 {
    let limits = fs::read_to_string(format!("/proc/{os_pid}/limits")).expect("Linux has it");
    let line = limits.lines().find_map(|l| l.strip_prefix("Max processes")).expect("it has this limit");
    let before = line.split_whitespace().next().expect("it has a soft one");
    let id = uid.to_string();
    let done = Command::new("setpriv")
        .args(["--reuid", &id, "--regid", &id, "--clear-groups", "--", "prlimit"])
        .arg(format!("--pid={os_pid}"))
        .arg(format!("--nproc={soft}:"))
        .status();
    assert!(done.expect("util-linux has both").success());
    before.parse().unwrap_or(u64::MAX)
}

/// Whether a process has a handler of its own for a signal.
pub fn catches(os_pid: u32, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{os_pid}/status")).expect("the process lives");
    let mask = status.lines().find_map(|l| l.strip_prefix("SigCgt:")).expect("Linux has it");
    let mask = u64::from_str_radix(mask.trim(), 16).expect("the mask is a number");
    mask & (1 << (signal as u32 - 1)) != 0
}

/// Sends a signal to a process that lives.
pub fn kill(os_pid: u32, signal: Signal) {
    signal::kill(Pid::from_raw(i32::try_from(os_pid).expect("pids are positive")), signal).expect("it lives");
}
