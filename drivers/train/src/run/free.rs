//! How much memory there is for a run: of its device, of the machine and of the control group.

use std::path::Path;

use candle_core::Device;

/// Bytes that are free on a device, for each of the ranks that share the machine. Cards of Apple's have the machine's
/// memory.
pub fn on(device: &Device, ranks: u64) -> u64 {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(card) = device {
        // Each rank has a card of its own.
        return card.cuda_stream().context().mem_get_info().map_or(u64::MAX, |(free, _)| free as u64);
    }
    let _ = device;
    free() / ranks
}

/// Bytes that are free: what the system says is available, within the limit of the control group.
fn free() -> u64 {
    let about = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = about.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<u64> = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    let system = kib.map_or(u64::MAX, |kib| kib << 10);
    system.min(free_of_group().unwrap_or(u64::MAX))
}

/// What the control group of this process has left, and those that it is in (cgroup v2).
fn free_of_group() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    free_of_groups(Path::new("/sys/fs/cgroup"), group)
}

/// The least that any group on the way has left: a limit goes for all below it. Pages of files that nobody has used for a
/// while are given back when others are wanted.
fn free_of_groups(root: &Path, group: &str) -> Option<u64> {
    let folder = root.join(group);
    let left = |folder: &Path| {
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
        let number = |name: &str| text(name)?.trim().parse::<u64>().ok();
        let stat = text("memory.stat").unwrap_or_default();
        let unused = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse::<u64>().ok());
        let taken = number("memory.current")?.saturating_sub(unused.unwrap_or(0));
        Some(number("memory.max")?.saturating_sub(taken))
    };
    folder.ancestors().take_while(|folder| folder.starts_with(root)).filter_map(left).min()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn group_has_no_more_than_those_that_it_is_in() {
        let root = tempfile::tempdir().unwrap();
        let group = |name: &str, max: &str, current: &str| {
            let folder = root.path().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("memory.max"), max).unwrap();
            std::fs::write(folder.join("memory.current"), current).unwrap();
        };
        let free = || free_of_groups(root.path(), "a/b/c");
        group("a/b/c", "max\n", "100\n");
        assert_eq!(free(), None);
        group("a/b", "1000\n", "300\n");
        group("a", "5000\n", "300\n");
        assert_eq!(free(), Some(700));
        group("a/b/c", "500\n", "100\n");
        assert_eq!(free(), Some(400));
        group("a", "450\n", "300\n");
        std::fs::write(root.path().join("a/memory.stat"), "anon 1\ninactive_file 50\n").unwrap();
        assert_eq!(free(), Some(200));
    }
}
