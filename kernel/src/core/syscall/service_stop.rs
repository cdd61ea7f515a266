//! `service_stop`: stops a service.

use syscalls::Reply;
use syscalls::call::ServiceStop;
use syscalls::reply::ServiceState;

use super::super::Kernel;
use super::super::service::{Goal, Then};
use super::{Caller, Next, Outcome};

impl Kernel {
    /// One that has failed has not any more, and a transient one that does not run is gone at once.
    pub(super) fn sys_service_stop(&mut self, caller: &Caller, args: &ServiceStop) -> Outcome {
        let mut info = self.service_info(self.managed(caller, &args.name)?);
        self.stop_service(&args.name, Then::Rest);
        if self.services.get(&args.name).is_none() {
            (info.state, info.reason, info.next_start_ms) = (ServiceState::Inactive, None, None);
            return Ok(Next::Reply(Reply::Service(info)));
        }
        self.when_settled(&args.name, Goal::Down)
    }
}
