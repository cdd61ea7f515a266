//! The host of a simulated kernel: events in, effects out, time in between.

use std::collections::{BTreeMap, VecDeque};

use drivers::estimate::estimate;
use drivers::sim::{Died, SimSwap, SimWorker};
use drivers::wire::{LoadRequest, Question, Step, StepDone};
use kernel::core::event::{ConnId, Credentials, ModelId, WorkerId};
use kernel::core::{Effect, Event, Kernel, KernelConfig, Now};
use syscalls::reply::Frame;
use syscalls::{Call, CallId, Fault, Pid, Reply, Request};

use super::agenda::Agenda;
use super::fault::Faults;
use super::probe::{Probe, Stopwatch};

/// How long a worker takes from its start until it is ready, in microseconds: a file of half a gigabyte that is
/// mapped, not read.
const LOAD_US: u64 = 300_000;

/// Something that will happen.
enum Happening<A> {
    Inspected(ModelId, Box<LoadRequest>),
    Start(WorkerId, Box<LoadRequest>),
    StepEnds(WorkerId, u64),
    Withdrawn(WorkerId, u64),
    StepDone(WorkerId, StepDone),
    Asked(WorkerId, u64, Question),
    Died(WorkerId, String),
    Tick(Now),
    Alarm(A),
}

/// What has just happened.
pub enum Passed<A> {
    /// Something that the kernel has heard of.
    Event,
    /// An alarm that a program has set.
    Alarm(A),
}

/// A worker, and the step that it runs.
struct Working {
    worker: SimWorker,
    step: Option<Step>,
    since: u64,
}

/// A kernel and everything around it but the programs, whose alarms are of type `A`.
pub struct World<A> {
    kernel: Kernel,
    now: u64,
    agenda: Agenda<Happening<A>>,
    workers: BTreeMap<WorkerId, Working>,
    /// The swap area of each model, which outlives its workers.
    swaps: BTreeMap<ModelId, SimSwap>,
    effects: Vec<Effect>,
    heard: VecDeque<(ConnId, Frame)>,
    wake: Option<Now>,
    faults: Faults,
    deaths: u64,
    last_call: u64,
    last_conn: u64,
    /// What the core's own work costs.
    pub probe: Probe,
}

impl<A> World<A> {
    /// A kernel without models and programs.
    pub fn new(config: KernelConfig, seed: u64, faults: Faults) -> World<A> {
        World {
            kernel: Kernel::new(config, seed),
            now: 0,
            agenda: Agenda::default(),
            workers: BTreeMap::new(),
            swaps: BTreeMap::new(),
            effects: Vec::new(),
            heard: VecDeque::new(),
            wake: None,
            faults,
            deaths: 0,
            last_call: 0,
            last_conn: 0,
            probe: Probe::default(),
        }
    }

    /// The time, in microseconds.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// What goes wrong here.
    pub fn faults(&mut self) -> &mut Faults {
        &mut self.faults
    }

    /// Workers that died by a fault of the run.
    pub fn deaths(&self) -> u64 {
        self.deaths
    }

    /// Checks everything that must hold between two events.
    ///
    /// # Panics
    ///
    /// Where it does not.
    pub fn check_invariants(&self) {
        self.kernel.check_invariants();
    }

    /// Sets an alarm.
    pub fn alarm(&mut self, at_us: u64, alarm: A) {
        self.agenda.enter(at_us.max(self.now), Happening::Alarm(alarm));
    }

    /// Opens a connection of the user that the daemon runs as.
    pub fn connect(&mut self) -> ConnId {
        self.last_conn += 1;
        let conn = ConnId(self.last_conn);
        let credentials = Credentials {
            uid: 0,
            os_pid: 2,
            os_parent: None,
            executable: "simulate".into(),
            admin: true,
            program: None,
        };
        self.event(Event::Connected { conn, credentials });
        conn
    }

