//! `close`: closes a context. It does not wait in line: a client that wants to be rid of a context is not made to
//! wait for what it generates. One that sleeps and can never be woken is closed as well.

use syscalls::call::Close;
use syscalls::{Errno, Fault};

use super::super::Kernel;
use super::super::image::ContextImage;
use super::{Caller, DONE, Outcome};

impl Kernel {
    pub(super) fn sys_close(&mut self, caller: &Caller, args: &Close) -> Outcome {
        let closed = Fault::new(Errno::ECANCELED, format!("context {} has been closed", args.context));
        if let Err(fault) = self.own_context(caller, args.context) {
            let own = |image: &ContextImage| image.id == args.context && image.owner == caller.pid;
            if fault.errno == Errno::EAGAIN || !self.asleep.get(&args.context).is_some_and(own) {
                return Err(fault);
            }
            self.forget_asleep(own, &closed);
            self.devices.reconsider();
            return DONE;
        }
        self.close_context(args.context, &closed);
        DONE
    }
}
