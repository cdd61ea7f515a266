//! What workers and the store do, when the test lets them.

use drivers::estimate::estimate;
use drivers::sim::{Died, SimWorker};
use drivers::wire::{DriverFault, LoadRequest, Question, Step};
use kernel::core::Event;
use kernel::core::event::WorkerId;
use kernel::core::registration::Digest;
use syscalls::Errno;

use super::{Job, Machine};

impl Machine {
    /// Does the oldest job; tells whether there was one.
    pub fn turn(&mut self) -> bool {
        self.turn_at(0)
    }

    /// Does one of the jobs.
    pub fn turn_at(&mut self, at: usize) -> bool {
        let Some(job) = self.jobs.remove(at) else { return false };
        match job {
            Job::Inspect(model, load) => {
                let refused = self.cannot_inspect.map(|errno| DriverFault::new(errno, "it cannot be read"));
                let digest = if refused.is_some() { None } else { self.digest() };
                let estimate = refused.map_or_else(|| estimate(&load), Err);
                self.event(Event::Inspected { model, estimate, digest });
            }
            Job::Start(worker, load, digest) if digest == self.digest() => self.start(worker, &load),
            Job::Start(worker, ..) => {
                self.refuse(worker, DriverFault::new(Errno::EIO, "the file has changed"));
            }
            Job::Step(worker, step) => self.step(worker, &step),
            Job::Ask(worker, number, question) => self.ask(worker, number, question),
            Job::Store(number, uid, order) => {
                let result = self.values.carry_out(uid, &order).expect("memory does not fail");
                self.event(Event::Stored { number, result });
            }
            Job::Died(worker, how) => self.event(Event::WorkerDied { worker, how }),
        }
        true
    }

    /// Runs until nothing is left to do.
    pub fn run(&mut self) {
        while self.turn() {}
    }

    /// Lets time pass without anything else happening.
    pub fn pass_ms(&mut self, ms: u64) {
        self.now += ms * 1000;
        self.event(Event::Tick);
    }

    fn digest(&self) -> Option<Digest> {
        self.file.map(|version| Digest([version; 32]))
    }

    /// A worker that refuses ends.
    fn refuse(&mut self, worker: WorkerId, fault: DriverFault) {
        self.event(Event::WorkerRefused { worker, fault });
        self.jobs.push_back(Job::Died(worker, "exit status 1".into()));
    }

    fn start(&mut self, worker: WorkerId, load: &LoadRequest) {
        if let Some(errno) = self.short_of {
            return self.refuse(worker, DriverFault::new(errno, "could not be started: there is not enough"));
        }
        let of_name = self.disks.entry(load.name.clone()).or_default();
        let swap = self.swap.entry(worker.model).or_insert_with(|| of_name.clone()).clone();
        let event = match SimWorker::start_with(load, swap) {
            Ok(Ok(started)) => {
                let description = Box::new(started.description().clone());
                self.workers.insert(worker, started);
                Event::WorkerReady { worker, os_pid: 1000 + worker.incarnation, description }
            }
            Ok(Err(fault)) => return self.refuse(worker, fault),
            Err(Died(how)) => Event::WorkerDied { worker, how },
        };
        self.event(event);
    }

    fn step(&mut self, worker: WorkerId, step: &Step) {
        let Some(driver) = self.workers.get_mut(&worker) else { return };
        let stop = self.withdrawn.contains(&(worker, step.number));
        let through = if stop { step.rows.len() / 2 } else { usize::MAX };
        let event = match driver.step_withdrawn(step, through) {
            Ok(Ok(mut done)) => {
                if let Some(weather) = &mut self.weather {
                    done.elapsed_us = weather(done.elapsed_us);
                }
                if let Some(us) = self.pages_us {
                    for took in done.pages.iter_mut().flatten() {
                        done.elapsed_us = done.elapsed_us.saturating_add(us - *took);
                        *took = us;
                    }
                }
                self.now += done.elapsed_us.min(1_000_000_000);
                self.longest_step_us = self.longest_step_us.max(done.elapsed_us.min(1_000_000_000));
                Event::StepDone { worker, done }
            }
            Ok(Err(fault)) => {
                assert_ne!(fault.errno, Errno::EINVAL, "{fault}");
                Event::StepFailed { worker, number: step.number, fault }
            }
            Err(Died(how)) => self.died(worker, how),
        };
        self.event(event);
    }

    fn ask(&mut self, worker: WorkerId, number: u64, question: Question) {
        let Some(driver) = self.workers.get_mut(&worker) else { return };
        let event = match driver.ask(question) {
            Ok(answer) => Event::Answered { worker, number, answer },
            Err(Died(how)) => self.died(worker, how),
        };
        self.event(event);
    }

    fn died(&mut self, worker: WorkerId, how: String) -> Event {
        self.workers.remove(&worker);
        Event::WorkerDied { worker, how }
    }

    /// Kills a worker from outside, between two jobs.
    pub fn kill_worker(&mut self) {
        let (worker, _) = self.workers.pop_first().expect("a worker runs");
        self.event(Event::WorkerDied { worker, how: "killed by SIGKILL".into() });
    }
}
