//! Programs that are processes: their start in the jail, their connection, what they print, their end.
//!
//! A task of its own stands by each from the effect that asked for it to `ProgramEnded`, which it always sends, and sends
//! last, or to `ProgramRefused`. It looks the program up first, which may wait for the network and holds nothing else up
//! (`lookup.rs`); one that is told to end meanwhile is never started. The program inherits its end of a connection, as the descriptor that `LLMASOS_SOCKET_FD` names,
//! so it is known for that process whatever it says. It leads a process group that nothing in the jail can leave; the
//! whole group is signalled together, and ends with it.

mod launch;
mod leader;
mod lookup;
mod printing;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::sys::signal::Signal;
use syscalls::{Errno, Fault, Pid, call};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::input::Input;
use super::places::{Place, Places};
use super::starter::Starter;
use crate::core::effect::Program;
use crate::core::event::Event;
use launch::{launch, look_up};
use leader::Leader;
use lookup::{Lookups, PATIENCE};
use printing::{BATCHES_WAITING_MAX, Printing};

/// How long the group of a program that was killed may take to go.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// How long the last words of a program may take that somebody else still holds the pipe of.
const LAST_WORDS_PATIENCE: Duration = Duration::from_millis(500);

/// How long programs may take to finish when the daemon ends.
const END_GRACE: Duration = Duration::from_secs(2);

/// How long programs may take to be gone when the daemon ends.
pub const END_PATIENCE: Duration = END_GRACE.saturating_add(KILL_PATIENCE);

/// A program that has not ended.
#[derive(Debug)]
struct Alive {
    /// Tells its task to end it, and when to kill it.
    kill_at: watch::Sender<Option<Instant>>,
    /// Its process, once it runs.
    leader: Arc<OnceLock<Arc<Leader>>>,
}

/// All programs that have not ended.
#[derive(Debug)]
pub struct Programs {
    places: Arc<Places>,
    means: Means,
    alive: BTreeMap<Pid, Alive>,
}

