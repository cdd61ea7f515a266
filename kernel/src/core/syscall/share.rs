//! `share` and `unshare`: publish the beginning of a context under a name, and take it back.

use syscalls::call::{Share, Unshare};
use syscalls::{Errno, Fault};

use super::super::Kernel;
use super::super::context::Work;
use super::named::check_name;
use super::{Caller, DONE, Next, Outcome};

/// All permission bits of files.
const MODE_MAX: u32 = 0o777;

impl Kernel {
    pub(super) fn sys_share(&self, caller: &Caller, args: Share) -> Outcome {
        check_name("a segment", &args.name)?;
        self.own_context(caller, args.context)?;
        if args.mode > MODE_MAX {
            let message = format!("mode is {:#o}; permission bits go from 0o000 to 0o777", args.mode);
            return Err(Fault::new(Errno::EINVAL, message));
        }
        if args.length.is_some_and(|n| n.0 == 0) {
            let message = "length is 0; publish at least 1 token, or remove a segment with unshare";
            return Err(Fault::new(Errno::EINVAL, message));
        }
        Ok(Next::Queue(args.context, Work::Share(args)))
    }

    pub(super) fn sys_unshare(&mut self, caller: &Caller, args: &Unshare) -> Outcome {
        self.unshare(&args.name, caller.uid, caller.caps)?;
        DONE
    }
}
