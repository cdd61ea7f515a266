//! Where and how the program computes: its threads, its priority, its cache.

use std::io;
use std::path::PathBuf;

/// Gives the calling thread, and all that it starts, the policy under which they run when nothing else wants to.
pub(super) fn idle() -> io::Result<()> {
    let about = libc::sched_param { sched_priority: 0 };
    // SAFETY: the structure lives for the call, and 0 means the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &about) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Starts the threads that compute.
pub(super) fn threads(count: Option<usize>) -> Result<(), String> {
    /// More threads than any machine has processors.
    const THREADS_MAX: usize = 4096;
    if count.is_some_and(|count| count == 0 || count > THREADS_MAX) {
        return Err(format!("`threads` is {}; it must be within 1 and {THREADS_MAX}", count.unwrap_or(0)));
    }
    let builder = rayon::ThreadPoolBuilder::new().thread_name(|number| format!("compute-{number}"));
    let builder = count.into_iter().fold(builder, |builder, count| builder.num_threads(count));
    builder.build_global().map_err(|error| format!("the threads cannot be started: {error}"))
}

/// `$XDG_CACHE_HOME/llmasos/train`, or below the home folder.
pub(super) fn cache() -> PathBuf {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    cache.unwrap_or_else(std::env::temp_dir).join("llmasos/train")
}
