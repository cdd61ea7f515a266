//! `setlimit`: changes a limit of a process. Anybody may lower the limits of his own processes; only the
//! administrator raises them again. What a process has above a lowered limit it keeps.

use syscalls::call::{Capability, Limit, Setlimit};
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
        if args.then.is_some() && !matches!(args.limit, Limit::GeneratedTokens | Limit::ServiceUs) {
            let message = "only generated_tokens and service_us can be used up; leave then out";
            return Err(Fault::new(Errno::EINVAL, message));
        }
        let now = self.now;
        let Some(process) = self.processes.living_mut(args.pid) else { return DONE };
        let (milder, limited) = process.limits.is_milder(args);
        if milder && limited {
            caller.caps.need(Capability::Resource, "making milder what happens at a limit")?;
        }
        let limit = match args.limit {
            Limit::Contexts => &mut process.limits.contexts,
            Limit::ContextTokens => &mut process.limits.context_tokens,
            Limit::ResidentFrames => &mut process.limits.resident_frames,
            Limit::GeneratedTokens => &mut process.limits.generated_tokens,
            Limit::SwapPages => &mut process.limits.swap_pages,
            Limit::ServiceUs => &mut process.limits.service_us,
            Limit::TokensPerSecond => &mut process.limits.tokens_per_second,
        };
        let raised = limit.is_some_and(|had| args.value.is_none_or(|wanted| wanted > had));
        if raised {
            let what = format!("raising the limit from {}", limit.unwrap_or_default());
            caller.caps.need(Capability::Resource, &what)?;
        }
        *limit = args.value;
        match args.limit {
            Limit::GeneratedTokens => process.limits.generated_then = args.then,
            Limit::ServiceUs => process.limits.service_then = args.then,
            _ => {}
        }
        if args.limit == Limit::TokensPerSecond {
            let before = process.bucket;
            process.bucket = args.value.map(|rate| Bucket::in_place_of(before, rate, now));
            self.recall(args.pid);
        }
        if args.limit == Limit::ServiceUs {
            self.service_limit_changed(args.pid);
        }
        self.touch_process(args.pid);
        DONE
    }
}
