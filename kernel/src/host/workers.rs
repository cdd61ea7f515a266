//! The workers that the main loop speaks to.
//!
//! Each has a [`Supervisor`] that stands by it. Here is the other half: what the loop has to say to it, and the
//! means to stop it. A worker is known from the effect that asked for it until its death was reported.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use drivers::wire::{LoadRequest, ToWorker, encode};
use syscalls::limits::WORKER_BYTES_WAITING_MAX;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::digest::Digests;
use super::input::Input;
use super::outbox::Outbox;
use super::starter::Starter;
use super::swap::SwapFiles;
use super::worker::{EXIT_PATIENCE, Kill, Supervisor};
use crate::core::event::{Event, WorkerId};
use crate::core::registration::Digest;

/// How long workers may take to be gone when the daemon ends.
pub const END_PATIENCE: Duration = EXIT_PATIENCE.saturating_add(Duration::from_secs(1));

/// All workers that have not died.
#[derive(Debug)]
pub struct Workers {
    program: PathBuf,
    starter: Arc<Starter>,
    digests: Arc<Digests>,
    inputs: mpsc::Sender<Input>,
    alive: BTreeMap<WorkerId, Worker>,
    /// Some of them were spoken to since the last flush.
    spoken_to: bool,
}

/// The loop's side of a worker.
#[derive(Debug)]
struct Worker {
    /// None until it is started.
    link: Option<Arc<UnixStream>>,
    outbox: Outbox,
    awaits_writable: bool,
    /// Dropped to stop it, used to kill it.
    stop: Option<oneshot::Sender<Kill>>,
}

impl Workers {
    /// No workers yet; they will run `program` and report to `inputs`.
    pub fn new(
        program: PathBuf,
        starter: Arc<Starter>,
        digests: Arc<Digests>,
        inputs: mpsc::Sender<Input>,
    ) -> Self {
        Workers { program, starter, digests, inputs, alive: BTreeMap::new(), spoken_to: false }
    }

    /// Starts a worker after a delay, on a file of this digest; it inherits the swap files.
    pub fn start(
        &mut self,
        worker: WorkerId,
        load: Box<LoadRequest>,
        digest: Option<Digest>,
        swap: Arc<SwapFiles>,
        delay: Duration,
    ) {
        let (stop, stopped) = oneshot::channel();
        let (program, starter, inputs) =
            (self.program.clone(), Arc::clone(&self.starter), self.inputs.clone());
        let digests = Arc::clone(&self.digests);
        let supervisor = Supervisor {
            worker,
            load,
            digest,
            digests,
            swap,
            delay,
            patience: EXIT_PATIENCE,
            program,
            starter,
            inputs,
            stop: stopped,
        };
        tokio::spawn(supervisor.run());
        let outbox = Outbox::default();
        self.alive.insert(worker, Worker { link: None, outbox, awaits_writable: false, stop: Some(stop) });
    }

    /// The worker runs and can be spoken to.
    pub fn started(&mut self, worker: WorkerId, link: Arc<UnixStream>) {
        if let Some(worker) = self.alive.get_mut(&worker) {
            worker.link = Some(link);
            self.spoken_to = true;
        }
    }

    /// Stops a worker; its death will be reported.
    pub fn stop(&mut self, worker: WorkerId) {
        if let Some(worker) = self.alive.get_mut(&worker) {
            drop(worker.stop.take());
        }
    }

    /// Kills a worker; its death will be reported.
    pub fn kill(&mut self, worker: WorkerId) {
        if let Some(stop) = self.alive.get_mut(&worker).and_then(|worker| worker.stop.take()) {
            // It fails where the worker has just ended.
            let _ = stop.send(Kill);
        }
    }

    /// Its death was reported.
    pub fn died(&mut self, worker: WorkerId) {
        self.alive.remove(&worker);
    }

    /// A worker that did not read can be written to again.
    pub fn writable(&mut self, worker: WorkerId) {
        if let Some(worker) = self.alive.get_mut(&worker) {
            worker.awaits_writable = false;
            self.spoken_to = true;
        }
    }

    /// Appends a message to what the turn will write. One to a worker that is gone is lost with it.
    ///
    /// # Errors
    ///
    /// The message is larger than the wire allows.
    pub fn say(&mut self, worker: WorkerId, message: &ToWorker) -> io::Result<()> {
        let Some(worker) = self.alive.get_mut(&worker) else { return Ok(()) };
        self.spoken_to = true;
        encode(message, worker.outbox.end())
    }

    /// Writes what the workers take.
    pub fn flush(&mut self) {
        if !std::mem::take(&mut self.spoken_to) {
            return;
        }
        for (id, worker) in &mut self.alive {
            let Some(link) = &worker.link else { continue };
            match worker.outbox.write_to(link) {
                Ok(true) => {}
                Ok(false) if worker.outbox.waiting() > WORKER_BYTES_WAITING_MAX => {
                    tracing::error!(
                        "worker {} of model {} does not read; stopping it",
                        id.incarnation,
                        id.model.0
                    );
                    drop(worker.stop.take());
                }
                Ok(false) if worker.awaits_writable => {}
                Ok(false) => {
                    worker.awaits_writable = true;
                    let (worker, link, inputs) = (*id, Arc::clone(link), self.inputs.clone());
                    tokio::spawn(async move {
                        // An error is an end of the worker, which its supervisor finds.
                        let _ = link.writable().await;
                        // The loop is gone only when the daemon ends.
                        let _ = inputs.send(Input::WorkerWritable { worker }).await;
                    });
                }
                // It is gone; its supervisor reports that.
                Err(_) => worker.link = None,
            }
        }
    }

    /// Stops all workers and waits for their ends, or kills them.
    pub async fn end(&mut self, inputs: &mut mpsc::Receiver<Input>) {
        for worker in self.alive.values_mut() {
            drop(worker.stop.take());
        }
        let deadline = Instant::now() + END_PATIENCE;
        while !self.alive.is_empty() {
            match timeout_at(deadline, inputs.recv()).await {
                Ok(Some(Input::Worker(Event::WorkerDied { worker, .. }))) => self.died(worker),
                Ok(Some(_)) => {}
                // The rest is killed when their supervisors are dropped.
                Ok(None) | Err(_) => return,
            }
        }
    }
}
