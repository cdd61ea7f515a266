//! Services of a configuration that was read again, and those that users make.

use std::collections::BTreeSet;

use super::super::Kernel;
use super::super::effect::{Effect, LogLevel};
use super::{Service, ServiceConfig, Then};

impl Kernel {
    /// Takes over what is declared now: new services come, changed ones that run are started again, and those that are
    /// declared no more are stopped and go.
    pub(in crate::core) fn declare_services(&mut self, declared: Vec<ServiceConfig>) {
        let names: BTreeSet<&str> = declared.iter().map(|config| config.name.as_str()).collect();
        let gone = |s: &&Service| !s.transient && !s.leaving && !names.contains(s.config.name.as_str());
        let gone: Vec<String> = self.services.all().filter(gone).map(|s| s.config.name.clone()).collect();
        let (mut again, mut wanted) = (Vec::new(), Vec::new());
        for config in declared {
            let name = config.name.clone();
            match self.services.get_mut(&name) {
                None => {
                    wanted.extend(config.enabled.then(|| name.clone()));
                    self.services.all.insert(name, Service::new(config, false, self.now));
                }
                Some(service) if service.transient => {
                    let line = format!(
                        "service {name} is not taken over: a transient one has the name; stop it and reload"
                    );
                    self.out.push(Effect::Log(LogLevel::Error, line));
                }
                Some(service) if service.leaving => {
                    service.leaving = false;
                    wanted.extend(config.enabled.then_some(name));
                    service.config = config;
                }
                Some(service) if service.config != config => {
                    let newly_enabled = config.enabled && !service.config.enabled;
                    match service.state.is_up() {
                        true => again.push(name),
                        false if newly_enabled => wanted.push(name),
                        false => {}
                    }
                    service.config = config;
                }
                Some(_) => {}
            }
        }
        for name in &gone {
            if let Some(service) = self.services.get_mut(name) {
                service.leaving = true;
            }
            self.stop_service(name, Then::Rest);
        }
        again.iter().for_each(|name| self.stop_service(name, Then::Start));
        wanted.iter().for_each(|name| self.want_service(name));
    }

    /// Makes a transient service, which is not started yet.
    pub(in crate::core) fn make_service(&mut self, config: ServiceConfig) {
        let service = Service::new(config, true, self.now);
        let before = self.services.all.insert(service.config.name.clone(), service);
        assert!(before.is_none(), "the caller has checked that the name is free");
    }
}
