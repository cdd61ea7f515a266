//! `setpolicy`: changes how the contexts of a class share a model. What processes have attained under another policy
//! says nothing under the new one, so all begin level.

use syscalls::call::Setpolicy;

use super::super::Kernel;
use super::super::sched::policy::Policy;
use super::{DONE, Outcome};

impl Kernel {
    pub(super) fn sys_setpolicy(&mut self, args: &Setpolicy) -> Outcome {
        let policy: Policy = args.policy.parse()?;
        if policy != self.config.policy {
            self.config.policy = policy;
            self.models.values_mut().for_each(|model| model.sched.accounts.level());
            self.restand_all();
        }
        DONE
    }
}
