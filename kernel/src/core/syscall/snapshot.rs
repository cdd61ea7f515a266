//! `snapshot`, `restore`, `snapshots` and `discard`: keep a context under a name, open one from there, list what there
//! is, and remove it.

use syscalls::call::{Discard, Restore, Snapshot};
use syscalls::{Errno, Fault, Reply};

use super::super::Kernel;
use super::super::call::{Opening, Waits};
use super::super::context::Work;
use super::{Caller, DONE, Next, Outcome, check_name};

impl Kernel {
    pub(super) fn sys_snapshot(&self, caller: &Caller, args: Snapshot) -> Outcome {
        check_name("a snapshot", &args.name)?;
        if self.own_context(caller, args.context)?.log.is_empty() {
            let message = format!("context {} is empty, so there is nothing to keep", args.context);
            return Err(Fault::new(Errno::EINVAL, message));
        }
        Ok(Next::Queue(args.context, Work::Snapshot(args)))
    }

    /// Waits, as `open` does, where the model is not loaded: whether it is the right one is known only then.
    pub(super) fn sys_restore(&mut self, caller: &Caller, args: Restore) -> Outcome {
        let model = self.model_of_snapshot(caller.uid, &args.name)?;
        model.check_usable()?;
        let id = model.id;
        if !model.takes_contexts() {
            return Ok(Next::Wait(Waits::Open(id, Box::new(Opening::Snapshot(args.name))), None));
        }
        self.restore_snapshot(caller.pid, id, &args.name).map(Next::Reply)
    }

    pub(super) fn sys_snapshots(&self, caller: &Caller) -> Reply {
        Reply::Snapshots(self.snapshot_list(caller.uid))
    }

    pub(super) fn sys_discard(&mut self, caller: &Caller, args: &Discard) -> Outcome {
        self.discard(caller.uid, &args.name)?;
        DONE
    }
}
