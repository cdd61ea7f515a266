//! `segments`: lists shared segments.

use syscalls::Reply;

use super::super::Kernel;

impl Kernel {
    pub(super) fn sys_segments(&self) -> Reply {
        Reply::Segments(self.segment_list())
    }
}
