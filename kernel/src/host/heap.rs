//! The daemon's heap, kept as small as what is in it.
//!
//! The allocator of the GNU library gives threads heaps of their own, keeps for each thread some of what it has freed of
//! every size, and after the first large buffer that is given back takes the next ones from the heap, too. The daemon has
//! a dozen threads, most of them the database's, that free what others have allocated, so it would grow for days although
//! it holds no more: a soak of ten minutes rests at 15.9 MiB with that, 1.9 % more than at its beginning, and at 11.9 MiB
//! without. One thread does nearly all, so nothing is lost: calls take as long either way, in quiet and in a flood.
//!
//! One heap and pages for large buffers could be set from within; with these alone it grows as much (1.9 %, to 14.6 MiB
//! after 200 seconds). That threads keep nothing the allocator takes from its environment alone, when a program begins; so
//! the daemon begins twice. What it starts has an environment of its own.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The variable that the allocator reads.
const VARIABLE: &str = "GLIBC_TUNABLES";

/// One heap, nothing kept by threads, and pages of its own for whatever is at least as large as half of the buffer that
/// the database makes for each segment of its log.
const SETTINGS: &str =
    "glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0:glibc.malloc.mmap_threshold=65536";

/// Begins this program anew with these settings, as the same process with all that it has inherited. Returns where it
/// has some already, the administrator's own perhaps, and where the allocator is another.
///
/// # Errors
///
/// The system does not start its executable, which may have been replaced. It can go on as it is.
pub fn keep_small() -> io::Result<()> {
    if !cfg!(target_env = "gnu") || std::env::var_os(VARIABLE).is_some() {
        return Ok(());
    }
    let mut words = std::env::args_os();
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    Err(command.args(words).env(VARIABLE, SETTINGS).exec())
}
