//! The lock on a run's folder: two programs that train there would take each other's checkpoints and logs away.
//!
//! It belongs to the open file, so it is gone with the program, however that ends. The file has the program's number in
//! it, for the sentence of who comes second.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::error::RunError;

/// What says who trains in a folder.
const NAME: &str = ".lock";

/// How long one that is ending may have it: a program that is killed, and begun again at once, meets itself.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it is tried.
const AGAIN: Duration = Duration::from_millis(50);

/// The lock on a run's folder; it is given back when this is dropped.
#[derive(Debug)]
pub struct Lock {
    /// None on a file system that knows no locks.
    _file: Option<Flock<File>>,
}

impl Lock {
    /// Takes the lock of a folder that is there.
    ///
    /// # Errors
    ///
    /// [`RunError::Busy`] with the program that has it.
    pub(super) fn take(run: &Path) -> Result<Lock, RunError> {
        let path = run.join(NAME);
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let (mut file, begun) = (file.map_err(RunError::io(&path))?, Instant::now());
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut file) => {
                    let noted = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
                    // A disk that is full may refuse the number; the lock is taken all the same.
                    drop(noted);
                    return Ok(Lock { _file: Some(file) });
                }
                Err((same, Errno::EWOULDBLOCK | Errno::EINTR)) if begun.elapsed() < PATIENCE => {
                    file = same;
                    std::thread::sleep(AGAIN);
                }
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    let mut text = String::new();
                    let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
                    let who = match text.trim().parse::<u32>() {
                        Ok(pid) => format!("process {pid}"),
                        Err(_) => "another process".to_owned(),
                    };
                    return Err(RunError::Busy { path: run.to_owned(), who });
                }
                Err((_, Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS)) => {
                    return Ok(Lock { _file: None });
                }
                Err((_, errno)) => return Err(RunError::io(&path)(errno.into())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn second_one_is_refused_by_the_number_of_the_first_until_that_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path()).unwrap();
        let error = Lock::take(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {} ", std::process::id())), "{error}");
        drop(first);
        Lock::take(folder.path()).unwrap();
    }
}
