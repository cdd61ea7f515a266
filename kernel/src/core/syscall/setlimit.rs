//! `setlimit`: changes a limit of a process. Anybody may lower the limits of his own processes; only the
//! administrator raises them again. What a process has above a lowered limit it keeps.

use syscalls::call::{Limit, Setlimit};
use syscalls::{Errno, Fault};

use super::super::Kernel;
use super::super::sched::Bucket;
use super::setgroup::check_rate;
use super::{Caller, DONE, Outcome};

impl Kernel {
    pub(super) fn sys_setlimit(&mut self, caller: &Caller, args: &Setlimit) -> Outcome {
        self.subject(caller, args.pid)?;
        if args.limit == Limit::TokensPerSecond {
            check_rate(args.value)?;
        }
        let now = self.now;
        let Some(process) = self.processes.living_mut(args.pid) else { return DONE };
        let limit = match args.limit {
            Limit::Contexts => &mut process.limits.contexts,
            Limit::ContextTokens => &mut process.limits.context_tokens,
            Limit::ResidentFrames => &mut process.limits.resident_frames,
            Limit::GeneratedTokens => &mut process.limits.generated_tokens,
            Limit::SwapPages => &mut process.limits.swap_pages,
            Limit::TokensPerSecond => &mut process.limits.tokens_per_second,
        };
        let raised = limit.is_some_and(|had| args.value.is_none_or(|wanted| wanted > had));
        if raised && !caller.admin {
            let had = limit.unwrap_or_default();
            let message = format!("the limit is {had}, and only the administrator can raise it");
            return Err(Fault::new(Errno::EPERM, message));
        }
        *limit = args.value;
        if args.limit == Limit::TokensPerSecond {
            process.bucket = args.value.map(|rate| Bucket::new(rate, now));
        }
        self.touch_process(args.pid);
        DONE
    }
}
