//! `service_status`: describes a service. Everybody may ask; what it runs and prints is for its user.

use syscalls::Reply;
use syscalls::call::{Capability, ServiceStatus};

use super::super::Kernel;
use super::{Caller, Next, Outcome};

impl Kernel {
    pub(super) fn sys_service_status(&self, caller: &Caller, args: &ServiceStatus) -> Outcome {
        let service = self.service(&args.name)?;
        let readable = service.config.uid == caller.uid || caller.caps.has(Capability::Kill);
        Ok(Next::Reply(Reply::ServiceStatus(self.service_status(service, args.lines, readable))))
    }
}
