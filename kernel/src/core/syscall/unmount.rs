//! `unmount`: takes a model away.

use syscalls::call::Unmount;
use syscalls::{Errno, Fault};

use super::super::Kernel;
use super::{DONE, Outcome};

impl Kernel {
    pub(super) fn sys_unmount(&mut self, args: &Unmount) -> Outcome {
        let model = self.model_named(&args.name)?;
        let asleep = self.asleep.values().filter(|image| image.model == args.name).count();
        let (id, contexts) = (model.id, model.contexts.len() + asleep);
        let waiters = model.waiters.iter().filter(|(call, _)| self.calls.get(*call).is_some()).count();
        if !args.force && contexts + waiters > 0 {
            let message = format!(
                "model {} has {contexts} contexts and {waiters} calls that wait for it; close them, or use force",
                args.name
            );
            return Err(Fault::new(Errno::EBUSY, message));
        }
        self.remove_model(id);
        DONE
    }
}
