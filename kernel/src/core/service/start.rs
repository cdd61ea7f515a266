//! The start of services: who is started, when, and as what.

use std::collections::BTreeSet;

use super::super::Kernel;
use super::super::counters::Counters;
use super::super::effect::{Effect, LogLevel, Program};
use super::super::group::GroupId;
use super::super::process::Identity;
use super::attempts::is_clean;
use super::{State, Then};
use syscalls::{Errno, Fault, Pid};

/// Whether a service that waits may be started.
enum Readiness {
    Ready,
    /// Somebody before it is on the way.
    NotYet,
    /// What it requires will not run.
    Never(String),
}

impl Kernel {
    /// Starts what is to be started with the daemon.
    pub(in crate::core) fn start_enabled_services(&mut self) {
        let enabled = self.services.all().filter(|s| s.config.enabled).map(|s| s.config.name.clone());
        for name in enabled.collect::<Vec<_>>() {
            self.want_service(&name);
        }
    }

    /// Has a service started, and those that it requires, because somebody asks for it.
    pub(in crate::core) fn want_service(&mut self, name: &str) {
        let (mut seen, mut line) = (BTreeSet::new(), vec![name.to_owned()]);
        while let Some(name) = line.pop() {
            // Two may require the same one.
            if !seen.insert(name.clone()) {
                continue;
            }
            let Some(service) = self.services.get_mut(&name) else { continue };
            line.extend(service.config.requires.iter().cloned());
            match &mut service.state {
                State::Stopping { then, .. } => *then = Then::Start,
                State::Inactive | State::Failed(_) | State::Backoff(_) => {
                    service.begin_anew();
                    self.set_service(&name, State::Waiting);
                }
                State::Waiting | State::Starting(_) | State::Running(_) => {}
            }
        }
    }

    /// Lets services go on that waited for the time, or for others.
    pub(in crate::core) fn advance_services(&mut self) {
        while let Some((_, name)) = self.services.pauses.first().filter(|(at, _)| *at <= self.now).cloned() {
            if let Some(service) = self.services.get_mut(&name) {
                service.restarts += 1;
            }
            self.set_service(&name, State::Waiting);
        }
        while std::mem::take(&mut self.services.stirred) {
            let waits = |s: &State| matches!(s, State::Waiting | State::Stopping { told: false, .. });
            let waiting = self.services.all.iter().filter(|(_, service)| waits(&service.state));
            for name in waiting.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
                self.advance_service(&name);
            }
        }
    }

    fn advance_service(&mut self, name: &str) {
        match self.services.get(name).map(|service| &service.state) {
            Some(State::Waiting) => match self.readiness(name) {
                Readiness::Ready => self.launch_service(name),
                Readiness::NotYet => {}
                Readiness::Never(reason) => self.fail_service(name, reason),
            },
            Some(State::Stopping { told: false, .. }) => self.tell_to_stop(name),
            _ => {}
        }
    }

    fn readiness(&self, name: &str) -> Readiness {
        let Some(service) = self.services.get(name) else { return Readiness::NotYet };
        let state = |of: &str| self.services.get(of).map(|s| (&s.state, s.status));
        let mut readiness = Readiness::Ready;
        for of in &service.config.requires {
            match state(of) {
                Some((State::Running(_), _)) => {}
                // One that does its work and ends has done it.
                Some((State::Inactive, Some(status))) if is_clean(status) => {}
                Some((State::Failed(reason), _)) => {
                    return Readiness::Never(format!("it requires `{of}`, which has failed: {reason}"));
                }
                Some((State::Inactive, _) | (State::Stopping { then: Then::Rest, .. }, _)) | None => {
                    return Readiness::Never(format!("it requires `{of}`, which does not run; start that"));
                }
                Some(_) => readiness = Readiness::NotYet,
            }
        }
        for of in &service.config.after {
            if let Some((State::Waiting | State::Starting(_) | State::Stopping { .. }, _)) = state(of) {
                readiness = Readiness::NotYet;
            }
        }
        readiness
    }

    fn launch_service(&mut self, name: &str) {
        let now = self.now;
        let Some(service) = self.services.get_mut(name) else { return };
        let rules = service.config.rules;
        if let Err(limit) = service.attempts.start(rules, now) {
            let last = service.status.map(super::attempts::describe);
            return self
                .fail_service(name, format!("{limit}; it last {}", last.unwrap_or("was refused".into())));
        }
        match self.launch_run(name) {
            Ok(pid) => {
                if let Some(service) = self.services.get_mut(name) {
                    service.pid = Some(pid);
                }
                self.set_service(name, State::Starting(pid));
            }
            Err(fault) => {
                self.service_over(name, super::supervise::STATUS_NOT_STARTED, Some(fault.message), 0)
            }
        }
    }

    /// Makes the process of a run, and has its program started.
    fn launch_run(&mut self, name: &str) -> Result<Pid, Fault> {
        let gone = || Fault::new(Errno::ENOENT, format!("there is no service {name}"));
        let (config, before) = self.services.get(name).map(|s| (s.config.clone(), s.pid)).ok_or_else(gone)?;
        self.check_programs()?;
        let most = self.config.user.processes;
        self.processes.of_user().check(config.uid, config.caps, 1, most, "processes")?;
        let pid = self.processes.next_pid()?;
        let group = self.enter_group(GroupId::ROOT, config.uid, config.group.as_deref(), pid)?;
        let id = Identity {
            pid,
            parent: Pid::KERNEL,
            uid: config.uid,
            os_pid: 0,
            name: config.name,
            class: config.class,
            nice: config.nice,
            group,
            started: self.now,
            counters: Counters::default(),
        };
        let environment = config.environment;
        let program = Program { environment, ..Program::new(config.argv, config.uid) };
        self.begin_program(id, config.caps, config.limits.into(), program);
        self.outputs.continue_as(before, pid);
        Ok(pid)
    }

    fn fail_service(&mut self, name: &str, reason: String) {
        self.out.push(Effect::Log(LogLevel::Warn, format!("service {name} has failed: {reason}")));
        self.set_service(name, State::Failed(reason));
    }
}
