//! What the host knows of the machine, and what it asks of the system for itself.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Name of the processor, or `unknown`.
pub fn cpu_name() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|l| l.starts_with("model name"));
    let name = line.and_then(|l| l.split_once(':')).map(|(_, name)| name.trim().to_owned());
    name.unwrap_or_else(|| "unknown".into())
}

/// Processors that this process may use.
pub fn cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// Bytes of main memory, or 0 where the system does not say.
pub fn memory_bytes() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kilobytes = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Bytes of main memory that this process may use, by the machine, by its control group and by those around it; none
/// where the system does not say.
pub fn usable_bytes() -> Option<u64> {
    let all = Some(memory_bytes()).filter(|bytes| *bytes > 0);
    all.into_iter().chain(control_group_limit()).min()
}

/// Bytes that models may take where nobody says: four fifths of what may be used; without bounds where that is not known.
/// The rest is for the system, for programs, and for pages that are swapped out.
pub fn device_share(usable: Option<u64>) -> u64 {
    usable.unwrap_or(u64::MAX) / 5 * 4
}

/// Bytes for pages that are swapped out where nobody says: a quarter of what models leave; none where that is not known.
pub fn host_tier_share(usable: Option<u64>, devices: u64) -> u64 {
    usable.unwrap_or(0).saturating_sub(devices) / 4
}

/// The least limit of memory of this process's control group and those around it (version 2), if there is any.
fn control_group_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/');
    let own = Path::new("/sys/fs/cgroup").join(path);
    let limit =
        |folder: &Path| fs::read_to_string(folder.join("memory.max")).ok()?.trim().parse::<u64>().ok();
    own.ancestors().take_while(|folder| folder.starts_with("/sys/fs/cgroup")).filter_map(limit).min()
}

/// The name of a process's executable, or nothing where the system does not say.
pub fn executable_of(os_pid: u32) -> String {
    fs::read_to_string(format!("/proc/{os_pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// The parent of a process of the operating system.
pub fn parent_of(os_pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{os_pid}/stat")).ok()?;
    // The name before it is in parentheses and can have anything in it.
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Lets this process open as many files as the system allows it: each connection takes one.
pub fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) }
    });
    if let Err(e) = raised {
        tracing::warn!("the limit of open files stays as it is: {e}");
    }
}

/// Whether standard error goes to the journal, which writes its own times.
pub fn logs_to_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = fs::metadata("/proc/self/fd/2") else { return false };
    stream == format!("{}:{}", stderr.dev(), stderr.ino())
}

/// A number that is another one at every start.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_describes_itself() {
        assert!(cpus() >= 1);
        assert!(memory_bytes() > 1 << 20);
        let usable = usable_bytes().expect("the system says");
        assert!((1 << 20..=memory_bytes()).contains(&usable));
        assert!(!cpu_name().is_empty());
        assert!(!executable_of(std::process::id()).is_empty());
        assert_eq!(executable_of(u32::MAX), "");
    }

    #[test]
    fn shares_of_main_memory_are_no_more_than_there_is() {
        const GIB: u64 = 1 << 30;
        for usable in [4 * GIB, 64 * GIB, 1 << 20] {
            let devices = device_share(Some(usable));
            let tier = host_tier_share(Some(usable), devices);
            assert!(devices >= usable / 5 * 3 && tier > 0 && devices + tier < usable, "{devices} and {tier}");
        }
        assert_eq!(host_tier_share(Some(64 * GIB), 4 * GIB), 15 * GIB, "models were given less");
        assert_eq!(host_tier_share(Some(4 * GIB), 64 * GIB), 0, "models were given more than there is");
        assert_eq!((device_share(None) > 1 << 60, host_tier_share(None, 0)), (true, 0));
    }

    #[test]
    fn parent_of_this_process_is_the_one_that_the_system_says() {
        assert_eq!(parent_of(std::process::id()), Some(std::os::unix::process::parent_id()));
        assert_eq!(parent_of(u32::MAX), None);
    }

    #[test]
    fn open_files_are_raised_to_the_hard_limit() {
        raise_open_files();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the system says");
        assert_eq!(soft, hard);
    }
}