    /// Makes a call; the reply comes by [`World::heard`].
    pub fn call(&mut self, conn: ConnId, pid: Option<Pid>, call: impl Into<Call>) -> CallId {
        self.last_call += 1;
        let id = CallId(self.last_call);
        self.event(Event::Request { conn, request: Request { id, pid, call: call.into() } });
        id
    }

    /// Makes a call, and lets time pass until it is answered. Only for programs that wait for nothing else.
    ///
    /// # Errors
    ///
    /// The fault of the call.
    ///
    /// # Panics
    ///
    /// It is never answered.
    pub fn finish(&mut self, conn: ConnId, pid: Option<Pid>, call: impl Into<Call>) -> Result<Reply, Fault> {
        let id = self.call(conn, pid, call);
        loop {
            let of_it = |(_, frame): &(ConnId, Frame)| matches!(frame, Frame::Reply(of, _) if *of == id);
            if let Some(at) = self.heard.iter().position(of_it)
                && let Some((_, Frame::Reply(_, reply))) = self.heard.remove(at)
            {
                return reply;
            }
            assert!(self.advance().is_some(), "call {id} is never answered");
        }
    }

    /// What connections were sent, the oldest first.
    pub fn heard(&mut self) -> Option<(ConnId, Frame)> {
        self.heard.pop_front()
    }

    /// Lets the next thing happen, at its time; none if nothing is left to happen.
    pub fn advance(&mut self) -> Option<Passed<A>> {
        let (at, happening) = self.agenda.take_next()?;
        self.now = at;
        match happening {
            Happening::Alarm(alarm) => return Some(Passed::Alarm(alarm)),
            Happening::Inspected(model, load) => {
                self.event(Event::Inspected { model, estimate: estimate(&load), digest: None });
            }
            Happening::Start(worker, load) => self.start(worker, &load),
            Happening::StepEnds(worker, number) => self.step_ends(worker, number),
            Happening::Withdrawn(worker, number) => self.withdrawn(worker, number),
            Happening::StepDone(worker, done) => self.event(Event::StepDone { worker, done }),
            Happening::Asked(worker, number, question) => self.answer(worker, number, question),
            Happening::Died(worker, how) => self.died(worker, how),
            Happening::Tick(at) if self.wake == Some(at) => self.event(Event::Tick),
            Happening::Tick(_) => {}
        }
        Some(Passed::Event)
    }

