//! Models that a worker makes up to try itself with. They are in memory, since a disk that is full says nothing about
//! the CPU.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use drivers::gguf::random::Shape;
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A file of random weights that is there as long as this.
pub struct Made(OwnedFd);

impl Made {
    /// Makes one of this shape.
    ///
    /// # Errors
    ///
    /// No memory or no descriptor is left, or the sizes do not fit together.
    pub fn of(shape: &Shape) -> io::Result<Made> {
        let file = memfd_create(c"llmasos-made", MFdFlags::MFD_CLOEXEC)?;
        shape.write_to(file.try_clone()?.into())?;
        Ok(Made(file))
    }

    /// Where this process opens it.
    pub fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}
