//! The machine that a bench runs on, for the line above its table.

/// The processor's name and how many a program may use.
pub fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, |n| n.get());
    format!("{}, {cpus} processors", name.trim_start_matches(['\t', ':', ' ']))
}
