//! `snapshot`, `restore`, `snapshots` and `discard`: keep a context under a name, open one from there, list what there
//! is, and remove it.

use syscalls::call::{Discard, Restore, Snapshot};
use syscalls::{Errno, Fault, Reply};

use super::super::Kernel;
use super::super::call::{Opening, Waits};
use super::super::context::Work;
use super::named::check_name;
use super::{Caller, DONE, Next, Outcome};

impl Kernel {
    /// A context of one's own is kept when it is its turn; another process's at once, because its line is not the
    /// caller's to stand in.
    pub(super) fn sys_snapshot(&self, caller: &Caller, args: Snapshot) -> Outcome {
        check_name("a snapshot", &args.name)?;
        let id = args.context;
        let other = self.contexts.get(&id).map(|c| c.owner).filter(|owner| *owner != caller.pid);
        let others = other.is_some_and(|owner| self.subject(caller, owner).is_ok());
        let context = if others { self.context(id)? } else { self.own_context(caller, id)? };
        if context.log.is_empty() {
            let message = format!("context {id} is empty, so there is nothing to keep");
            return Err(Fault::new(Errno::EINVAL, message));
        }
        if others {
            return self.snapshot_of(id, args).map(|record| Next::Keep(id, Box::new(record)));
        }
        Ok(Next::Queue(id, Work::Snapshot(args)))
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