    /// Gives the kernel an event and does what it wants.
    pub fn event(&mut self, event: Event) {
        let mut effects = std::mem::take(&mut self.effects);
        let watch = Stopwatch::start(&event);
        self.kernel.step(Now(self.now), event, &mut effects);
        self.probe.stop(&watch);
        effects.drain(..).for_each(|effect| self.perform(effect));
        self.effects = effects;
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { conn, frame } => self.heard.push_back((conn, *frame)),
            Effect::Report { conn, call, event } => self.heard.push_back((conn, Frame::Event(call, event))),
            Effect::Inspect { model, load, delay_ms } => {
                self.agenda.enter(self.now + delay_ms * 1000, Happening::Inspected(model, load));
            }
            Effect::StartWorker { worker, load, delay_ms, .. } => {
                self.agenda.enter(self.now + delay_ms * 1000 + LOAD_US, Happening::Start(worker, load));
            }
            Effect::StopWorker { worker } | Effect::KillWorker { worker } => {
                self.agenda.enter(self.now, Happening::Died(worker, "stopped".into()));
            }
            Effect::Submit { worker, step } => self.submit(worker, step),
            Effect::Withdraw { worker, number } => {
                self.agenda.enter(self.now, Happening::Withdrawn(worker, number));
            }
            Effect::Ask { worker, number, question } => {
                self.agenda.enter(self.now, Happening::Asked(worker, number, question));
            }
            Effect::WakeAt(at) => {
                self.wake = at;
                if let Some(at) = at {
                    self.agenda.enter(at.0.max(self.now), Happening::Tick(at));
                }
            }
            Effect::Hangup { .. }
            | Effect::ClearSlot { .. }
            | Effect::DropSwap { .. }
            | Effect::StartProgram { .. }
            | Effect::SignalProgram { .. }
            | Effect::EndProgram { .. }
            | Effect::Persist(_)
            | Effect::PutBack(_)
            | Effect::Keep { .. }
            | Effect::Forget(_)
            | Effect::Journal(_)
            | Effect::Checkpoint(_)
            | Effect::Store { .. }
            | Effect::Log(..)
            | Effect::LogAbout(..)
            | Effect::Exit => {}
        }
    }

    fn start(&mut self, worker: WorkerId, load: &LoadRequest) {
        let swap = self.swaps.entry(worker.model).or_default().clone();
        let event = match SimWorker::start_with(load, swap) {
            Ok(Ok(started)) => {
                let description = Box::new(started.description().clone());
                self.workers.insert(worker, Working { worker: started, step: None, since: self.now });
                Event::WorkerReady { worker, os_pid: worker.incarnation, description }
            }
            Ok(Err(fault)) => {
                self.event(Event::WorkerRefused { worker, fault });
                Event::WorkerDied { worker, how: "exit status 1".into() }
            }
            Err(Died(how)) => Event::WorkerDied { worker, how },
        };
        self.event(event);
    }

    /// A step takes the time that it is expected to take, unless the worker dies of it before.
    fn submit(&mut self, worker: WorkerId, step: Step) {
        let death = self.faults.death(&step);
        let Some(working) = self.workers.get_mut(&worker) else { return };
        let us = working.worker.driver().cost_us(&step.rows);
        let happening = match death {
            Some(share) => {
                let at = self.now + (us as f64 * share) as u64;
                return self.agenda.enter(at, Happening::Died(worker, "killed by a fault of the run".into()));
            }
            None => Happening::StepEnds(worker, step.number),
        };
        (working.step, working.since) = (Some(step), self.now);
        self.agenda.enter(self.now + us, happening);
    }

    fn step_ends(&mut self, worker: WorkerId, number: u64) {
        let Some(working) = self.workers.get_mut(&worker) else { return };
        let Some(step) = working.step.take_if(|step| step.number == number) else { return };
        match working.worker.step(&step) {
            Ok(Ok(done)) => {
                // What the operations took beside the rows is known only now.
                let at = working.since + done.elapsed_us;
                self.agenda.enter(at.max(self.now), Happening::StepDone(worker, done));
            }
            Ok(Err(fault)) => self.event(Event::StepFailed { worker, number, fault }),
            Err(Died(how)) => self.died(worker, how),
        }
    }

    /// A step that runs is stopped with no row of it through: a pass computes all its rows together.
    fn withdrawn(&mut self, worker: WorkerId, number: u64) {
        let Some(working) = self.workers.get_mut(&worker) else { return };
        let Some(step) = working.step.take_if(|step| step.number == number) else { return };
        match working.worker.step_withdrawn(&step, 0) {
            Ok(Ok(done)) => self.event(Event::StepDone { worker, done }),
            Ok(Err(fault)) => self.event(Event::StepFailed { worker, number, fault }),
            Err(Died(how)) => self.died(worker, how),
        }
    }

    fn answer(&mut self, worker: WorkerId, number: u64, question: Question) {
        let Some(working) = self.workers.get_mut(&worker) else { return };
        match working.worker.ask(question) {
            Ok(answer) => self.event(Event::Answered { worker, number, answer }),
            Err(Died(how)) => self.died(worker, how),
        }
    }

    fn died(&mut self, worker: WorkerId, how: String) {
        if self.workers.remove(&worker).is_some() {
            self.deaths += 1;
            self.event(Event::WorkerDied { worker, how });
        }
    }
}
