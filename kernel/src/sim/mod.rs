//! The core without its host: a kernel with sim drivers in the same process, in virtual time, for one program.
//!
//! What a program asks is carried out to its end before the next request is taken, and time passes only where there is
//! nothing else to do. So the same requests get the same answers, always: `llmasos replay --sim` plays recordings here.
//! There is no disk and no other program: stores and programs are refused, and nothing outlives it.

mod serve;

use std::collections::{BTreeMap, VecDeque};

use drivers::estimate::estimate;
use drivers::sim::{Died, SimSwap, SimWorker};
use drivers::wire::{DriverFault, LoadRequest, Question, Step};
use syscalls::{Errno, Fault, Frame, Pid, Reply, Request};

use crate::core::event::{ConnId, Credentials, ModelId, WorkerId};
use crate::core::{Effect, Event, HostInfo, Kernel, KernelConfig, Now};

pub use serve::serve;

/// The one connection.
const CONN: ConnId = ConnId(1);

/// Where seeds of generations without one come from. Replays name the seeds that they want.
const SEED: u64 = 1;

/// What an effect has ordered, until it is carried out.
#[derive(Debug)]
enum Order {
    Inspect(ModelId, Box<LoadRequest>),
    Start(WorkerId, Box<LoadRequest>),
    Step(WorkerId, Step),
    Ask(WorkerId, u64, Question),
    Died(WorkerId, String),
    Store(u64),
    Keep(u64),
    Program(Pid),
}

/// A kernel, its workers, and what they are yet to do.
pub struct Simulation {
    kernel: Kernel,
    now: u64,
    orders: VecDeque<Order>,
    workers: BTreeMap<WorkerId, SimWorker>,
    /// The swap area of each model, which outlives its workers.
    swap: BTreeMap<ModelId, SimSwap>,
    wake: Option<Now>,
    frames: Vec<Frame>,
    /// The program was hung up on, or the kernel has ended.
    over: bool,
}

impl Simulation {
    /// A kernel with nothing mounted, and one program that is connected as its administrator.
    pub fn new() -> Self {
        let host = HostInfo { version: env!("CARGO_PKG_VERSION").into(), cpus: 1, ..HostInfo::default() };
        let mut simulation = Simulation {
            kernel: Kernel::new(KernelConfig { host, ..KernelConfig::default() }, SEED),
            now: 0,
            orders: VecDeque::new(),
            workers: BTreeMap::new(),
            swap: BTreeMap::new(),
            wake: None,
            frames: Vec::new(),
            over: false,
        };
        let executable = "simulation".to_owned();
        let credentials =
            Credentials { uid: 0, os_pid: 0, os_parent: None, executable, admin: true, program: None };
        simulation.event(Event::Connected { conn: CONN, credentials });
        simulation
    }

    /// Takes a request, and does what it leads to until nothing is left to do.
    pub fn request(&mut self, request: Request) {
        self.event(Event::Request { conn: CONN, request });
        loop {
            while let Some(order) = self.orders.pop_front() {
                self.work(order);
            }
            let Some(at) = self.wake.take() else { return };
            self.now = self.now.max(at.0);
            self.event(Event::Tick);
        }
    }

    /// What the program is told since it was last looked at.
    pub fn frames(&mut self) -> Vec<Frame> {
        std::mem::take(&mut self.frames)
    }

    /// Whether the conversation is over.
    pub fn is_over(&self) -> bool {
        self.over
    }

