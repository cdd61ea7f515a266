//! The main loop: takes an input, steps the kernel, performs the effects.
//!
//! A turn takes what is there, up to a bound, and then writes what it has to say: all that one turn has for one
//! peer leaves in one write, workers first, because they hold the device up. The loop waits nowhere but for
//! inputs, with one exception: a record is durable before the effects behind it are performed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use drivers::wire::{DriverFault, ToWorker};
use syscalls::limits::{CALLS_IN_FLIGHT_MAX, OUTPUT_BYTES_HIGH, OUTPUT_BYTES_MAX, REQUEST_BYTES_WAITING_MAX};
use syscalls::{CallId, Errno, Fault, Frame, Pid, Request};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::connection::{Connection, Flushed, Level, Reader, answer_id};
use super::digest::Digests;
use super::input::Input;
use super::inspect::Inspector;
use super::log;
use super::programs::Programs;
use super::settings::{Flags, Settings};
use super::starter::Starter;
use super::store::journal::Journal;
use super::store::values::ValuesThread;
use super::store::{Change, StoreThread};
use super::swap::Swaps;
use super::systemd::ServiceManager;
use super::watch::Watch;
use super::workers::Workers;
use crate::core::Kernel;
use crate::core::effect::{Effect, Record};
use crate::core::event::{ConnId, Credentials, Event, Now};
use crate::core::image::Entry;

/// Inputs of one turn: enough to gather the writes of a burst, few enough that nobody waits long for his.
const TURN_INPUTS_MAX: usize = 64;

/// How long the kernel may take to end after it was asked to, beside what it takes to write pages.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// How long programs may take to read the last words.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(2);

/// What the loop is given to act with.
pub struct Means {
    pub store: StoreThread,
    pub values: ValuesThread,
    pub journal: Journal,
    pub swaps: Swaps,
    /// The worker's executable.
    pub driver: PathBuf,
    pub programs: Programs,
    /// Which files models are.
    pub digests: Arc<Digests>,
    /// What starts workers.
    pub starter: Arc<Starter>,
    /// What the configuration is settled from.
    pub flags: Flags,
    /// How long the kernel may take to write pages when it is asked to end.
    pub save_at_end: Duration,
}

/// The kernel and all that it acts on.
pub struct Reactor {
    kernel: Kernel,
    started: Instant,
    effects: Vec<Effect>,
    /// What the host has to tell the kernel after the effects at hand.
    pending: VecDeque<Event>,
    connections: BTreeMap<ConnId, Connection>,
    connections_so_far: u64,
    watch: Watch,
    /// Connections that something was said to in this turn.
    spoken_to: BTreeSet<ConnId>,
    workers: Workers,
    programs: Programs,
    /// The processes of programs that run, by the leaders of their process groups.
    program_groups: BTreeMap<u32, Pid>,
    inspector: Inspector,
    swaps: Swaps,
    wake_at: Option<Instant>,
    store: StoreThread,
    journal: Journal,
    /// The last write of the journal failed.
    journal_fails: bool,
    values: ValuesThread,
    /// The room for requests that wait.
    memory: Arc<Semaphore>,
    inputs: mpsc::Sender<Input>,
    manager: ServiceManager,
    /// What the configuration is settled from.
    flags: Flags,
    /// How long it may take to end when it is asked to.
    end_patience: Duration,
    /// When to end although the kernel has not: set when the daemon is asked to end.
    give_up_at: Option<Instant>,
    ended: bool,
}

impl Reactor {
    /// Puts the loop together; `urgent` and `inputs` are where its tasks send to.
    pub fn new(
        kernel: Kernel,
        means: Means,
        urgent: mpsc::Sender<Input>,
        inputs: mpsc::Sender<Input>,
    ) -> Self {
        let Means { store, values, journal, swaps, driver, programs, digests, starter, flags, save_at_end } =
            means;
        let journal_fails = journal.retry_at().is_some();
        Reactor {
            kernel,
            started: Instant::now(),
            effects: Vec::new(),
            pending: VecDeque::new(),
            connections: BTreeMap::new(),
            connections_so_far: 0,
            watch: Watch::new(inputs.clone()),
            spoken_to: BTreeSet::new(),
            inspector: Inspector::new(urgent.clone(), Arc::clone(&digests)),
            programs,
            program_groups: BTreeMap::new(),
            workers: Workers::new(driver, starter, digests, urgent),
            swaps,
            wake_at: None,
            store,
            journal,
            journal_fails,
            values,
            memory: Arc::new(Semaphore::new(REQUEST_BYTES_WAITING_MAX)),
            inputs,
            manager: ServiceManager::find(),
            flags,
            end_patience: END_PATIENCE + save_at_end,
            give_up_at: None,
            ended: false,
        }
    }

