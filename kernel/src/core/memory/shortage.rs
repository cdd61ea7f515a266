//! Where memory cannot be had: who is pushed out, and who fails at last.
//!
//! Nothing in the pool is pinned. The log of a context is the truth, so every one that has no row in the step that
//! runs can be taken out, saved or not, and computed again; and the generation that is first of all may take from all
//! others. So a set of contexts always gets on, one after another if need be, and nobody fails for another's sake.
//! What remains is a context that has no room although it is alone, and only its own call fails, with ENOMEM:
//!
//! | what has no room            | is found                                   | before that                      |
//! |-----------------------------|--------------------------------------------|----------------------------------|
//! | more pages than the pool    | when it grows or waits ([`too_large`])     | nobody gives anything for it     |
//! | more than its process may   | the same                                   | the same                         |
//! | more than its group may     | the same                                   | the same                         |
//! | more than the worker really has | when the worker refuses a row ([`worker_short`]) | reclaim, swap, block       |
//!
//! In the last case the worker has fewer cells than it said, whatever the reason: fragments, a device that others use
//! too. The kernel then counts what was free as lost, and where nothing was given back while the step ran it takes back
//! what nobody runs, and then pushes running contexts out one by one, in the lowest class those of the process with the
//! highest [`oom_score`] first. Who was pushed out waits until a generation ends. So small ones get through beside or
//! before large ones, and the one that fails is the one that is refused when nobody else is there.
//!
//! [`too_large`]: Kernel::too_large
//! [`worker_short`]: Kernel::worker_short

use syscalls::{ContextId, Errno, Fault};

use super::super::Kernel;
use super::super::effect::{Effect, LogLevel};
use super::super::event::ModelId;
use super::super::process::Process;
use super::super::sched::{Runner, weight};
use super::reclaim::Room;

/// How much a process is in the way where memory is short:
///
/// > frames · 2^class · weight(0) / weight(nice), with 0, 1, 2, 3 for realtime, interactive, normal, batch
///
/// As with Linux's badness, what counts is the memory that somebody has, and what is thought of him adjusts it. Frames
/// that are shared count for each who maps them. What a process has had of the device's time does not count: who has
/// used much of it has waited for it, too.
pub(in crate::core) fn oom_score(process: &Process) -> u64 {
    let by_class = 1 << (process.id.class as u32);
    (process.frames * by_class).saturating_mul(weight(0)) / weight(process.id.nice)
}

/// What there was when a worker had no room.
#[derive(Clone, Copy)]
pub(in crate::core) struct Shortage {
    /// Frames that were free when the step began: the worker has none behind them.
    pub frames_free: u32,
    /// Frames that have been given back since. The worker has these, and there may be room now.
    pub frames_given_back: u32,
}

impl Kernel {
    /// Why a context cannot be in memory even alone, if that is so.
    pub(in crate::core) fn too_large(&self, id: ContextId) -> Option<Fault> {
        let context = self.contexts.get(&id)?;
        let (pages, owner) = (context.pages(), context.owner);
        let too_large = |whose: String, most: u64, advice: &str| {
            Fault::new(
                Errno::ENOMEM,
                format!(
                    "context {id} needs {pages} frames and {whose} has too few: its limit is {most}, {advice}"
                ),
            )
        };
        let above = |most: &u64| u64::from(pages) > *most;
        let process = self.processes.living(owner)?;
        if let Some(most) = process.limits.resident_frames.filter(above) {
            return Some(too_large(format!("process {owner}"), most, "raise it with setlimit"));
        }
        for group in self.groups.around(process.id.group) {
            let limit = self.groups.get(group).and_then(|g| g.limits.resident_frames);
            if let Some(most) = limit.filter(above) {
                let whose = format!("group {}", self.groups.name(group));
                return Some(too_large(whose, most, "raise it with setgroup"));
            }
        }
        let (total, _) = self.models.get(&context.model).filter(|m| m.memory.is_some())?.frames();
        (pages > total).then(|| self.larger_than_the_pool(id, u64::from(total)))
    }

