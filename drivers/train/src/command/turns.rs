//! Turns that the daemon grants: a run is a process there, which `ps` lists and which signals, limits, its class and its
//! nice value act on.
//!
//! A pass is computed within a quantum (`compute`), and another one is asked for when what is left of it is shorter than
//! a pass usually takes. Where no daemon listens, a run computes whenever the operating system lets it, and looks again
//! from time to time: a daemon that dies does not stop it, and it becomes a process of the next one. One that hangs up and
//! is still there has ended the process.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use syscalls::call::{Class, Compute, Hello, Receive, Send, Sysinfo, Yield};
use syscalls::client::blocking::Client;
use syscalls::client::hello;
use syscalls::limits::QUANTUM_US_MAX;
use syscalls::paths;
use syscalls::{Errno, Fault, Pid, Reply};

use crate::run::{MicroStep, Stop, Turn};

/// How often a run without a daemon looks for one.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The shortest quantum that is asked for, in microseconds: asking costs some tens of them.
const QUANTUM_US_MIN: u32 = 20_000;

/// The run as a process of the daemon.
pub(super) struct Turns {
    socket: PathBuf,
    hello: Hello,
    stop: Stop,
    client: Option<Client>,
    /// When it became a process of this daemon.
    since: Instant,
    /// When it was last looked for a daemon.
    looked: Option<Instant>,
    /// The end of the quantum.
    until: Option<Instant>,
    /// When the pass before this one began.
    began: Option<Instant>,
    /// What a pass takes, of which later ones count more.
    usual: Duration,
}

impl Turns {
    /// For a run that is to be in this class with this nice value, and that `stop` stops.
    pub(super) fn new(socket: PathBuf, class: Class, nice: i8, stop: Stop) -> Turns {
        let hello = Hello { class, nice, ..hello("train") };
        let usual = Duration::from_micros(u64::from(QUANTUM_US_MIN));
        Turns {
            socket,
            hello,
            stop,
            client: None,
            since: Instant::now(),
            looked: None,
            until: None,
            began: None,
            usual,
        }
    }

    /// Connects, if a daemon listens.
    ///
    /// # Errors
    ///
    /// It refuses this process, such as with EPERM for its class.
    pub(super) fn connect(&mut self) -> Result<(), Fault> {
        self.looked = Some(Instant::now());
        match Client::connect_with(&self.socket, self.hello.clone()) {
            Ok(client) => (self.client, self.since) = (Some(client), Instant::now()),
            Err(fault) if is_absence(&fault) => {}
            Err(fault) => return Err(fault),
        }
        Ok(())
    }

    /// Ends the quantum, where nothing is to be computed for a while.
    pub(super) fn rest(&mut self) {
        if let Some(client) = self.client.as_mut().filter(|_| self.until.is_some()) {
            // Where the connection is gone, whatever comes next says so.
            let _ = client.call(Yield {});
        }
        (self.until, self.began) = (None, None);
    }

    /// The next message, and who sent it; none where none comes within so long, or the connection is gone.
    ///
    /// # Errors
    ///
    /// The daemon refuses.
    pub(super) fn receive(&mut self, timeout_ms: u64) -> Result<Option<(Pid, serde_json::Value)>, Fault> {
        let Some(client) = &mut self.client else { return Ok(None) };
        match client.call(Receive { timeout_ms: Some(timeout_ms) }) {
            Ok(Reply::Message { from, data }) => Ok(Some((from, data))),
            Ok(_) => Ok(None),
            Err(fault) if fault.errno == Errno::ETIMEDOUT || is_absence(&fault) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Sends a message. One to a process that has ended is nobody's loss.
    ///
    /// # Errors
    ///
    /// The daemon refuses.
    pub(super) fn send(&mut self, pid: Pid, data: serde_json::Value) -> Result<(), Fault> {
        let Some(client) = &mut self.client else { return Ok(()) };
        match client.call(Send { pid, data }) {
            Err(fault) if fault.errno != Errno::ESRCH => Err(fault),
            _ => Ok(()),
        }
    }

    /// Asks for a quantum that a pass fits in. Returns whether it is to be asked for again, because there is another daemon.
    fn ask(&mut self) -> bool {
        let us = u32::try_from(self.usual.as_micros()).unwrap_or(u32::MAX);
        let us = us.saturating_add(us / 4).clamp(QUANTUM_US_MIN, QUANTUM_US_MAX);
        let Some(client) = &mut self.client else { return false };
        match client.call(Compute { device: None, us }) {
            Ok(Reply::Quantum { us }) => {
                self.until = Some(Instant::now() + Duration::from_micros(u64::from(us)));
            }
            // The signal INT, which ends calls and leaves the process.
            Err(fault) if fault.errno == Errno::EINTR => self.stop.by(SIGINT),
            Err(fault) if is_absence(&fault) => return self.hung_up(),
            // Whatever else it says, it does not let this process compute.
            Err(_) | Ok(_) => self.stop.by(SIGTERM),
        }
        false
    }

    /// The connection is gone: with the daemon, or because the daemon has ended this process. The next daemon has a run
    /// as its process as the one before had, but for one that was started by a daemon: it is started again. Returns whether
    /// there is another daemon to ask.
    fn hung_up(&mut self) -> bool {
        (self.client, self.until) = (None, None);
        let began = self.since;
        let ended = match self.connect() {
            Err(_) => true,
            Ok(()) => self.client.is_some() && (is_a_daemons_own() || !self.is_younger_than(began)),
        };
        if ended {
            self.client = None;
            self.stop.by(SIGTERM);
        }
        self.client.is_some()
    }

    /// Whether the daemon was started after a moment.
    fn is_younger_than(&mut self, moment: Instant) -> bool {
        let Some(client) = &mut self.client else { return false };
        match client.call(Sysinfo {}) {
            Ok(Reply::Sysinfo(about)) => Duration::from_millis(about.uptime_ms) < moment.elapsed(),
            Err(fault) if is_absence(&fault) => {
                self.client = None;
                true
            }
            _ => false,
        }
    }
}

impl Turn for Turns {
    fn take(&mut self, _: MicroStep) {
        let now = Instant::now();
        if let Some(began) = self.began {
            self.usual = (self.usual * 3 + (now - began)) / 4;
        }
        let look = self.client.is_none() && self.looked.is_none_or(|at| now - at >= LOOK_AGAIN);
        if look && self.connect().is_err() {
            self.stop.by(SIGTERM);
        }
        if self.client.is_some() && self.until.is_none_or(|until| now + self.usual > until) && self.ask() {
            self.ask();
        }
        self.began = Some(Instant::now());
    }
}

/// Whether this program was started by a daemon, which gave it its connection.
fn is_a_daemons_own() -> bool {
    std::env::var_os(paths::SOCKET_FD_VAR).is_some()
}

/// Whether a fault means that nobody is at the other end.
fn is_absence(fault: &Fault) -> bool {
    matches!(fault.errno, Errno::ENOENT | Errno::ECONNRESET)
}
