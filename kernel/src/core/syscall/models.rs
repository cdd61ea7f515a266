//! `models`: lists mounted models, in the order of mounting.

use syscalls::Reply;

use super::super::Kernel;

impl Kernel {
    pub(super) fn sys_models(&self) -> Reply {
        Reply::Models(self.models.values().map(|m| self.model_info(m)).collect())
    }
}
