//! Events for whoever started the program: the log's entries as JSON lines on a file descriptor.
//!
//! A reader that is slow or gone never keeps the run waiting: what it has no room for is dropped, a line as a whole.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::log::Entry;

/// Steps are told at most so often.
const INTERVAL: Duration = Duration::from_millis(100);

/// Bytes that wait for a slow reader.
const WAITING_MAX: usize = 64 << 10;

/// The other end of a pipe or socket.
#[derive(Debug)]
pub struct Feed {
    file: Option<File>,
    waiting: Vec<u8>,
    told: Option<Instant>,
}

impl Feed {
    /// Nobody listens.
    pub fn none() -> Feed {
        Feed { file: None, waiting: Vec::new(), told: None }
    }

    /// Takes over a file descriptor that was inherited.
    ///
    /// # Errors
    ///
    /// It is not open.
    pub fn on(fd: RawFd) -> io::Result<Feed> {
        if fd < 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        // SAFETY: the number comes from whoever started this program and left it open for this use; nothing else here
        // knows it. If it is not open, `fcntl` says so before anything is written.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let flags = match fcntl(&fd, FcntlArg::F_GETFL) {
            Ok(flags) => OFlag::from_bits_retain(flags),
            Err(error) => {
                // It is not ours to close.
                std::mem::forget(fd);
                return Err(error.into());
            }
        };
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Feed { file: Some(File::from(fd)), waiting: Vec::new(), told: None })
    }

    /// Tells an event.
    pub fn tell(&mut self, entry: &Entry) {
        if self.file.is_none() {
            return;
        }
        if matches!(entry, Entry::Step { .. }) {
            if self.told.is_some_and(|told| told.elapsed() < INTERVAL) {
                return;
            }
            self.told = Some(Instant::now());
        }
        let mut line = serde_json::to_vec(entry).expect("entries are numbers and text");
        line.push(b'\n');
        if self.waiting.len() + line.len() <= WAITING_MAX {
            self.waiting.extend(line);
        }
        self.push();
    }

    fn push(&mut self) {
        let Some(file) = &mut self.file else { return };
        match file.write(&self.waiting) {
            Ok(count) => drop(self.waiting.drain(..count)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            // The reader is gone. The run goes on.
            Err(_) => self.file = None,
        }
    }

    /// The descriptor, while somebody listens.
    pub fn descriptor(&self) -> Option<RawFd> {
        self.file.as_ref().map(AsRawFd::as_raw_fd)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read;
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn end(step: u64) -> Entry {
        Entry::End { step, reason: "x".repeat(1000) }
    }

    #[test]
    fn reader_that_is_slow_or_gone_stops_nothing_and_sees_whole_lines() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let mut feed = Feed::on(here.into_raw_fd()).unwrap();
        (0..10_000).for_each(|step| feed.tell(&end(step)));
        there.set_nonblocking(true).unwrap();
        let mut text = Vec::new();
        let _ = there.read_to_end(&mut text);
        feed.tell(&end(10_000));
        let _ = there.read_to_end(&mut text);
        let text = String::from_utf8(text).unwrap();
        let whole = text.lines().take_while(|line| line.ends_with('}'));
        let steps: Vec<u64> = whole.map(|line| serde_json::from_str::<Entry>(line).unwrap().step()).collect();
        assert!(steps.len() > 10 && steps.is_sorted(), "{} lines", steps.len());
        drop(there);
        feed.tell(&end(0));
        assert_eq!(feed.descriptor(), None);
    }

    #[test]
    fn descriptor_that_is_not_open_is_refused() {
        assert!(Feed::on(9999).is_err());
    }
}
