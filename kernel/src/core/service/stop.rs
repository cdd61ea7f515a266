//! The stop of services, those first that require others.

use syscalls::call::Signal;

use super::super::Kernel;
use super::State;

/// What becomes of a service whose program was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) enum Then {
    Rest,
    Start,
}

impl Kernel {
    /// Stops a service, for good or to start it again, and those that require it.
    pub(in crate::core) fn stop_service(&mut self, name: &str, then: Then) {
        let Some(service) = self.services.get_mut(name) else { return };
        let was_up = service.state.is_up();
        match (&mut service.state, then) {
            (State::Starting(pid) | State::Running(pid), then) => {
                let pid = *pid;
                self.set_service(name, State::Stopping { pid, told: false, then });
            }
            (State::Stopping { then: before, .. }, then) => *before = then,
            (_, Then::Rest) => self.set_service(name, State::Inactive),
            (_, Then::Start) => self.want_service(name),
        }
        if was_up {
            for dependent in self.dependents(name) {
                self.stop_service(&dependent, then);
            }
        }
    }

    /// Sends a service its signal, unless somebody who requires it still runs.
    pub(super) fn tell_to_stop(&mut self, name: &str) {
        let needed = self.services.all().any(|service| {
            service.state.has_program() && service.config.requires.iter().any(|of| of == name)
        });
        let Some(service) = self.services.get_mut(name).filter(|_| !needed) else { return };
        let State::Stopping { pid, told, .. } = &mut service.state else { return };
        *told = true;
        let (pid, signal, grace_ms) = (*pid, service.config.stop_signal, service.config.stop_grace_ms);
        match signal {
            Signal::Kill => self.signal(pid, signal),
            _ => self.ask_to_end(pid, signal, grace_ms),
        }
    }

    /// Those that require a service and run, or are on the way to.
    fn dependents(&self, name: &str) -> Vec<String> {
        let requires = |service: &&super::Service| service.config.requires.iter().any(|of| of == name);
        let up = self.services.all().filter(requires).filter(|service| service.state.is_up());
        up.map(|service| service.config.name.clone()).collect()
    }
}
