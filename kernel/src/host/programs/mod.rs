//! Programs that are processes: their start in the jail, their connection, what they print, their end.
//!
//! A task of its own stands by each from its start to `ProgramEnded`, which it always sends, and sends last, or to
//! `ProgramRefused`. The program inherits its end of a connection, as the descriptor that `LLMASOS_SOCKET_FD` names,
//! so it is known for that process whatever it says. It leads a process group that nothing in the jail can leave; the
//! whole group is signalled together, and ends with it.

mod launch;
mod leader;
mod printing;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use syscalls::{Errno, Fault, Pid, call};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::input::Input;
use super::places::{Place, Places};
use super::starter::Starter;
use crate::core::effect::Program;
use crate::core::event::Event;
use launch::launch;
use leader::Leader;
use printing::{BATCHES_WAITING_MAX, Printing};

/// How long the group of a program that was killed may take to go.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// How long the last words of a program may take that somebody else still holds the pipe of.
const LAST_WORDS_PATIENCE: Duration = Duration::from_millis(500);

/// How long programs may take to finish when the daemon ends.
const END_GRACE: Duration = Duration::from_secs(2);

/// A program that has not ended.
#[derive(Debug)]
struct Alive {
    /// Tells its task to end it, within so long.
    stop: Option<oneshot::Sender<Duration>>,
    /// Its process, once it runs.
    leader: Option<Arc<Leader>>,
}

/// All programs that have not ended.
#[derive(Debug)]
pub struct Programs {
    starter: Arc<Starter>,
    socket: PathBuf,
    places: Arc<Places>,
    inputs: mpsc::Sender<Input>,
    /// The room for what they print and the kernel has not taken in.
    batches: Arc<Semaphore>,
    alive: BTreeMap<Pid, Alive>,
}

impl Programs {
    /// No programs yet. They connect on `socket` again where they need more than one connection, have their places among
    /// the connections, and are reported to `inputs`.
    pub fn new(
        starter: Arc<Starter>,
        socket: PathBuf,
        places: Arc<Places>,
        inputs: mpsc::Sender<Input>,
    ) -> Self {
        let batches = Arc::new(Semaphore::new(BATCHES_WAITING_MAX));
        Programs { starter, socket, places, inputs, batches, alive: BTreeMap::new() }
    }

    /// Starts a program.
    pub fn start(&mut self, pid: Pid, program: &Program) {
        let started = self.launch(pid, program);
        let (stop, stopped) = oneshot::channel();
        let leader = started.as_ref().ok().map(|(running, ..)| Arc::clone(&running.leader));
        self.alive.insert(pid, Alive { stop: Some(stop), leader });
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let event = match started {
                Ok((running, socket, place)) => {
                    let os_pid = running.leader.os_pid();
                    // The main loop is gone only when the daemon ends.
                    let _ = inputs.send(Input::ProgramStarted { pid, os_pid, socket, place }).await;
                    running.stand_by(stopped).await
                }
                Err(fault) => Event::ProgramRefused { pid, fault },
            };
            // As above.
            let _ = inputs.send(Input::Worker(event)).await;
        });
    }

    fn launch(&self, pid: Pid, program: &Program) -> Result<(Running, UnixStream, Place), Fault> {
        let place = self.places.take()?;
        let (mut child, socket) = launch(&self.starter, &self.socket, program)?;
        let unwatched = |e| Fault::new(Errno::EIO, format!("{} cannot be watched: {e}", program.argv[0]));
        let leader = Arc::new(Leader::of(&child).map_err(unwatched)?);
        let printing = Printing::begin(pid, &mut child, &self.batches, &self.inputs);
        Ok((Running { pid, child, leader, printing }, socket, place))
    }

    /// Sends a signal to a program and all that it has started.
    pub fn signal(&self, pid: Pid, signal: call::Signal) {
        if let Some(leader) = self.alive.get(&pid).and_then(|alive| alive.leader.as_ref()) {
            leader.signal_group(of_system(signal));
        }
    }

    /// Asks a program to end, and kills it after the time that it is given.
    pub fn stop(&mut self, pid: Pid, grace: Duration) {
        if let Some(stop) = self.alive.get_mut(&pid).and_then(|alive| alive.stop.take()) {
            // It fails where the program has just ended.
            let _ = stop.send(grace);
        }
    }

    /// Its end was reported.
    pub fn ended(&mut self, pid: Pid) {
        self.alive.remove(&pid);
    }

    /// Ends all programs when the daemon ends, with a little time to finish.
    pub async fn end(&mut self, inputs: &mut mpsc::Receiver<Input>) {
        let pids: Vec<Pid> = self.alive.keys().copied().collect();
        pids.into_iter().for_each(|pid| self.stop(pid, END_GRACE));
        let deadline = Instant::now() + END_GRACE + KILL_PATIENCE;
        while !self.alive.is_empty() {
            match timeout_at(deadline, inputs.recv()).await {
                Ok(Some(Input::Worker(
                    Event::ProgramEnded { pid, .. } | Event::ProgramRefused { pid, .. },
                ))) => self.ended(pid),
                Ok(Some(_)) => {}
                // The rest is killed with the tasks that stand by it.
                Ok(None) | Err(_) => return,
            }
        }
    }
}

/// A program that runs, with what its task has of it.
struct Running {
    pid: Pid,
    child: Child,
    leader: Arc<Leader>,
    printing: Printing,
}

impl Running {
    /// Stays with a program to its end, which it gives.
    async fn stand_by(self, stopped: oneshot::Receiver<Duration>) -> Event {
        let Running { pid, child, leader, printing } = self;
        tokio::select! {
            () = leader.ended() => {}
            // Nobody gives it time where the main loop is gone.
            grace = stopped => leader.end(grace.unwrap_or(Duration::ZERO), KILL_PATIENCE).await,
        }
        // What it has started goes with it, while its number is still its own.
        leader.signal_group(Signal::SIGKILL);
        let status = leader.reap(child).await;
        printing.finish(LAST_WORDS_PATIENCE).await;
        Event::ProgramEnded { pid, status }
    }
}

impl Leader {
    /// Asks a program to end, and kills it where it has not after so long.
    async fn end(&self, grace: Duration, patience: Duration) {
        if !grace.is_zero() {
            self.signal_group(Signal::SIGTERM);
            // One that is held ends when it goes on.
            self.signal_group(Signal::SIGCONT);
            if timeout(grace, self.ended()).await.is_ok() {
                return;
            }
        }
        self.signal_group(Signal::SIGKILL);
        // One that the system cannot kill, since it waits for a disk that does not answer, is given up.
        let _ = timeout(patience, self.ended()).await;
    }
}

/// The operating system's signal of this name.
fn of_system(signal: call::Signal) -> Signal {
    match signal {
        call::Signal::Int => Signal::SIGINT,
        call::Signal::Term => Signal::SIGTERM,
        call::Signal::Kill => Signal::SIGKILL,
        call::Signal::Stop => Signal::SIGSTOP,
        call::Signal::Cont => Signal::SIGCONT,
        call::Signal::Xcpu => Signal::SIGXCPU,
    }
}