    /// Runs until the kernel ends.
    pub async fn run(
        mut self,
        mut urgent: mpsc::Receiver<Input>,
        mut others: mpsc::Receiver<Input>,
        records: Vec<Record>,
    ) {
        self.step(Event::Booted { records }).await;
        while !self.ended {
            self.flush_all().await;
            tokio::select! {
                biased;
                Some(input) = urgent.recv() => self.react(input).await,
                Some(input) = others.recv() => self.react(input).await,
                () = sleep_or_never(self.wake_at) => {}
                () = sleep_or_never(self.manager.next()) => {}
                () = sleep_or_never(self.journal.retry_at().map(Instant::from_std)) => {
                    self.step(Event::JournalLong).await;
                }
                () = sleep_or_never(self.give_up_at) => {
                    tracing::warn!("the kernel did not end within {:?}; ending without it", self.end_patience);
                    self.ended = true;
                }
            }
            for _ in 1..TURN_INPUTS_MAX {
                match urgent.try_recv().or_else(|_| others.try_recv()) {
                    Ok(input) if !self.ended => self.react(input).await,
                    Ok(_) | Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
            }
            if self.wake_at.is_some_and(|at| at <= Instant::now()) {
                self.wake_at = None;
                self.step(Event::Tick).await;
            }
            self.manager.turned(|| self.kernel.system_stats());
        }
        self.manager.stopping();
        self.farewell().await;
        self.programs.end(&mut urgent).await;
        self.workers.end(&mut urgent).await;
    }

    async fn react(&mut self, input: Input) {
        match input {
            Input::Connected { socket, credentials, group_leader, process, place } => {
                let connection = Connection::new(Arc::new(socket), place);
                let program = self.program_groups.get(&group_leader).copied();
                let credentials = Credentials { program, ..credentials };
                self.connected(connection, credentials, process).await;
            }
            Input::Request { conn, request, memory } => {
                self.request(conn, request).await;
                drop(memory);
            }
            Input::Malformed { conn, id, fault } => self.answer(conn, answer_id(id), fault),
            Input::ReadEnded { conn } => {
                // A program that closed its sending side alone still reads what it was told in this turn.
                self.flush(conn);
                self.disconnect(conn);
                self.step_pending().await;
            }
            Input::PeerDied { os_pid } => self.peer_died(os_pid).await,
            Input::Writable { conn } => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.writable();
                    self.spoken_to.insert(conn);
                }
            }
            Input::ProgramStarted { pid, os_pid, socket, place } => {
                self.program_groups.insert(os_pid, pid);
                let conn = self.connect(Connection::new(Arc::new(socket), place));
                self.step(Event::ProgramStarted { pid, conn, os_pid }).await;
            }
            Input::ProgramPrinted { pid, lines, room } => {
                self.step(Event::ProgramPrinted { pid, lines }).await;
                drop(room);
            }
            Input::WorkerStarted { worker, link } => self.workers.started(worker, link),
            Input::WorkerWritable { worker } => self.workers.writable(worker),
            Input::Worker(event) => {
                match &event {
                    Event::WorkerDied { worker, .. } => self.workers.died(*worker),
                    Event::ProgramRefused { pid, .. } | Event::ProgramEnded { pid, .. } => {
                        self.program_groups.retain(|_, of| of != pid);
                        self.programs.ended(*pid)
                    }
                    _ => {}
                }
                self.step(event).await;
            }
            Input::Reload => self.reload().await,
            Input::Terminate if self.give_up_at.is_some() => self.ended = true,
            Input::Terminate => {
                tracing::info!("asked to end");
                self.give_up_at = Some(Instant::now() + self.end_patience);
                self.step(Event::Terminate).await;
            }
        }
    }

    /// Reads the configuration again. One that is wrong changes nothing.
    async fn reload(&mut self) {
        self.manager.reloading();
        match Settings::settle(self.flags.clone()) {
            Ok(settings) => {
                log::change(&settings.log);
                tracing::info!("read the configuration again; sockets, folders, devices and mounts stay");
                self.step(Event::Configured { config: Box::new(settings.kernel) }).await;
            }
            Err(e) => tracing::error!("the configuration stays as it was: {e}"),
        }
        self.manager.ready();
    }

    async fn connected(&mut self, connection: Connection, credentials: Credentials, process: OwnedFd) {
        let conn = self.connect(connection);
        self.watch.connected(credentials.os_pid, process, conn);
        self.step(Event::Connected { conn, credentials }).await;
    }

    /// Ends the connections of a process that has died, after what it has sent was read. Of one that did not read nothing
    /// is read either.
    async fn peer_died(&mut self, os_pid: u32) {
        for conn in self.watch.of(os_pid) {
            match self.connections.get(&conn) {
                Some(connection) if connection.is_read() => connection.end_reading(),
                Some(_) | None => self.disconnect(conn),
            }
        }
        self.step_pending().await;
    }

    /// Takes a connection in, and reads from it.
    fn connect(&mut self, connection: Connection) -> ConnId {
        self.connections_so_far += 1;
        let conn = ConnId(self.connections_so_far);
        let reader = Reader {
            conn,
            socket: connection.socket(),
            gate: connection.gate(),
            memory: Arc::clone(&self.memory),
            inputs: self.inputs.clone(),
        };
        self.connections.insert(conn, connection);
        tokio::spawn(reader.run());
        conn
    }

    async fn request(&mut self, conn: ConnId, request: Request) {
        let Some(connection) = self.connections.get_mut(&conn).filter(|c| !c.closing) else { return };
        if connection.calls_in_flight >= CALLS_IN_FLIGHT_MAX {
            let sentence = format!(
                "{CALLS_IN_FLIGHT_MAX} of {CALLS_IN_FLIGHT_MAX} calls of this connection are unanswered; wait for one"
            );
            return self.answer(conn, request.id, Fault::new(Errno::EAGAIN, sentence));
        }
        connection.calls_in_flight += 1;
        let call = request.call.name();
        tracing::debug!(
            call,
            pid_llmasos = request.pid.or_else(|| self.kernel.process_of(conn)).map(|pid| u64::from(pid.0)),
            "connection {} calls {call}",
            conn.0
        );
        self.step(Event::Request { conn, request }).await;
    }

    /// Answers a call that the kernel never sees.
    fn answer(&mut self, conn: ConnId, id: CallId, fault: Fault) {
        self.send(conn, &Frame::Reply(id, Err(fault)));
    }

    async fn step(&mut self, event: Event) {
        self.pending.push_back(event);
        self.step_pending().await;
    }

    async fn step_pending(&mut self) {
        while let Some(event) = self.pending.pop_front() {
            let now = Now(
                u64::try_from(self.started.elapsed().as_micros()).expect("584,000 years have not passed")
            );
            self.kernel.step(now, event, &mut self.effects);
            let mut effects = std::mem::take(&mut self.effects);
            for effect in effects.drain(..) {
                self.perform(effect).await;
            }
            // Its memory serves the next step.
            self.effects = effects;
        }
    }

    async fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { conn, frame } => self.deliver(conn, &frame),
            Effect::Report { conn, call, event } => self.deliver(conn, &Frame::Event(call, event)),
            Effect::Hangup { conn } => self.hang_up(conn),
            Effect::Inspect { model, load } => self.inspector.inspect(model, load),
            Effect::StartWorker { worker, load, digest, delay_ms } => {
                let swap = self.swaps.of(worker.model, &load.name);
                self.workers.start(worker, load, digest, swap, Duration::from_millis(delay_ms));
            }
            Effect::StopWorker { worker } => self.workers.stop(worker),
            Effect::DropSwap { model } => self.swaps.remove(model),
            Effect::StartProgram { pid, program } => self.programs.start(pid, &program),
            Effect::SignalProgram { pid, signal } => self.programs.signal(pid, signal),
            Effect::EndProgram { pid, grace_ms } => self.programs.stop(pid, Duration::from_millis(grace_ms)),
            Effect::Submit { worker, step } => {
                let number = step.number;
                if let Err(e) = self.workers.say(worker, &ToWorker::Step(step)) {
                    let fault = DriverFault::new(Errno::E2BIG, format!("the step is too large: {e}"));
                    self.pending.push_back(Event::StepFailed { worker, number, fault });
                }
            }
            Effect::Withdraw { worker, number } => {
                if let Err(e) = self.workers.say(worker, &ToWorker::Withdraw(number)) {
                    // The step then runs through, which costs time and nothing else.
                    tracing::warn!("step {number} could not be withdrawn: {e}");
                }
            }
            Effect::Ask { worker, number, question } => {
                if let Err(e) = self.workers.say(worker, &ToWorker::Ask(number, question)) {
                    let fault = DriverFault::new(Errno::E2BIG, format!("the question is too large: {e}"));
                    self.pending.push_back(Event::Answered { worker, number, answer: Err(fault) });
                }
            }
            Effect::WakeAt(at) => self.wake_at = at.map(|at| self.started + Duration::from_micros(at.0)),
            Effect::Persist(record) => self.keep(Change::Persist(record)).await,
            Effect::Forget(key) => self.keep(Change::Forget(key)).await,
            Effect::Journal(entries) => self.write(&entries),
            Effect::Checkpoint(entries) => self.rewrite(&entries),
            Effect::Store { number, uid, order } => {
                if let Err(fault) = self.values.order(number, uid, order) {
                    self.pending.push_back(Event::Stored { number, result: Err(fault) });
                }
            }
            Effect::Log(level, message) => log::say(level, &message),
            Effect::LogAbout(level, subject, message) => log::say_about(level, &subject, &message),
            Effect::Exit => self.ended = true,
        }
    }

    /// Makes a change in the store. What was said before goes out first: the disk may take its time.
    async fn keep(&mut self, change: Change) {
        self.write_all();
        if let Err(e) = self.store.make(change).await {
            tracing::error!("a record could not be kept, so the next start will not know of it: {e}");
        }
    }

    /// Writes what changed of processes that outlive the daemon. What was not written comes again with all else.
    fn write(&mut self, entries: &[Entry]) {
        if let Err(e) = self.journal.append(entries) {
            log::once(
                &mut self.journal_fails,
                &format!("{e}; processes do not outlive the daemon until it can"),
            );
        }
        if self.journal.is_long() && !self.pending.contains(&Event::JournalLong) {
            self.pending.push_back(Event::JournalLong);
        }
    }

    fn rewrite(&mut self, entries: &[Entry]) {
        match self.journal.rewrite(entries) {
            Ok(()) if std::mem::take(&mut self.journal_fails) => {
                tracing::info!("the journal of processes is written again");
            }
            Ok(()) => {}
            Err(e) => {
                log::once(
                    &mut self.journal_fails,
                    &format!("{e}; processes do not outlive the daemon until it can"),
                );
            }
        }
    }

    /// Sends a frame of the kernel.
    fn deliver(&mut self, conn: ConnId, frame: &Frame) {
        if let (Frame::Reply(..), Some(connection)) = (frame, self.connections.get_mut(&conn)) {
            connection.calls_in_flight = connection.calls_in_flight.saturating_sub(1);
        }
        self.send(conn, frame);
    }

    /// Appends a frame to what the turn will write. A large amount is written at once, to keep it small.
    fn send(&mut self, conn: ConnId, frame: &Frame) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        self.spoken_to.insert(conn);
        if connection.push(frame) > OUTPUT_BYTES_HIGH {
            self.flush(conn);
        }
    }

    fn hang_up(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.closing = true;
            self.spoken_to.insert(conn);
        }
    }

    /// Ends a connection, and tells the kernel after the effects at hand.
    fn disconnect(&mut self, conn: ConnId) {
        if self.connections.remove(&conn).is_some() {
            self.spoken_to.remove(&conn);
            self.watch.disconnected(conn);
            self.pending.push_back(Event::Disconnected { conn });
        }
    }

    /// Writes all that this turn has to say, until the kernel has nothing to add.
    async fn flush_all(&mut self) {
        loop {
            self.write_all();
            if self.pending.is_empty() {
                return;
            }
            self.step_pending().await;
        }
    }

    fn write_all(&mut self) {
        self.workers.flush();
        while let Some(conn) = self.spoken_to.pop_first() {
            self.flush(conn);
        }
    }

    /// Writes what one connection takes, and draws the conclusions.
    fn flush(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let flushed = connection.flush();
        match connection.level() {
            Some(Level::High) => self.pending.push_back(Event::OutputHigh { conn }),
            Some(Level::Low) => self.pending.push_back(Event::OutputLow { conn }),
            None => {}
        }
        let closing = connection.closing;
        let waiting = connection.waiting();
        match flushed {
            Flushed::All if closing => self.disconnect(conn),
            Flushed::Gone => self.disconnect(conn),
            Flushed::Blocked | Flushed::StillBlocked if waiting > OUTPUT_BYTES_MAX => {
                tracing::warn!("closing connection {}: {waiting} bytes wait unread", conn.0);
                self.disconnect(conn);
            }
            Flushed::Blocked => {
                let (socket, inputs) = (connection.socket(), self.inputs.clone());
                tokio::spawn(async move {
                    // An error is an end of the connection, which the next write finds.
                    let _ = socket.writable().await;
                    // The loop is gone only when the daemon ends.
                    let _ = inputs.send(Input::Writable { conn }).await;
                });
            }
            Flushed::All | Flushed::StillBlocked => {}
        }
    }

    /// Lets programs read what was said to them last.
    async fn farewell(&mut self) {
        self.write_all();
        let deadline = Instant::now() + FAREWELL_PATIENCE;
        for connection in self.connections.values_mut() {
            let socket = connection.socket();
            while connection.flush() != Flushed::Gone && connection.waiting() > 0 {
                if timeout_at(deadline, socket.writable()).await.is_err() {
                    break;
                }
            }
        }
        self.connections.clear();
    }
}

async fn sleep_or_never(at: Option<Instant>) {
    match at {
        Some(at) => pin!(sleep_until(at)).await,
        None => std::future::pending().await,
    }
}