    fn event(&mut self, event: Event) {
        self.now += 1;
        let mut effects = Vec::new();
        self.kernel.step(Now(self.now), event, &mut effects);
        effects.into_iter().for_each(|effect| self.perform(effect));
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { frame, .. } => self.frames.push(*frame),
            Effect::Report { call, event, .. } => self.frames.push(Frame::Event(call, event)),
            Effect::Hangup { .. } | Effect::Exit => self.over = true,
            Effect::Inspect { model, load, .. } => self.orders.push_back(Order::Inspect(model, load)),
            Effect::StartWorker { worker, load, .. } => self.orders.push_back(Order::Start(worker, load)),
            Effect::StopWorker { worker } | Effect::KillWorker { worker } => {
                self.orders.push_back(Order::Died(worker, "stopped".into()))
            }
            Effect::Submit { worker, step } => self.orders.push_back(Order::Step(worker, step)),
            Effect::Ask { worker, number, question } => {
                self.orders.push_back(Order::Ask(worker, number, question))
            }
            Effect::WakeAt(at) => self.wake = at,
            Effect::Store { number, .. } => self.orders.push_back(Order::Store(number)),
            Effect::Keep { number, .. } => self.orders.push_back(Order::Keep(number)),
            Effect::StartProgram { pid, .. } => self.orders.push_back(Order::Program(pid)),
            // A step that is to be withdrawn runs through, which is as good; and nothing is kept.
            Effect::Withdraw { .. }
            | Effect::ClearSlot { .. }
            | Effect::DropSwap { .. }
            | Effect::SignalProgram { .. }
            | Effect::EndProgram { .. }
            | Effect::Persist(_)
            | Effect::PutBack(_)
            | Effect::Forget(_)
            | Effect::Journal(_)
            | Effect::Checkpoint(_)
            | Effect::Log(..)
            | Effect::LogAbout(..) => {}
        }
    }

    fn work(&mut self, order: Order) {
        let event = match order {
            Order::Inspect(model, load) => {
                let estimate = simulated(&load).and_then(|()| estimate(&load));
                Event::Inspected { model, estimate, digest: None }
            }
            Order::Start(worker, load) => self.start(worker, &load),
            Order::Step(worker, step) => match self.workers.get_mut(&worker).map(|driver| driver.step(&step))
            {
                Some(Ok(Ok(done))) => {
                    self.now += done.elapsed_us;
                    Event::StepDone { worker, done }
                }
                Some(Ok(Err(fault))) => Event::StepFailed { worker, number: step.number, fault },
                Some(Err(Died(how))) => self.died(worker, how),
                None => return,
            },
            Order::Ask(worker, number, question) => {
                match self.workers.get_mut(&worker).map(|driver| driver.ask(question)) {
                    Some(Ok(answer)) => Event::Answered { worker, number, answer },
                    Some(Err(Died(how))) => self.died(worker, how),
                    None => return,
                }
            }
            Order::Died(worker, how) => self.died(worker, how),
            Order::Store(number) => Event::Stored { number, result: Err(absent("stores")) },
            Order::Keep(number) => Event::Stored { number, result: Ok(Reply::Done {}) },
            Order::Program(pid) => Event::ProgramRefused { pid, fault: absent("programs") },
        };
        self.event(event);
    }

    fn start(&mut self, worker: WorkerId, load: &LoadRequest) -> Event {
        let swap = self.swap.entry(worker.model).or_default().clone();
        match SimWorker::start_with(load, swap) {
            Ok(Ok(started)) => {
                let description = Box::new(started.description().clone());
                self.workers.insert(worker, started);
                Event::WorkerReady { worker, os_pid: 0, description }
            }
            Ok(Err(fault)) => {
                self.orders.push_back(Order::Died(worker, "exit status 1".into()));
                Event::WorkerRefused { worker, fault }
            }
            Err(Died(how)) => Event::WorkerDied { worker, how },
        }
    }

    fn died(&mut self, worker: WorkerId, how: String) -> Event {
        self.workers.remove(&worker);
        Event::WorkerDied { worker, how }
    }
}

impl Default for Simulation {
    fn default() -> Self {
        Simulation::new()
    }
}

fn absent(what: &str) -> Fault {
    Fault::new(Errno::ENOSYS, format!("there are no {what} in a simulation; ask a daemon"))
}

/// Refuses what only a real worker can load.
fn simulated(load: &LoadRequest) -> Result<(), DriverFault> {
    if load.path.starts_with(drivers::sim::SCHEME) {
        return Ok(());
    }
    Err(DriverFault::new(Errno::ENOSYS, "a simulation runs sim drivers alone; mount sim:SCRIPT"))
}
