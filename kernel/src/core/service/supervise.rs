//! What becomes of a service whose program has started or ended.

use syscalls::Pid;

use super::super::Kernel;
use super::super::effect::{Effect, LogLevel};
use super::super::event::Now;
use super::attempts::{describe, is_clean, restarts};
use super::{State, Then};

/// The status of a service whose program could not be started, as of shells.
pub(super) const STATUS_NOT_STARTED: u8 = 126;

impl Kernel {
    /// The program of a run has started.
    pub(in crate::core) fn service_started(&mut self, pid: Pid) {
        let Some(name) = self.services.of(pid).map(str::to_owned) else { return };
        if self.services.get(&name).is_some_and(|service| service.state == State::Starting(pid)) {
            self.set_service(&name, State::Running(pid));
        }
    }

    /// The program of a run has ended, or was never started, and why.
    pub(in crate::core) fn service_ended(&mut self, pid: Pid, status: u8, why: Option<String>) {
        let Some(name) = self.services.of(pid).map(str::to_owned) else { return };
        let now = self.now;
        let Some(service) = self.services.get_mut(&name) else { return };
        service.status = Some(status);
        match service.state {
            State::Stopping { then: Then::Rest, .. } => self.set_service(&name, State::Inactive),
            State::Stopping { then: Then::Start, .. } => {
                service.begin_anew();
                self.set_service(&name, State::Waiting);
            }
            State::Running(_) => {
                let ran_us = now.0.saturating_sub(service.since.0);
                self.service_over(&name, status, why, ran_us);
            }
            State::Starting(_) => self.service_over(&name, status, why, 0),
            State::Inactive | State::Waiting | State::Backoff(_) | State::Failed(_) => {}
        }
    }

    /// Decides about a service that has ended by itself after so long: another start after a pause, or none. The limit of
    /// starts is looked at when the pause is over.
    pub(super) fn service_over(&mut self, name: &str, status: u8, why: Option<String>, ran_us: u64) {
        let now = self.now;
        let Some(service) = self.services.get_mut(name) else { return };
        let what = why.unwrap_or_else(|| describe(status));
        let rules = service.config.rules;
        let (level, line, state) = if restarts(service.config.restart, status) {
            let pause_ms = service.attempts.pause_ms(rules, ran_us);
            let at = Now(now.0.saturating_add(pause_ms.saturating_mul(1000)));
            let line = format!("service {name} {what}; it is started again in {pause_ms} ms");
            (LogLevel::Info, line, State::Backoff(at))
        } else if is_clean(status) {
            (LogLevel::Info, format!("service {name} has {what}"), State::Inactive)
        } else {
            (LogLevel::Warn, format!("service {name} has failed: {what}"), State::Failed(what))
        };
        self.out.push(Effect::Log(level, line));
        self.set_service(name, state);
    }
}
