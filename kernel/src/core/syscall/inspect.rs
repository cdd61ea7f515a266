//! `inspect`: one process in full, for its user. Numbers and names alone: no prompt, no message, no text.

use drivers::wire::PAGE_TOKENS;
use syscalls::call::{AtLimit, Capability, Inspect, Limit, Signal};
use syscalls::reply::{
    ContextState, ContextView, InspectReply, LimitInfo, PageTable, PendingSignal, Stats, WaitInfo,
};
use syscalls::{Errno, Fault, Pid, Reply, Ticket, Tokens};

use super::super::Kernel;
use super::super::context::Context;
use super::super::image::ContextImage;
use super::super::process::{Process, Run, Zombie};
use super::super::sched::Place;
use super::{Caller, Next, Outcome};

impl Kernel {
    pub(super) fn sys_inspect(&self, caller: &Caller, args: &Inspect) -> Outcome {
        let pid = args.pid;
        if let Some(zombie) = self.processes.zombie(pid) {
            if zombie.id.uid != caller.uid {
                let what = format!("process {pid} belongs to user {}; reaching it", zombie.id.uid);
                caller.caps.need(Capability::Kill, &what)?;
            }
            return Ok(Next::Reply(Reply::Inspected(Box::new(self.look_at_zombie(zombie)))));
        }
        if pid == Pid::KERNEL {
            let message = "process 1 is the kernel; stat and sysinfo tell of it";
            return Err(Fault::new(Errno::EINVAL, message));
        }
        let process = self.subject(caller, pid)?;
        let stats = self.process_stats(caller, pid)?;
        Ok(Next::Reply(Reply::Inspected(Box::new(self.look_into(process, stats)))))
    }

    fn look_into(&self, process: &Process, stats: Stats) -> InspectReply {
        let pid = process.id.pid;
        let awake = process.contexts.iter().filter_map(|id| self.contexts.get(id));
        let asleep = self.asleep.values().filter(|image| image.owner == pid);
        let mut contexts: Vec<ContextView> = awake.map(|context| self.context_view(context)).collect();
        contexts.extend(asleep.map(asleep_view));
        contexts.sort_unstable_by_key(|view| view.context);
        InspectReply {
            at_us: self.now.0,
            process: self.living_info(process),
            children: self.processes.children(pid).collect(),
            waits: self.waits_of(process),
            contexts,
            limits: self.limits_of(process),
            signals: self.signals_of(process),
            messages: process.mailbox.len() as u32,
            calls: process.recent.list(),
            stats,
        }
    }

    fn look_at_zombie(&self, zombie: &Zombie) -> InspectReply {
        InspectReply {
            at_us: self.now.0,
            process: self.zombie_info(zombie),
            children: vec![],
            waits: vec![],
            contexts: vec![],
            limits: vec![],
            signals: vec![],
            messages: 0,
            calls: vec![],
            stats: zombie.id.counters.stats(),
        }
    }

    fn waits_of(&self, process: &Process) -> Vec<WaitInfo> {
        let wait = |call: &super::super::call::CallNo| {
            let pending = self.calls.get(*call)?;
            Some(WaitInfo {
                ticket: Ticket(call.0),
                call: pending.name.to_owned(),
                context: pending.context(),
                waits_for: self.waits_for(process, &pending.waits),
                for_us: self.now.0.saturating_sub(pending.since.0),
                gives_up_us: pending.deadline.map(|at| at.0.saturating_sub(self.now.0)),
            })
        };
        process.calls.iter().filter_map(wait).collect()
    }

    fn context_view(&self, context: &Context) -> ContextView {
        let (pages, shared_with) = self.page_table(context);
        let state = match context.place {
            Place::Parked => ContextState::Parked,
            Place::Idle(_) => ContextState::Idle,
            Place::Waiting => ContextState::Waiting,
            Place::Running => ContextState::Running,
        };
        ContextView {
            context: context.id,
            model: self.models.get(&context.model).map(|m| m.name.clone()).unwrap_or_default(),
            length: Tokens(context.length()),
            tokens_max: Tokens(context.tokens_max),
            state,
            pages,
            shared_with,
        }
    }

    fn limits_of(&self, process: &Process) -> Vec<LimitInfo> {
        let (limits, counters) = (&process.limits, &process.id.counters);
        let plain = |limit, used, most| LimitInfo { limit, used, most, then: None };
        let then = |limit, used, most: Option<u64>, then: AtLimit| LimitInfo {
            then: most.map(|_| then),
            ..plain(limit, used, most)
        };
        let at_once = process.bucket.map_or(0, |bucket| bucket.tokens(self.now));
        vec![
            plain(Limit::Contexts, process.contexts.len() as u64, limits.contexts),
            plain(Limit::ContextTokens, process.context_tokens, limits.context_tokens),
            plain(Limit::ResidentFrames, process.frames, limits.resident_frames),
            plain(Limit::SwapPages, process.swap_pages, limits.swap_pages),
            then(
                Limit::GeneratedTokens,
                counters.tokens_generated,
                limits.generated_tokens,
                limits.then_of_tokens(),
            ),
            then(Limit::ServiceUs, counters.step_us, limits.service_us, limits.then_of_service()),
            plain(Limit::TokensPerSecond, at_once, limits.tokens_per_second),
        ]
    }

    fn signals_of(&self, process: &Process) -> Vec<PendingSignal> {
        let kill = process
            .kill_at
            .map(|at| PendingSignal { signal: Signal::Kill, in_us: at.0.saturating_sub(self.now.0) });
        let stop = (process.run == Run::Stopped).then_some(PendingSignal { signal: Signal::Stop, in_us: 0 });
        stop.into_iter().chain(kill).collect()
    }
}

/// A context whose model is not loaded yet: nothing of it is in memory.
fn asleep_view(image: &ContextImage) -> ContextView {
    let total = (image.log.len() as u32).div_ceil(PAGE_TOKENS);
    ContextView {
        context: image.id,
        model: image.model.clone(),
        length: Tokens(image.log.len() as u32),
        tokens_max: Tokens(image.tokens_max),
        state: ContextState::Asleep,
        pages: PageTable { total, missing: total, ..PageTable::default() },
        shared_with: vec![],
    }
}
