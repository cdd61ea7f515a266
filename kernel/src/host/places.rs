//! Places for connections: no more of them are open than the system lets this process open files, less what else it
//! needs files for. So a flood of connections is turned away in a sentence, and workers, programs and stores find
//! descriptors all the same.

use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit};
use syscalls::limits::CONNECTIONS_MAX;
use syscalls::{Errno, Fault};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Descriptors that are kept for what is no connection: the stores and the event queue have about thirty, a worker takes
/// four, and a program one beside its connection.
const FILES_RESERVED: usize = 256;

/// Descriptors of a connection: its socket, and a handle on the process at its other end.
const FILES_PER_CONNECTION: usize = 2;

/// Connections that there is room for, however few files may be open.
const PLACES_MIN: usize = 8;

/// Room for connections.
#[derive(Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    max: usize,
}

/// A place that is taken, until this is dropped.
pub type Place = OwnedSemaphorePermit;

impl Places {
    /// As many as this process has files for.
    pub fn of_this_process() -> Places {
        let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let room = files.saturating_sub(FILES_RESERVED) / FILES_PER_CONNECTION;
        Places::new(room.clamp(PLACES_MIN, CONNECTIONS_MAX))
    }

    /// So many.
    pub fn new(max: usize) -> Places {
        Places { free: Arc::new(Semaphore::new(max)), max }
    }

    /// Takes one.
    ///
    /// # Errors
    ///
    /// None is free.
    pub fn take(&self) -> Result<Place, Fault> {
        Arc::clone(&self.free).try_acquire_owned().map_err(|_| {
            let max = self.max;
            let advice = match max < CONNECTIONS_MAX {
                true => "; the daemon may open few files: raise its LimitNOFILE or `ulimit -n`",
                false => "",
            };
            let message = format!("{max} of {max} connections are open; close some and try again{advice}");
            Fault::new(Errno::EMFILE, message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_taken_are_refused_with_their_number_and_free_again_when_dropped() {
        let places = Places::new(2);
        let _first = places.take().expect("is free");
        let second = places.take().expect("is free");
        let fault = places.take().expect_err("all are taken");
        assert_eq!(fault.errno, Errno::EMFILE);
        assert!(fault.message.contains("2 of 2") && fault.message.contains("LimitNOFILE"), "{fault}");
        drop(second);
        drop(places.take().expect("is free again"));
    }
}
