//! Turns that the daemon grants: a run is a process there, which `ps` lists and which signals, limits, its class and its
//! nice value act on.
//!
//! A pass is computed within a quantum (`compute`), and another one is asked for when what is left of it is shorter than
//! a pass usually takes. Where no daemon listens, a run computes whenever the operating system lets it, and looks again
//! from time to time: a daemon that dies does not stop it. One that hangs up and is still there has ended the process.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use syscalls::call::{Class, Compute, Hello, Receive, Send, Yield};
use syscalls::client::blocking::Client;
use syscalls::client::hello;
use syscalls::limits::QUANTUM_US_MAX;
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
        Turns { socket, hello, stop, client: None, looked: None, until: None, began: None, usual }
    }

    /// Connects, if a daemon listens.
    ///
    /// # Errors
    ///
    /// It refuses this process, such as with EPERM for its class.
    pub(super) fn connect(&mut self) -> Result<(), Fault> {
        self.looked = Some(Instant::now());
        match Client::connect_with(&self.socket, self.hello.clone()) {
            Ok(client) => self.client = Some(client),
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

    /// Asks for a quantum that a pass fits in.
    fn ask(&mut self) {
        let us = u32::try_from(self.usual.as_micros()).unwrap_or(u32::MAX);
        let us = us.saturating_add(us / 4).clamp(QUANTUM_US_MIN, QUANTUM_US_MAX);
        let Some(client) = &mut self.client else { return };
        match client.call(Compute { device: None, us }) {
            Ok(Reply::Quantum { us }) => {
                self.until = Some(Instant::now() + Duration::from_micros(u64::from(us)));
            }
            // The signal INT, which ends calls and leaves the process.
            Err(fault) if fault.errno == Errno::EINTR => self.stop.by(SIGINT),
            Err(fault) if is_absence(&fault) => self.hung_up(),
            // Whatever else it says, it does not let this process compute.
            Err(_) | Ok(_) => self.stop.by(SIGTERM),
        }
    }

    /// The connection is gone: with the daemon, or because the daemon has ended this process.
    fn hung_up(&mut self) {
        self.client = None;
        self.until = None;
        self.looked = Some(Instant::now());
        if Client::connect(&self.socket, "train").is_ok() {
            self.stop.by(SIGTERM);
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
        if self.client.is_some() && self.until.is_none_or(|until| now + self.usual > until) {
            self.ask();
        }
        self.began = Some(Instant::now());
    }
}

/// Whether a fault means that nobody is at the other end.
fn is_absence(fault: &Fault) -> bool {
    matches!(fault.errno, Errno::ENOENT | Errno::ECONNRESET)
}
