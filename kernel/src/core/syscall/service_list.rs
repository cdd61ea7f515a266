//! `service_list`: lists services.

use syscalls::Reply;

use super::super::Kernel;

impl Kernel {
    pub(super) fn sys_service_list(&self) -> Reply {
        Reply::Services(self.services.all().map(|service| self.service_info(service)).collect())
    }
}
