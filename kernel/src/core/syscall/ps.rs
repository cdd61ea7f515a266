//! `ps`: lists processes, the kernel's own entry first, and those of the caller's user, or of all.

use syscalls::call::{Capability, Class, Lifetime, Ps};
use syscalls::reply::{ProcessInfo, ProcessState};
use syscalls::{Pid, Reply};

use super::super::Kernel;
use super::super::call::Waits;
use super::super::capability::Caps;
use super::super::context::Context;
use super::super::event::Now;
use super::super::memory::oom_score;
use super::super::process::{Identity, Process, Run, Zombie};
use super::super::sched::Place;
use super::Caller;

/// The status of a process that ended with the daemon: 128 + the number of KILL.
const STATUS_KILLED: u8 = 128 + 9;

impl Kernel {
    pub(super) fn sys_ps(&self, caller: &Caller, args: &Ps) -> Reply {
        let mut list = vec![self.kernel_info()];
        list.extend(self.processes.pids().filter_map(|pid| match self.processes.living(pid) {
            Some(process) => Some(self.living_info(process)),
            None => self.processes.zombie(pid).map(|zombie| self.zombie_info(zombie)),
        }));
        let interrupted = self.processes.interrupted.iter().filter(|_| args.all);
        list.extend(interrupted.map(|dead| ProcessInfo {
            pid: dead.pid,
            parent: Pid::KERNEL,
            uid: dead.uid,
            os_pid: 0,
            name: dead.name.clone(),
            state: ProcessState::Dead,
            status: Some(STATUS_KILLED),
            group: String::new(),
            // It did not outlive the daemon, whatever else it did.
            lifetime: Lifetime::Connection,
            caps: Vec::new(),
            // Nobody knows when it began.
            age_ms: 0,
            ..self.kernel_info()
        }));
        let sees_all = caller.caps.has(Capability::Kill);
        list.retain(|p| p.pid == Pid::KERNEL || p.uid == caller.uid || sees_all);
        Reply::Processes(list)
    }

    /// All processes in the table with what they are doing, for tests of which state leads to which.
    pub fn states(&self) -> impl Iterator<Item = (Pid, ProcessState)> {
        self.processes.pids().map(|pid| match self.processes.living(pid) {
            Some(process) => (pid, self.state(process).0),
            None => (pid, ProcessState::Zombie),
        })
    }

    fn kernel_info(&self) -> ProcessInfo {
        ProcessInfo {
            pid: Pid::KERNEL,
            parent: Pid(0),
            uid: 0,
            os_pid: self.config.host.os_pid,
            name: "kernel".into(),
            state: ProcessState::Idle,
            waits_for: None,
            class: Class::Normal,
            nice: 0,
            contexts: 0,
            context_tokens: 0,
            frames: 0,
            oom_score: 0,
            prompt_tokens_evaluated: 0,
            tokens_generated: 0,
            service_us: 0,
            group: "/".into(),
            expected_idle_us: None,
            lifetime: Lifetime::Persistent,
            detached: false,
            caps: Caps::ALL.into(),
            age_ms: self.now.0 / 1000,
            status: None,
        }
    }

    pub(super) fn zombie_info(&self, zombie: &Zombie) -> ProcessInfo {
        let status = Some(zombie.status);
        ProcessInfo { state: ProcessState::Zombie, status, ..info(&zombie.id, self.now) }
    }

    pub(super) fn living_info(&self, process: &Process) -> ProcessInfo {
        let (state, waits_for) = self.state(process);
        ProcessInfo {
            state,
            waits_for,
            contexts: process.contexts.len() as u32,
            context_tokens: process.context_tokens,
            frames: u32::try_from(process.frames).unwrap_or(u32::MAX),
            group: self.groups.name(process.id.group),
            expected_idle_us: self.expected_idle_us(process.id.pid),
            oom_score: u32::try_from(oom_score(process)).unwrap_or(u32::MAX),
            lifetime: process.lifetime,
            caps: process.caps.into(),
            detached: process.conn.is_none(),
            ..info(&process.id, self.now)
        }
    }

