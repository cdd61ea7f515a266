//! Keys that are pressed while a program shows something again and again.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, read, tcgetpgrp};
use signal_hook::consts::{SIGCONT, SIGINT};

/// How a wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Its time has passed.
    Passed,
    /// `q` was pressed, or the terminal is gone.
    Quit,
    /// Ctrl-C.
    Interrupted,
}

/// The keys of the terminal on standard input, which are neither shown nor wait for Enter while this lives. Where there
/// is no such terminal, or as long as it is another job's, there are none.
#[derive(Debug)]
pub struct Keys {
    /// The modes of the terminal before.
    before: Option<Termios>,
    /// Readable when SIGINT has come.
    interrupts: UnixStream,
    /// Readable when SIGCONT has come: with it a shell says that it has handed the terminal over, which may be long after
    /// it has started this program, and has taken it back before, with modes of its own.
    continued: UnixStream,
}

impl Keys {
    /// Begins to listen. From now on SIGINT ends waits and not the program.
    ///
    /// # Errors
    ///
    /// The system refuses the handlers, or the terminal its modes.
    pub fn listen() -> io::Result<Keys> {
        let (interrupts, told) = UnixStream::pair()?;
        signal_hook::low_level::pipe::register(SIGINT, told)?;
        let (continued, told) = UnixStream::pair()?;
        signal_hook::low_level::pipe::register(SIGCONT, told)?;
        Ok(Keys { before: take_terminal(None)?, interrupts, continued })
    }

    /// Waits for so long, or for what ends it. Other keys do nothing.
    ///
    /// # Errors
    ///
    /// The system refuses to wait.
    pub fn wait(&mut self, time: Duration) -> io::Result<Waited> {
        let until = Instant::now() + time;
        let stdin = io::stdin();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Waited::Passed);
            }
            // Never shorter than what is left, or the last millisecond would be spent looking.
            let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            let readable = |of| PollFd::new(of, PollFlags::POLLIN);
            let mut watched = [self.interrupts.as_fd(), self.continued.as_fd(), stdin.as_fd()].map(readable);
            let watched = if self.before.is_some() { &mut watched[..] } else { &mut watched[..2] };
            match poll(watched, left) {
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            if watched[0].any() == Some(true) {
                return Ok(Waited::Interrupted);
            }
            let mut keys = [0; 64];
            if watched[1].any() == Some(true) {
                read(self.continued.as_fd(), &mut keys)?;
                self.before = take_terminal(self.before.take())?;
                continue;
            }
            match read(stdin.as_fd(), &mut keys) {
                Ok(0) | Err(Errno::EIO) => return Ok(Waited::Quit),
                Ok(count) if keys[..count].contains(&b'q') => return Ok(Waited::Quit),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Has keys come one by one and unseen, if the terminal is this job's, and gives the modes that it had before: those that
/// are known, where it still has what this has set.
fn take_terminal(known: Option<Termios>) -> io::Result<Option<Termios>> {
    let stdin = io::stdin();
    // To change the terminal of another job would stop this one.
    if !stdin.is_terminal() || tcgetpgrp(stdin.as_fd()) != Ok(getpgrp()) {
        return Ok(None);
    }
    let cleared = LocalFlags::ICANON | LocalFlags::ECHO;
    let mut modes = tcgetattr(stdin.as_fd())?;
    let before = known.filter(|_| !modes.local_flags.intersects(cleared)).unwrap_or_else(|| modes.clone());
    modes.local_flags.remove(cleared);
    tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &modes)?;
    Ok(Some(before))
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // A terminal that has gone meanwhile has no modes.
            let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, before);
        }
    }
}