/// What the task of each program has to start it with.
#[derive(Clone, Debug)]
struct Means {
    starter: Arc<Starter>,
    socket: Arc<Path>,
    inputs: mpsc::Sender<Input>,
    /// The room for what they print and the kernel has not taken in.
    batches: Arc<Semaphore>,
    lookups: Arc<Lookups>,
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
        let lookups = Arc::new(Lookups::new(Arc::new(look_up), PATIENCE));
        let means = Means { starter, socket: socket.into(), inputs, batches, lookups };
        Programs { places, means, alive: BTreeMap::new() }
    }

    /// Starts a program.
    pub fn start(&mut self, pid: Pid, program: Box<Program>) {
        let (kill_at, told) = watch::channel(None);
        let leader = Arc::default();
        self.alive.insert(pid, Alive { kill_at, leader: Arc::clone(&leader) });
        let place = self.places.take();
        let beginning = Beginning { pid, program, means: self.means.clone(), leader };
        tokio::spawn(beginning.run(place, told));
    }

    /// Sends a signal to a program and all that it has started.
    pub fn signal(&self, pid: Pid, signal: call::Signal) {
        if let Some(leader) = self.alive.get(&pid).and_then(|alive| alive.leader.get()) {
            leader.signal_group(of_system(signal));
        }
    }

    /// Asks a program to end, and kills it after the time that it is given.
    pub fn stop(&mut self, pid: Pid, grace: Duration) {
        let at = Instant::now() + grace;
        if let Some(alive) = self.alive.get(&pid) {
            // Whoever has less patience than those before him is heard.
            alive.kill_at.send_if_modified(|kill_at| {
                let sooner = kill_at.is_none_or(|before| at < before);
                if sooner {
                    *kill_at = Some(at);
                }
                sooner
            });
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
        let deadline = Instant::now() + END_PATIENCE;
        while !self.alive.is_empty() {
            match timeout_at(deadline, inputs.recv()).await {
                Ok(Some(Input::Worker(
                    Event::ProgramEnded { pid, .. } | Event::ProgramRefused { pid, .. },
                ))) => self.ended(pid),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        // Dropping the tasks that stand by the rest would kill the first process of each alone.
        self.alive.values().filter_map(|alive| alive.leader.get()).for_each(|leader| {
            leader.signal_group(Signal::SIGKILL);
        });
    }
}

/// A program that is to be started.
struct Beginning {
    pid: Pid,
    program: Box<Program>,
    means: Means,
    /// Where its process is told of.
    leader: Arc<OnceLock<Arc<Leader>>>,
}

impl Beginning {
    /// Starts it and stays with it to its end.
    async fn run(self, place: Result<Place, Fault>, mut told: watch::Receiver<Option<Instant>>) {
        let (pid, uid, inputs) = (self.pid, self.program.uid, self.means.inputs.clone());
        let event = match self.begin(place, &mut told).await {
            Ok((running, socket, place)) => {
                let os_pid = running.leader.os_pid();
                // The main loop is gone only when the daemon ends.
                let _ = inputs.send(Input::ProgramStarted { pid, uid, os_pid, socket, place }).await;
                running.stand_by(told).await
            }
            Err(fault) => Event::ProgramRefused { pid, fault },
        };
        // As above.
        let _ = inputs.send(Input::Worker(event)).await;
    }

    async fn begin(
        self,
        place: Result<Place, Fault>,
        told: &mut watch::Receiver<Option<Instant>>,
    ) -> Result<(Running, UnixStream, Place), Fault> {
        let Beginning { pid, program, means, leader } = self;
        let place = place?;
        let found = tokio::select! {
            biased;
            () = is_to_end(told) => return Err(ended_before(&program)),
            found = means.lookups.look_up(&program) => found?,
        };
        let (mut child, socket) = launch(&means.starter, &means.socket, &program, found)?;
        let unwatched = |e| Fault::new(Errno::EIO, format!("{} cannot be watched: {e}", program.argv[0]));
        let own = Arc::new(Leader::of(&child).map_err(unwatched)?);
        // Nobody else sets it.
        let _ = leader.set(Arc::clone(&own));
        let printing = Printing::begin(pid, &mut child, &means.batches, &means.inputs);
        Ok((Running { pid, child, leader: own, printing }, socket, place))
    }
}

/// Waits until a program is told to end.
async fn is_to_end(told: &mut watch::Receiver<Option<Instant>>) {
    // Where the main loop is gone, nobody wants it any more.
    let _ = told.wait_for(Option::is_some).await;
}

fn ended_before(program: &Program) -> Fault {
    Fault::new(Errno::ECANCELED, format!("{} was told to end before it was started", program.argv[0]))
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
    async fn stand_by(self, told: watch::Receiver<Option<Instant>>) -> Event {
        let Running { pid, child, leader, printing } = self;
        tokio::select! {
            () = leader.ended() => {}
            () = leader.end(told, KILL_PATIENCE) => {}
        }
        // What it has started goes with it, while its number is still its own.
        leader.signal_group(Signal::SIGKILL);
        let status = leader.reap(child).await;
        printing.finish(LAST_WORDS_PATIENCE).await;
        Event::ProgramEnded { pid, status }
    }
}

impl Leader {
    /// Ends a program when it is told to: asks it first where there is time, and kills it when that is over.
    async fn end(&self, mut told: watch::Receiver<Option<Instant>>, patience: Duration) {
        // Nobody gives it time where the main loop is gone.
        let kill_at = told.wait_for(Option::is_some).await.ok().and_then(|at| *at);
        if kill_at.is_some_and(|at| at > Instant::now()) {
            self.signal_group(Signal::SIGTERM);
            // One that is held ends when it goes on.
            self.signal_group(Signal::SIGCONT);
            if self.ends_in_time(told).await {
                return;
            }
        }
        self.signal_group(Signal::SIGKILL);
        // One that the system cannot kill, since it waits for a disk that does not answer, is given up.
        let _ = timeout(patience, self.ended()).await;
    }

    /// Whether it ends before it is to be killed, which may come to be sooner.
    async fn ends_in_time(&self, mut told: watch::Receiver<Option<Instant>>) -> bool {
        loop {
            let kill_at = (*told.borrow_and_update()).unwrap_or_else(Instant::now);
            tokio::select! {
                () = self.ended() => return true,
                () = sleep_until(kill_at) => return false,
                changed = told.changed() => if changed.is_err() { return false },
            }
        }
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

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use tokio::io::AsyncReadExt;
    use tokio::process::Command;

    use super::lookup::Found;
    use super::*;

    /// How long anything here may take.
    const DEADLINE: Duration = Duration::from_secs(60);

    /// Programs that are looked up in a way of the test's, and what the main loop hears of them.
    fn programs(
        find: impl Fn(&Program) -> Result<Found, Fault> + Send + Sync + 'static,
    ) -> (Programs, mpsc::Receiver<Input>) {
        let (inputs, heard) = mpsc::channel(16);
        let (starter, places) = (Arc::default(), Arc::new(Places::new(8)));
        let mut programs = Programs::new(starter, "/nonexistent/socket".into(), places, inputs);
        programs.means.lookups = Arc::new(Lookups::new(Arc::new(find), Duration::from_secs(3600)));
        (programs, heard)
    }

    async fn next(heard: &mut mpsc::Receiver<Input>) -> Input {
        timeout(DEADLINE, heard.recv()).await.expect("something is said").expect("the main loop is there")
    }

    /// Programs whose look-up hangs if they are called `hangs`, for as long as the sender is there.
    fn hanging() -> (Programs, mpsc::Receiver<Input>, std::sync::mpsc::Sender<()>) {
        let (go_on, goes_on) = std::sync::mpsc::channel::<()>();
        let goes_on = std::sync::Mutex::new(goes_on);
        let (programs, heard) = programs(move |program| {
            if program.argv[0] == "hangs" {
                let _ = goes_on.lock().map(|goes_on| goes_on.recv());
            }
            Ok(Found { path: "/bin/true".into(), user: None })
        });
        (programs, heard, go_on)
    }

    fn called(name: &str) -> Box<Program> {
        Box::new(Program::new(vec![name.into()], nix::unistd::getuid().as_raw()))
    }

    #[tokio::test(flavor = "current_thread")]
    async fn program_whose_look_up_hangs_holds_nobody_up_and_is_never_started_when_it_is_told_to_end() {
        let (mut programs, mut heard, go_on) = hanging();
        programs.start(Pid(2), called("hangs"));
        programs.start(Pid(3), called("found"));
        let started = next(&mut heard).await;
        assert!(matches!(started, Input::ProgramStarted { pid: Pid(3), .. }), "{started:?}");
        let ended = next(&mut heard).await;
        let expected = Event::ProgramEnded { pid: Pid(3), status: 0 };
        assert!(matches!(&ended, Input::Worker(event) if *event == expected), "{ended:?}");
        programs.stop(Pid(2), Duration::from_secs(3600));
        let refused = next(&mut heard).await;
        let Input::Worker(Event::ProgramRefused { pid: Pid(2), fault }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(fault.errno, Errno::ECANCELED);
        // Nor is it started when it is found at last.
        drop(go_on);
        programs.start(Pid(4), called("found"));
        let last = next(&mut heard).await;
        assert!(matches!(last, Input::ProgramStarted { pid: Pid(4), .. }), "{last:?}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn daemon_ends_while_a_look_up_hangs() {
        let (mut programs, mut heard, _go_on) = hanging();
        programs.start(Pid(2), called("hangs"));
        timeout(DEADLINE, programs.end(&mut heard)).await.expect("nobody waits for it");
        assert!(programs.alive.is_empty(), "it was refused, and not given up");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn program_that_was_given_long_is_killed_when_somebody_has_less_patience() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "trap '' TERM; echo trapped; while :; do sleep 600; done"]);
        let mut child = command.process_group(0).stdout(Stdio::piped()).spawn().expect("starts");
        let mut line = [0; 8];
        child.stdout.take().expect("a pipe").read_exact(&mut line).await.expect("it says so");
        let leader = Leader::of(&child).expect("it runs");
        let (kill_at, told) = watch::channel(Some(Instant::now() + Duration::from_secs(3600)));
        let mut ending = std::pin::pin!(leader.end(told, KILL_PATIENCE));
        assert!(
            timeout(Duration::from_millis(50), &mut ending).await.is_err(),
            "it ignores that it is asked"
        );
        kill_at.send(Some(Instant::now())).expect("its task stands by it");
        timeout(DEADLINE, ending).await.expect("it is killed");
        leader.signal_group(Signal::SIGKILL);
        assert_eq!(leader.reap(child).await, 128 + 9);
    }
}