    /// What a process is doing: the most that any of its calls is doing.
    fn state(&self, process: &Process) -> (ProcessState, Option<String>) {
        if process.run == Run::Stopped {
            return (ProcessState::Stopped, None);
        }
        let contexts = || process.contexts.iter().filter_map(|c| self.contexts.get(c));
        if contexts().any(|c| c.in_step) || self.turns.computes(process.id.pid, self.now) {
            return (ProcessState::Running, None);
        }
        let may_have_rows = self.empty_until(process).is_none();
        if may_have_rows && contexts().any(|c| c.place == Place::Running && self.is_ready(c)) {
            return (ProcessState::Ready, None);
        }
        let waits = process.calls.iter().filter_map(|call| self.calls.waits(*call)).next();
        match waits.map(|w| self.waits_for(process, w)) {
            Some(what) => (ProcessState::Blocked, Some(what)),
            None if process.id.counters.calls == 0 => (ProcessState::New, None),
            None => (ProcessState::Idle, None),
        }
    }

    fn is_ready(&self, context: &Context) -> bool {
        self.models.get(&context.model).is_some_and(|m| m.is_ready())
    }

    fn is_loaded(&self, context: &Context) -> bool {
        self.models.get(&context.model).is_some_and(|m| m.placement.is_some())
    }

    pub(super) fn waits_for(&self, process: &Process, waits: &Waits) -> String {
        let name = |model| self.models.get(model).map_or("a model", |m| m.name.as_str());
        match waits {
            Waits::Child(Some(pid)) => format!("process {pid}"),
            Waits::Child(None) => "a child".into(),
            Waits::Message => "a message".into(),
            Waits::Store => "the store".into(),
            Waits::Turn => "its turn to compute".into(),
            Waits::Events(_) => "events".into(),
            Waits::Calls(_) => "calls of others".into(),
            Waits::Output(pid, _) => format!("the output of process {pid}"),
            Waits::Service(name, _) => format!("service {name}"),
            Waits::Signal => "a signal".into(),
            Waits::Start(pid) => format!("the start of process {pid}"),
            Waits::Answer(model) => format!("an answer of {}", name(model)),
            Waits::Mount(model) | Waits::Open(model, _) => format!("the loading of {}", name(model)),
            Waits::Context(id) => match self.contexts.get(id) {
                Some(_) if !self.is_read(process) => "its reader".into(),
                Some(c) if !self.is_loaded(c) => format!("the loading of {}", name(&c.model)),
                Some(c) if !self.is_ready(c) => format!("the worker of {}", name(&c.model)),
                Some(c) if c.place.runs() && self.empty_until(process).is_some() => {
                    "tokens of its rate".into()
                }
                Some(c) if c.place == Place::Waiting => format!("frames of {}", name(&c.model)),
                Some(c) => format!("an answer of {}", name(&c.model)),
                None => {
                    self.asleep.get(id).map_or("a context".into(), |c| format!("the loading of {}", c.model))
                }
            },
        }
    }
}

fn info(id: &Identity, now: Now) -> ProcessInfo {
    ProcessInfo {
        pid: id.pid,
        parent: id.parent,
        uid: id.uid,
        os_pid: id.os_pid,
        name: id.name.clone(),
        state: ProcessState::Idle,
        waits_for: None,
        class: id.class,
        nice: id.nice,
        contexts: 0,
        context_tokens: 0,
        frames: 0,
        oom_score: 0,
        prompt_tokens_evaluated: id.counters.prompt_tokens_evaluated,
        tokens_generated: id.counters.tokens_generated,
        service_us: id.counters.step_us,
        group: String::new(),
        expected_idle_us: None,
        lifetime: Lifetime::Connection,
        detached: false,
        caps: Vec::new(),
        age_ms: now.0.saturating_sub(id.started.0) / 1000,
        status: None,
    }
}
