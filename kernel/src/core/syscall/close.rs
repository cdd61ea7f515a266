//! `close`: closes a context. It does not wait in line: a client that wants to be rid of a context is not made to
//! wait for what it generates.

use syscalls::call::Close;
use syscalls::{Errno, Fault};

use super::super::Kernel;
use super::{Caller, DONE, Outcome};

impl Kernel {
    pub(super) fn sys_close(&mut self, caller: &Caller, args: &Close) -> Outcome {
        self.own_context(caller, args.context)?;
        let fault = Fault::new(Errno::ECANCELED, format!("context {} has been closed", args.context));
        self.close_context(args.context, &fault);
        DONE
    }
}
