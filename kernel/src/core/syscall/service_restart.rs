//! `service_restart`: stops a service and starts it again.

use syscalls::call::ServiceRestart;

use super::super::Kernel;
use super::super::service::{Goal, Then};
use super::{Caller, Outcome};

impl Kernel {
    pub(super) fn sys_service_restart(&mut self, caller: &Caller, args: &ServiceRestart) -> Outcome {
        self.managed(caller, &args.name)?;
        self.stop_service(&args.name, Then::Start);
        self.when_settled(&args.name, Goal::Up)
    }
}
