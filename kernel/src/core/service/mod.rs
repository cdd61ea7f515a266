//! Services: programs that the kernel starts, watches over, and starts again when they have ended.
//!
//! Declared ones come with the configuration; a user makes transient ones, which are forgotten when they have ended well or
//! were stopped. Each run of a service is a process of its own, a child of the kernel.
//!
//! | state | what there is | leaves it by |
//! |---|---|---|
//! | inactive | nothing | start, the daemon's start |
//! | waiting | nothing: what it comes after is not started yet | these have started or failed; stop |
//! | starting | a process, whose program is being started | the program's start or its refusal; stop |
//! | running | a process and its program | the program's end; stop |
//! | stopping | a program that was asked to end, and is killed when its grace is over | the program's end |
//! | backoff | nothing: it has ended, and is started again after a pause | the end of the pause; start, stop |
//! | failed | a reason: its last end where it is not started again, its start limit, what it requires | start, stop |
//!
//! A service comes after those that it names in `after` and `requires`, and is not started without the latter, which are
//! started with it. One that is stopped stops those that require it first; one that ends by itself leaves them alone.
//! Whoever changes a state does so with [`Kernel::set_service`], and what others then may do is done when the event has
//! been taken in, so that no order of events leaves anybody waiting.

mod attempts;
mod config;
mod declare;
mod order;
mod report;
mod start;
mod stop;
mod supervise;

use std::collections::{BTreeMap, BTreeSet};

use syscalls::Pid;
use syscalls::limits::NAME_BYTES_MAX;
use syscalls::reply::ServiceState;

use super::Kernel;
use super::call::CallNo;
use super::event::Now;
use attempts::Attempts;

pub use config::{ServiceConfig, ServiceLimits};
pub use order::{OrderError, check_order};
pub(super) use report::Goal;
pub(super) use stop::Then;

/// Where a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Inactive,
    Waiting,
    Starting(Pid),
    Running(Pid),
    Stopping {
        pid: Pid,
        /// It got its signal; until then those that require it end.
        told: bool,
        then: Then,
    },
    Backoff(Now),
    Failed(String),
}

impl State {
    /// Whether it runs or is on the way to.
    fn is_up(&self) -> bool {
        matches!(self, State::Waiting | State::Starting(_) | State::Running(_) | State::Backoff(_))
    }

    /// Whether the host has a program of it.
    fn has_program(&self) -> bool {
        matches!(self, State::Starting(_) | State::Running(_) | State::Stopping { .. })
    }

    /// As it is told.
    fn name(&self) -> ServiceState {
        match self {
            State::Inactive => ServiceState::Inactive,
            State::Waiting => ServiceState::Waiting,
            State::Starting(_) => ServiceState::Starting,
            State::Running(_) => ServiceState::Running,
            State::Stopping { .. } => ServiceState::Stopping,
            State::Backoff(_) => ServiceState::Backoff,
            State::Failed(_) => ServiceState::Failed,
        }
    }
}

/// One service.
#[derive(Debug)]
pub(super) struct Service {
    pub config: ServiceConfig,
    /// It is not in the configuration.
    pub transient: bool,
    /// It is in the configuration no more, and goes when its program has ended.
    leaving: bool,
    state: State,
    since: Now,
    /// Its process, or the last one that it had.
    pub pid: Option<Pid>,
    /// The status of the last one that has ended.
    status: Option<u8>,
    /// New starts that nobody asked for, since somebody asked for one.
    restarts: u64,
    attempts: Attempts,
    /// Calls that wait until it runs or rests.
    pub waiters: BTreeSet<CallNo>,
}

impl Service {
    fn new(config: ServiceConfig, transient: bool, now: Now) -> Self {
        Service {
            config,
            transient,
            leaving: false,
            state: State::Inactive,
            since: now,
            pid: None,
            status: None,
            restarts: 0,
            attempts: Attempts::default(),
            waiters: BTreeSet::new(),
        }
    }

