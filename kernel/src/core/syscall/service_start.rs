//! `service_start`: starts a service, or makes a transient one.

use syscalls::call::{Capability, ServiceStart, Transient};
use syscalls::limits::{SERVICE_STARTS_MAX, SERVICES_MAX, SERVICES_PER_USER_MAX};
use syscalls::{Errno, Fault};

use super::super::Kernel;
use super::super::call::Waits;
use super::super::capability::Caps;
use super::super::service::{Goal, Service, ServiceConfig, is_service_name};
use super::hello::check_priority;
use super::spawn::check_arguments;
use super::{Caller, Next, Outcome};

impl Kernel {
    pub(super) fn sys_service_start(&mut self, caller: &Caller, args: ServiceStart) -> Outcome {
        match args.transient {
            Some(transient) => {
                let config = self.transient(caller, &args.name, transient)?;
                self.make_service(config);
            }
            None => {
                self.managed(caller, &args.name)?;
            }
        }
        self.want_service(&args.name);
        self.when_settled(&args.name, Goal::Up)
    }

    fn transient(&self, caller: &Caller, name: &str, args: Transient) -> Result<ServiceConfig, Fault> {
        if !is_service_name(name) {
            let message =
                format!("`{name}` names no service; use letters, digits, dots, dashes and underscores");
            return Err(Fault::new(Errno::EINVAL, message));
        }
        if self.services.get(name).is_some() {
            return Err(Fault::new(Errno::EEXIST, format!("there is a service {name}; choose another name")));
        }
        let own = self.services.all().filter(|s| s.transient && s.config.uid == caller.uid).count();
        let all = self.services.all().count();
        if all >= SERVICES_MAX || own >= SERVICES_PER_USER_MAX {
            let message = format!(
                "there are {all} services, {own} of them transient ones of user {}; the limits are {SERVICES_MAX} and {SERVICES_PER_USER_MAX}, stop some",
                caller.uid
            );
            return Err(Fault::new(Errno::EMFILE, message));
        }
        if args.argv.is_empty() {
            return Err(Fault::new(Errno::EINVAL, "argv is empty; name a program"));
        }
        check_arguments(&args.argv)?;
        let burst = args.rules.start_limit_burst;
        if !(1..=SERVICE_STARTS_MAX).contains(&burst) {
            let message = format!("start_limit_burst is {burst}; it must be from 1 to {SERVICE_STARTS_MAX}");
            return Err(Fault::new(Errno::EINVAL, message));
        }
        let (first, longest) = (args.rules.backoff_start_ms, args.rules.backoff_max_ms);
        if first == 0 || first > longest {
            let message = format!(
                "backoff_start_ms is {first}; it must be from 1 to backoff_max_ms, which is {longest}"
            );
            return Err(Fault::new(Errno::EINVAL, message));
        }
        let process = self.process(caller.pid)?;
        let had = (process.id.class, process.id.nice);
        let (class, nice) = (args.class.unwrap_or(had.0), args.nice.unwrap_or(had.1));
        check_priority(caller.caps, had, (class, nice))?;
        caller.caps.need(Capability::Persist, "a service, which outlives its connection,")?;
        let limits = process.limits.into();
        let mut config = ServiceConfig::new(name, args.argv, caller.uid);
        (config.class, config.nice, config.group) = (class, nice, args.group);
        (config.restart, config.rules, config.limits) = (args.restart, args.rules, limits);
        (config.enabled, config.stop_grace_ms) = (false, self.config.term_grace_ms);
        config.caps = caller.caps & Caps::USER;
        Ok(config)
    }

    /// A service that the caller may start and stop.
    ///
    /// # Errors
    ///
    /// ENOENT where there is none, EPERM where it is not his.
    pub(super) fn managed(&self, caller: &Caller, name: &str) -> Result<&Service, Fault> {
        let service = self.service(name)?;
        let own = service.transient && service.config.uid == caller.uid;
        let (capability, whose) = match own {
            true => (Capability::Signal, "one's own"),
            false => (Capability::Kill, "of the configuration or of another user"),
        };
        caller.caps.need(capability, &format!("starting or stopping {name}, a service {whose},"))?;
        Ok(service)
    }

    /// A service.
    ///
    /// # Errors
    ///
    /// ENOENT where there is none.
    pub(super) fn service(&self, name: &str) -> Result<&Service, Fault> {
        let unknown =
            || Fault::new(Errno::ENOENT, format!("there is no service {name}; service_list has all"));
        self.services.get(name).ok_or_else(unknown)
    }

    /// Answers when a service is where it was asked to be.
    pub(super) fn when_settled(&self, name: &str, goal: Goal) -> Outcome {
        match self.service_reply(name, goal) {
            Some(reply) => reply.map(Next::Reply),
            None => Ok(Next::Wait(Waits::Service(name.to_owned(), goal), None)),
        }
    }
}
