//! One worker process: its start, its words, its end.
//!
//! A task of its own stands by each worker from the effect that asked for it until `WorkerDied`, which it always
//! sends, and sends last. Restarts are the kernel's decision: each one is a new worker with its own task.
//!
//! A worker runs foreign C++ on foreign files. So its words are read with bounds, nonsense ends it, and when it
//! is told to stop and does not, it is killed. It dies with the daemon (it reads the end of its socket, and the
//! system kills it), and a terminal's Ctrl-C does not reach it.

mod start;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use drivers::files::ModelFiles;
use drivers::wire::{FromWorker, LoadRequest, decode};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use start::{NotStarted, open_model, spawn};

use super::digest::Digests;
use super::input::Input;
use super::starter::{Starter, own_cache};
use super::swap::SwapFiles;
use crate::core::event::{Event, WorkerId};
use crate::core::registration::Digest;

/// How long workers may take to exit.
pub const EXIT_PATIENCE: Duration = Duration::from_secs(2);

/// Bytes that one read takes at most.
const READ_BYTES: usize = 64 << 10;

/// What the task of a worker needs.
pub struct Supervisor {
    pub worker: WorkerId,
    pub load: Box<LoadRequest>,
    /// What the model's file must be, where it has one.
    pub digest: Option<Digest>,
    pub digests: Arc<Digests>,
    /// The model's swap files, which the worker inherits.
    pub swap: Arc<SwapFiles>,
    /// To wait before the start.
    pub delay: Duration,
    /// How long the worker may take to exit after its socket was closed, before it is killed.
    pub patience: Duration,
    /// The executable.
    pub program: PathBuf,
    pub starter: Arc<Starter>,
    pub inputs: mpsc::Sender<Input>,
    /// Kills the worker when something is sent, and asks it to end when the sender is dropped.
    pub stop: oneshot::Receiver<Kill>,
}

/// That a worker is to be killed at once.
#[derive(Debug)]
pub struct Kill;

/// Why the task stopped to listen to its worker.
enum End {
    /// It closed its socket.
    Hangup,
    /// It exited, while somebody else still held its socket.
    Exited(ExitStatus),
    /// It said what cannot be understood.
    Nonsense(io::Error),
    /// Its model's file is not the one that it was when its start was allowed.
    OtherFile,
    /// It was told to stop.
    Stopped,
    /// It is to be killed, since it hangs or cannot be relied on.
    Killed,
}

/// What has come of a worker.
struct Heard {
    /// Of messages that are not whole yet.
    bytes: Vec<u8>,
    /// The files of its model, until it has loaded them.
    files: Option<ModelFiles>,
}

impl Supervisor {
    /// Starts the worker, passes on what it says, and reports its end.
    pub async fn run(mut self) {
        let worker = self.worker;
        let how = match self.live().await {
            Ok(how) => how,
            Err(why) => {
                if let Some(fault) = why.fault() {
                    self.say(Event::WorkerRefused { worker, fault }).await;
                }
                why.how()
            }
        };
        self.say(Event::WorkerDied { worker, how }).await;
    }

    async fn live(&mut self) -> Result<String, NotStarted> {
        let Supervisor { load, digest, digests, delay, stop, .. } = self;
        let opened = async {
            sleep(*delay).await;
            open_model(load, *digest, digests).await
        };
        let files = tokio::select! {
            _ = stop => return Ok("stopped before it was started".into()),
            opened = opened => opened?,
        };
        self.load.files = files.as_ref().map(ModelFiles::descriptors).unwrap_or_default();
        let refused = NotStarted::about("its connection");
        let (near, far) = std::os::unix::net::UnixStream::pair().map_err(&refused)?;
        near.set_nonblocking(true).map_err(&refused)?;
        let link = Arc::new(UnixStream::from_std(near).map_err(&refused)?);
        self.load.swap = self.swap.area();
        self.load.cache_dir =
            self.load.cache_dir.take().and_then(|all| own_cache(&all, self.digest.as_ref()));
        let mut child = spawn(&self.starter, &self.program, &self.load, far.into())?;
        let os_pid = child.id().unwrap_or_default();
        let started = Input::WorkerStarted { worker: self.worker, link: Arc::clone(&link) };
        // The main loop is gone only when the daemon ends.
        let _ = self.inputs.send(started).await;
        let end = self.listen(&mut child, &link, os_pid, files).await;
        let how = conclude(end, child, &link, (os_pid, self.patience)).await;
        // One that was taken over may have left children behind. They are in its group, which the jail lets none of them leave.
        kill_group(os_pid);
        Ok(how)
    }

    /// Whether nobody has written to the files while the worker loaded them.
    fn are_whole(&self, files: &ModelFiles) -> bool {
        self.digest.is_none_or(|digest| self.digests.are_still(files, &digest))
    }