    /// Forgets the starts so far, because somebody asks for one.
    fn begin_anew(&mut self) {
        (self.attempts, self.restarts) = (Attempts::default(), 0);
    }
}

/// All services, by their names.
#[derive(Debug, Default)]
pub(super) struct Services {
    all: BTreeMap<String, Service>,
    /// Those in a pause, by its end.
    pauses: BTreeSet<(Now, String)>,
    /// A state has changed since somebody looked at who may go on.
    stirred: bool,
}

impl Services {
    /// The declared ones of a configuration, none of which runs yet.
    pub(super) fn new(declared: Vec<ServiceConfig>) -> Self {
        let service = |config: ServiceConfig| (config.name.clone(), Service::new(config, false, Now(0)));
        Services { all: declared.into_iter().map(service).collect(), ..Services::default() }
    }

    /// The one of a name.
    pub(super) fn get(&self, name: &str) -> Option<&Service> {
        self.all.get(name)
    }

    /// The one of a name, to be changed.
    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Service> {
        self.all.get_mut(name)
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Service> {
        self.all.values()
    }

    /// The one that a program is a run of.
    fn of(&self, pid: Pid) -> Option<&str> {
        let (name, _) = self.all.iter().find(|(_, service)| service.pid == Some(pid))?;
        Some(name)
    }

    /// When the next pause ends.
    pub(super) fn next_pause(&self) -> Option<Now> {
        self.pauses.first().map(|(at, _)| *at)
    }

    /// Checks what must hold between two events.
    ///
    /// # Panics
    ///
    /// Where it does not.
    pub(super) fn check(&self, runs: impl Fn(Pid) -> bool, waits: impl Fn(CallNo, &str) -> bool) {
        assert!(!self.stirred, "nobody has looked at who may go on");
        let mut pauses = BTreeSet::new();
        for (name, service) in &self.all {
            match &service.state {
                State::Starting(pid) | State::Running(pid) | State::Stopping { pid, .. } => {
                    assert_eq!(Some(*pid), service.pid, "service {name}");
                    assert!(runs(*pid), "service {name} has no program and does not know it");
                }
                State::Backoff(at) => drop(pauses.insert((*at, name.clone()))),
                State::Inactive | State::Failed(_) => {
                    assert!(!service.leaving, "service {name} should be gone");
                    assert!(
                        !service.pid.is_some_and(&runs),
                        "service {name} has a program that nobody wants"
                    );
                }
                State::Waiting => {}
            }
            assert!(service.waiters.iter().all(|call| waits(*call, name)), "service {name}");
        }
        assert_eq!(pauses, self.pauses);
    }
}

impl Kernel {
    /// Brings a service into another state, and tells whoever waits for that.
    fn set_service(&mut self, name: &str, state: State) {
        let now = self.now;
        let Some(service) = self.services.all.get_mut(name) else { return };
        if let State::Backoff(at) = &service.state {
            self.services.pauses.remove(&(*at, name.to_owned()));
        }
        if let State::Backoff(at) = &state {
            self.services.pauses.insert((*at, name.to_owned()));
        }
        (service.state, service.since) = (state, now);
        self.services.stirred = true;
        self.service_changed(name);
        self.answer_service(name);
        self.forget_service(name);
    }

    /// Forgets a service that rests and that nobody has declared.
    fn forget_service(&mut self, name: &str) {
        let Some(service) = self.services.all.get(name) else { return };
        let ended = match service.state {
            State::Inactive => service.transient || service.leaving,
            State::Failed(_) => service.leaving,
            _ => false,
        };
        if ended {
            let pid = service.pid;
            self.services.all.remove(name);
            pid.into_iter().for_each(|pid| self.outputs.forget(pid));
        }
    }
}

/// Whether a name can be that of a service: it stands in command lines and logs.
pub fn is_service_name(name: &str) -> bool {
    let sound = |c: char| c.is_ascii_alphanumeric() || "._@-".contains(c);
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(sound) && !name.starts_with('-')
}
