//! What is told of services, and to whom.

use syscalls::reply::{ServiceInfo, ServiceProgram, ServiceStatusReply};
use syscalls::{Errno, Event, Fault, Reply};

use super::super::Kernel;
use super::super::call::{CallNo, Waits};
use super::{Service, State};

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) enum Goal {
    /// That it runs.
    Up,
    /// That it does not.
    Down,
}

impl Kernel {
    /// What is told of a service.
    pub(in crate::core) fn service_info(&self, service: &Service) -> ServiceInfo {
        let config = &service.config;
        let (reason, next) = match &service.state {
            State::Failed(reason) => (Some(reason.clone()), None),
            State::Backoff(at) => (None, Some(at.0.saturating_sub(self.now.0) / 1000)),
            _ => (None, None),
        };
        ServiceInfo {
            name: config.name.clone(),
            state: service.state.name(),
            reason,
            uid: config.uid,
            pid: service.pid,
            status: service.status,
            restarts: service.restarts,
            since_ms: self.now.0.saturating_sub(service.since.0) / 1000,
            next_start_ms: next,
            enabled: config.enabled,
            transient: service.transient,
            restart: config.restart,
            after: config.after.clone(),
            requires: config.requires.clone(),
        }
    }

    /// The same, with what its program has printed for those who may read it.
    pub(in crate::core) fn service_status(
        &self,
        service: &Service,
        lines: Option<u32>,
        readable: bool,
    ) -> ServiceStatusReply {
        let program = readable.then(|| ServiceProgram {
            argv: service.config.argv.clone(),
            output: service.pid.and_then(|pid| self.outputs.last(pid, lines)).unwrap_or_default(),
        });
        ServiceStatusReply { service: self.service_info(service), program }
    }

    /// The answer to a call that waits for a service, once there is one.
    pub(in crate::core) fn service_reply(&self, name: &str, goal: Goal) -> Option<Result<Reply, Fault>> {
        let service = self.services.get(name)?;
        match (&service.state, goal) {
            (State::Failed(reason), Goal::Up) => {
                Some(Err(Fault::new(Errno::EIO, format!("service {name} has failed: {reason}"))))
            }
            (State::Running(_), Goal::Up) | (State::Failed(_), Goal::Down) | (State::Inactive, _) => {
                Some(Ok(Reply::Service(self.service_info(service))))
            }
            _ => None,
        }
    }

    /// Answers the calls that wait for the state in which a service is now.
    pub(super) fn answer_service(&mut self, name: &str) {
        let Some(service) = self.services.get(name) else { return };
        let waiters: Vec<CallNo> = service.waiters.iter().copied().collect();
        for call in waiters {
            let Some(Waits::Service(_, goal)) = self.calls.waits(call) else { continue };
            if let Some(reply) = self.service_reply(name, *goal) {
                self.finish(call, reply);
            }
        }
    }

    /// What subscribers are told of a change.
    pub(in crate::core) fn service_event(&self, name: &str) -> Option<Event> {
        let info = self.service_info(self.services.get(name)?);
        let (state, pid, reason) = (info.state, info.pid, info.reason);
        Some(Event::Service { at_us: self.now.0, name: info.name, state, pid, reason })
    }
}
