//! Limits of what a process may use up in its life, and what becomes of it when it has: its generations end and further
//! ones are refused, or it gets XCPU, or it is stopped as by STOP. Who has reached one is noted where it is counted, and
//! acted on when the event has been taken in, because ending a process in the middle of a step would change what the step
//! is about.

use syscalls::call::{AtLimit, Limit, Setlimit, Signal};
use syscalls::reply::Finish;
use syscalls::{ContextId, Errno, Fault, Pid};

use super::super::Kernel;
use super::super::effect::{Effect, LogLevel};
use super::{Limits, Process, Run};

impl Limits {
    /// What happens at the limit of generated tokens.
    pub(in crate::core) fn then_of_tokens(&self) -> AtLimit {
        self.generated_then.unwrap_or(AtLimit::Refuse)
    }

    /// Whether a change of what happens at a limit makes it milder, and whether there is that limit.
    pub(in crate::core) fn is_milder(&self, args: &Setlimit) -> (bool, bool) {
        let (now, limit) = match args.limit {
            Limit::GeneratedTokens => (self.then_of_tokens(), self.generated_tokens),
            Limit::ServiceUs => (self.then_of_service(), self.service_us),
            _ => return (false, false),
        };
        let wanted = Limits { generated_then: args.then, service_then: args.then, ..Limits::default() };
        let wanted = match args.limit {
            Limit::GeneratedTokens => wanted.then_of_tokens(),
            _ => wanted.then_of_service(),
        };
        (wanted < now, limit.is_some())
    }

    /// What happens at the limit of service.
    pub(in crate::core) fn then_of_service(&self) -> AtLimit {
        self.service_then.unwrap_or(AtLimit::Signal)
    }
}

impl Process {
    /// Charges it with time of a device; tells whether that was the last of what it may have.
    pub(in crate::core) fn serve(&mut self, us: u64) -> bool {
        let served = &mut self.id.counters.step_us;
        *served += us;
        self.limits.service_us.is_some_and(|most| *served >= most)
    }

    /// Whether it is refused further time of devices, because it has had all that it may have.
    pub(in crate::core) fn is_refused_service(&self) -> bool {
        let most = self.limits.service_us.filter(|most| self.id.counters.step_us >= *most);
        most.is_some() && self.limits.then_of_service() == AtLimit::Refuse
    }

    /// What it is told that asks for time of a device beyond its limit.
    pub(in crate::core) fn service_used_up(&self) -> Fault {
        let (had, most) = (self.id.counters.step_us, self.limits.service_us.unwrap_or_default());
        let message = format!(
            "process {} has had {had} us of models and its limit is {most}; raise it with setlimit",
            self.id.pid
        );
        Fault::new(Errno::E2BIG, message)
    }

    /// What is to be done because it has used a limit up.
    pub(in crate::core) fn at_limit(&self) -> Option<AtLimit> {
        let (used, limits) = (&self.id.counters, &self.limits);
        let tokens = limits.generated_tokens.is_some_and(|most| used.tokens_generated >= most);
        let service = limits.service_us.is_some_and(|most| used.step_us >= most);
        let then = [
            tokens.then(|| limits.then_of_tokens()).filter(|_| used.tokens_generated > 0),
            service.then(|| limits.then_of_service()).filter(|_| used.step_us > 0),
        ];
        then.into_iter().flatten().max()
    }
}

impl Kernel {
    /// Acts on what processes have used up.
    pub(in crate::core) fn enforce_quotas(&mut self) {
        for pid in std::mem::take(&mut self.used_up) {
            let Some(process) = self.processes.living(pid) else { continue };
            let (run, kill_at) = (process.run, process.kill_at);
            if process.generated_tokens_left() == 0 || process.is_refused_service() {
                // Each began with all that was left then, and together they would have it several times; and none knows
                // what time it will take.
                let contexts: Vec<ContextId> = process.contexts.iter().copied().collect();
                contexts.into_iter().for_each(|context| self.end_generation(context, Finish::Length));
            }
            let Some(process) = self.processes.living(pid) else { continue };
            match process.at_limit() {
                Some(AtLimit::Signal) if kill_at.is_none() => {
                    self.say_used_up(pid, "gets XCPU");
                    self.signal(pid, Signal::Xcpu);
                }
                Some(AtLimit::Stop) if run == Run::Going => {
                    self.say_used_up(pid, "is stopped");
                    self.signal(pid, Signal::Stop);
                }
                Some(_) | None => {}
            }
        }
    }

    fn say_used_up(&mut self, pid: Pid, what: &str) {
        let line = format!("process {pid} has used up what it may have, and {what}");
        self.out.push(Effect::Log(LogLevel::Info, line));
    }
}