    fn larger_than_the_pool(&self, id: ContextId, total: u64) -> Fault {
        let context = self.contexts.get(&id);
        let pages = context.map_or(0, |c| c.pages());
        let model = context.and_then(|c| self.models.get(&c.model)).map_or("", |m| m.name.as_str());
        let message = format!(
            "context {id} needs {pages} frames and the pool of model {model} has {total}; shorten it, or mount the model with a larger --context"
        );
        Fault::new(Errno::ENOMEM, message)
    }

    /// The end of asking for room: the context has all that there is, and it is too little.
    pub(super) fn no_room_alone(&self, id: ContextId) -> Room {
        let model = self.contexts.get(&id).and_then(|c| self.models.get(&c.model));
        let total = model.map_or(0, |m| m.frames().0);
        Room::Never(self.too_large(id).unwrap_or_else(|| self.larger_than_the_pool(id, u64::from(total))))
    }

    /// A worker has had no room for rows or pages of a step that the kernel counted frames for. It has computed
    /// nothing of these, and they are planned again.
    pub(in crate::core) fn worker_short(&mut self, id: ModelId, was: Shortage) {
        self.retire_frames(id, was.frames_free);
        if was.frames_given_back > 0 {
            return;
        }
        let Some(model) = self.models.get(&id) else { return };
        let idle = model.sched.idle_by_due().map(|(_, context)| context);
        let remnants = model.memory.iter().flat_map(|m| m.remnants.keys().copied());
        let unused: Vec<ContextId> = idle.chain(remnants).collect();
        if !unused.is_empty() {
            return unused.into_iter().for_each(|holder| self.swap_out(id, holder));
        }
        let (running, victim) = (model.sched.running.len(), self.shortage_victim(id));
        let Some(victim) = victim else { return };
        if running > 1 {
            self.swap_out(id, victim);
            if let Some(model) = self.models.get_mut(&id) {
                model.sched.full = true;
            }
        } else {
            let total = self.models.get(&id).map_or(0, |m| m.frames().0);
            self.fail_generation(victim, self.refused_alone(victim, total));
        }
    }

    /// Counts as many frames as lost as were free when the worker had no room: all cells that are used, and those that
    /// were asked for, are behind others.
    fn retire_frames(&mut self, id: ModelId, unreal: u32) {
        let Some(model) = self.models.get_mut(&id) else { return };
        let Some(memory) = &mut model.memory else { return };
        let unreal = memory.pool.retire(unreal);
        if unreal == 0 {
            return;
        }
        let total = memory.pool.total();
        if let Some(description) = &mut model.description {
            description.pool_tokens = total * drivers::wire::PAGE_TOKENS;
        }
        let line = format!(
            "the worker of model {} has {unreal} frames less than it said: its pool counts as {total} from now on",
            model.name
        );
        self.out.push(Effect::Log(LogLevel::Warn, line));
    }

    /// Of the running contexts of the lowest class, the one whose process is most in the way; of one process, the one
    /// whose generation was asked for last. Nobody comes in again beside those of his own class before one of them
    /// ends, so no two push each other out in turns.
    fn shortage_victim(&self, id: ModelId) -> Option<ContextId> {
        let running = self.models.get(&id)?.sched.running.iter();
        let standing = |runner: &Runner| {
            let (class, call) = runner.seniority();
            let process = self.processes.living(runner.owner.pid)?;
            Some(((class, oom_score(process), call), runner.context))
        };
        running.filter_map(standing).max().map(|(_, context)| context)
    }

    fn refused_alone(&self, id: ContextId, total: u32) -> Fault {
        let (length, model) = match self.contexts.get(&id) {
            Some(context) => (context.length(), self.models.get(&context.model)),
            None => (0, None),
        };
        let model = model.map_or("", |m| m.name.as_str());
        let message = format!(
            "context {id} has {length} tokens, and the worker of model {model} has no room for them although nothing else is in its pool of {total} frames; shorten it, or free memory of the device and mount the model again"
        );
        Fault::new(Errno::ENOMEM, message)
    }
}
