//! A file that may refuse for a while, such as on a disk that another program has filled: what it does not take waits, and
//! is written when there is room again.

use std::fs::File;
use std::io::{self, Write};

/// Bytes that wait. What comes when there are so many is left out, a piece as a whole.
const WAITING_MAX: usize = 4 << 20;

/// A file, and what waits for it.
#[derive(Debug)]
pub(super) struct PatientFile {
    file: File,
    waiting: Vec<u8>,
}

impl PatientFile {
    /// With nothing that waits.
    pub fn new(file: File) -> PatientFile {
        PatientFile { file, waiting: Vec::new() }
    }

    /// Adds a piece, such as a line.
    pub fn put(&mut self, piece: &[u8]) {
        if self.waiting.len() + piece.len() <= WAITING_MAX {
            self.waiting.extend_from_slice(piece);
        }
    }

    /// Hands what waits to the system.
    ///
    /// # Errors
    ///
    /// The file takes no more; the rest goes on waiting.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            match self.file.write(&self.waiting) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for PatientFile {
    fn drop(&mut self) {
        // Who wants to know flushes it before.
        let _ = self.flush();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_full_disk_refuses_waits_within_a_bound_and_is_written_whole_later() {
        let mut file = PatientFile::new(File::options().write(true).open("/dev/full").unwrap());
        let piece = [b'x'; 1000];
        (0..10_000).for_each(|_| file.put(&piece));
        assert_eq!(file.flush().unwrap_err().kind(), io::ErrorKind::StorageFull);
        let kept = file.waiting.len();
        assert!(kept <= WAITING_MAX && kept > WAITING_MAX - 1000 && kept.is_multiple_of(1000), "{kept}");
        let there = tempfile::NamedTempFile::new().unwrap();
        file.file = there.reopen().unwrap();
        file.flush().unwrap();
        file.put(b"y");
        file.flush().unwrap();
        let found = std::fs::read(there.path()).unwrap();
        assert!(found.len() == kept + 1 && found.ends_with(b"xy"), "{}", found.len());
    }
}
