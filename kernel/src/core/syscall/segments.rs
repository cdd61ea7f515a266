//! `segments`: lists shared segments.

use syscalls::Reply;

use super::super::Kernel;
use super::Caller;

impl Kernel {
    pub(super) fn sys_segments(&self, caller: &Caller) -> Reply {
        Reply::Segments(self.segment_list(caller.uid, caller.caps))
    }
}