    /// Passes on what the worker says until one of its ends comes.
    async fn listen(
        &mut self,
        child: &mut Child,
        link: &UnixStream,
        os_pid: u32,
        files: Option<ModelFiles>,
    ) -> End {
        let mut heard = Heard { bytes: Vec::new(), files };
        loop {
            let exited = tokio::select! {
                biased;
                stop = &mut self.stop => return if stop.is_ok() { End::Killed } else { End::Stopped },
                _ = link.readable() => None,
                status = child.wait() => status.ok(),
            };
            // What it said before it exited still counts.
            match (self.pass_on(link, &mut heard, os_pid).await, exited) {
                (Ok(_), Some(status)) => return End::Exited(status),
                (Ok(true), None) => {}
                (Ok(false), None) => return End::Hangup,
                (Err(e), _) if e.kind() == io::ErrorKind::InvalidData => return End::Nonsense(e),
                (Err(e), _) if e.kind() == io::ErrorKind::StaleNetworkFileHandle => return End::OtherFile,
                (Err(_), _) => return End::Hangup,
            }
        }
    }

    /// Passes on all that has come. Gives whether more can come.
    async fn pass_on(&self, link: &UnixStream, heard: &mut Heard, os_pid: u32) -> io::Result<bool> {
        loop {
            match read_some(link, &mut heard.bytes) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            let mut used = 0;
            while let Some((message, bytes)) = decode::<FromWorker>(&heard.bytes[used..])? {
                used += bytes;
                // It has mapped them, and nobody needs them open any more.
                let loaded = matches!(message, FromWorker::Ready(_)).then(|| heard.files.take()).flatten();
                if loaded.is_some_and(|files| !self.are_whole(&files)) {
                    return Err(io::ErrorKind::StaleNetworkFileHandle.into());
                }
                self.say(event(self.worker, os_pid, message)).await;
            }
            heard.bytes.drain(..used);
        }
    }

    async fn say(&self, event: Event) {
        // The main loop is gone only when the daemon ends.
        let _ = self.inputs.send(Input::Worker(event)).await;
    }
}

/// Sees the worker off, and says how it ended.
async fn conclude(
    end: End,
    mut child: Child,
    link: &UnixStream,
    (os_pid, patience): (u32, Duration),
) -> String {
    let said = match end {
        End::Exited(status) => return describe(status),
        End::Hangup => None,
        End::Stopped => {
            close(link);
            None
        }
        End::Killed => {
            kill_group(os_pid);
            None
        }
        End::Nonsense(e) => {
            kill_group(os_pid);
            Some(format!("spoke nonsense: {e}"))
        }
        End::OtherFile => {
            kill_group(os_pid);
            Some("somebody wrote to its model's file while it was loaded".into())
        }
    };
    let status = match timeout(patience, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            kill_group(os_pid);
            child.wait().await
        }
    };
    said.unwrap_or_else(|| status.map_or_else(|e| format!("could not be waited for: {e}"), describe))
}

fn close(link: &UnixStream) {
    // It fails where the worker is gone already.
    let _ =
        nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(link), nix::sys::socket::Shutdown::Both);
}

/// Kills the worker and the children that it probes itself with.
fn kill_group(os_pid: u32) {
    match i32::try_from(os_pid) {
        // It fails where all of them are gone already.
        Ok(pid) if pid > 1 => drop(killpg(Pid::from_raw(pid), Signal::SIGKILL)),
        _ => {}
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(number), _) => match Signal::try_from(number) {
            Ok(signal) => format!("killed by {}", signal.as_str()),
            Err(_) => format!("killed by signal {number}"),
        },
        (None, code) => format!("exit status {}", code.unwrap_or_default()),
    }
}

fn read_some(link: &UnixStream, into: &mut Vec<u8>) -> io::Result<usize> {
    let mut buffer = [0; READ_BYTES];
    let bytes = link.try_read(&mut buffer)?;
    into.extend_from_slice(&buffer[..bytes]);
    Ok(bytes)
}

fn event(worker: WorkerId, os_pid: u32, message: FromWorker) -> Event {
    match message {
        FromWorker::Ready(description) => Event::WorkerReady { worker, os_pid, description },
        FromWorker::Refused(fault) => Event::WorkerRefused { worker, fault },
        FromWorker::Loading(fraction) => Event::WorkerLoading { worker, os_pid, fraction },
        FromWorker::Done(done) => Event::StepDone { worker, done },
        FromWorker::StepFailed(number, fault) => Event::StepFailed { worker, number, fault },
        FromWorker::Answer(number, answer) => Event::Answered { worker, number, answer },
    }
}
