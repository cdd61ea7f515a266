//! Making processes of their images again.
//!
//! Processes and their calls are there from the boot on, detached. A context sleeps until its model has been loaded, and
//! then goes on where it was. One whose model is another file than it was made with, or has no room for it, sleeps on,
//! and its calls fail.

use std::collections::BTreeMap;

use syscalls::call::{Lifetime, OnFull};
use syscalls::reply::{Finish, Usage};
use syscalls::{Call, ContextId, Errno, Fault, Pid};

use super::super::Kernel;
use super::super::call::{CallNo, Pending, Waits};
use super::super::capability::Caps;
use super::super::context::{Context, Queued};
use super::super::counters::Counters;
use super::super::effect::{Effect, Happening, LogLevel, Subject};
use super::super::event::{ModelId, Now};
use super::super::generate::Generation;
use super::super::group::GroupId;
use super::super::memory::Root;
use super::super::model::Model;
use super::super::process::{Identity, Interrupted, Process, Run};
use super::super::sched::{Bucket, Place};
use super::{ContextImage, GenerationImage, ProcessImage};

/// Names of interrupted processes in the log, and entries that `ps` can show.
const INTERRUPTED_NAMED_MAX: usize = 8;
const INTERRUPTED_LISTED_MAX: usize = 1024;

impl Kernel {
    /// Takes in what outlived the daemon, and has it written anew: what was interrupted is told of once.
    pub(in crate::core) fn restore(
        &mut self,
        processes: Vec<ProcessImage>,
        contexts: Vec<ContextImage>,
        interrupted: Vec<Interrupted>,
    ) {
        if processes.is_empty() && contexts.is_empty() && interrupted.is_empty() {
            return;
        }
        // One that was asked to end has lost whom it would have told that it is done.
        let (ended, processes): (Vec<_>, Vec<_>) = processes.into_iter().partition(|image| image.ending);
        if !ended.is_empty() {
            let line = format!("{} processes that were asked to end have ended with the daemon", ended.len());
            self.out.push(Effect::Log(LogLevel::Info, line));
        }
        let restored = processes.len();
        processes.into_iter().for_each(|image| self.restore_process(image));
        for pid in self.processes.pids().collect::<Vec<_>>() {
            let parent = self.processes.identity(pid).map(|id| id.parent);
            if parent.is_some_and(|parent| self.processes.living(parent).is_none()) {
                self.processes.adopt(pid, Pid::KERNEL);
            }
        }
        for image in contexts {
            self.next_context = self.next_context.max(image.id.0);
            if let Root::Segment(number) = image.space.root {
                self.segments.count_from(number);
            }
            if self.processes.living(image.owner).is_some() {
                self.restore_calls(&image);
                self.asleep.insert(image.id, image);
            }
        }
        self.checkpoint();
        if restored > 0 {
            let line = format!("{restored} processes outlived the daemon and go on");
            self.out.push(Effect::Log(LogLevel::Info, line));
        }
        self.note_interrupted(interrupted);
    }

    fn note_interrupted(&mut self, mut interrupted: Vec<Interrupted>) {
        if interrupted.is_empty() {
            return;
        }
        let named = interrupted.iter().take(INTERRUPTED_NAMED_MAX).map(|i| format!("{} ({})", i.pid, i.name));
        let line = format!(
            "{} processes were interrupted by the end of the daemon: {}{}",
            interrupted.len(),
            named.collect::<Vec<_>>().join(", "),
            if interrupted.len() > INTERRUPTED_NAMED_MAX { ", …" } else { "" }
        );
        let subject = Subject { happening: Some(Happening::Interrupted), ..Subject::default() };
        // A daemon that is killed between the two tells of them once more, and not never.
        self.checkpoint_behind(Effect::LogAbout(LogLevel::Warn, Box::new(subject), line));
        self.processes.interrupted_total = interrupted.len() as u64;
        interrupted.truncate(INTERRUPTED_LISTED_MAX);
        self.processes.interrupted = interrupted;
    }

    fn restore_process(&mut self, image: ProcessImage) {
        let pid = image.pid;
        // A group that cannot be had again is no reason to lose the process.
        let group = self.groups.enter(GroupId::ROOT, &image.group);
        let group = group.or_else(|_| self.groups.of_user(image.uid)).unwrap_or(GroupId::ROOT);
        self.groups.join(group, pid);
        let id = Identity {
            pid,
            parent: image.parent,
            uid: image.uid,
            os_pid: 0,
            name: image.name,
            class: image.class,
            nice: image.nice,
            group,
            started: self.now,
            // It is no newcomer.
            counters: Counters { tokens_generated: image.tokens_generated, calls: 1, ..Counters::default() },
        };
        if let Some(program) = image.program {
            self.begin_program(id, image.caps & Caps::USER, image.limits, *program);
            if let Some(process) = self.processes.living_mut(pid) {
                process.deadly_calls = image.deadly_calls;
                // The program hears of it when it has started.
                process.run = if image.stopped { Run::Stopped } else { Run::Going };
            }
            return;
        }
        // Whether its user is the administrator is known when he attaches it.
        let mut process = Process::new(id, None, Lifetime::Persistent, image.caps);
        process.caps = image.caps & Caps::USER;
        process.run = if image.stopped { Run::Stopped } else { Run::Going };
        process.deadly_calls = image.deadly_calls;
        process.limits = image.limits;
        process.bucket = image.limits.tokens_per_second.map(|rate| Bucket::new(rate, self.now));
        process.mailbox = image.mailbox;
        process.results = image.results;
        process.results.iter().for_each(|ended| self.calls.count_from(ended.call));
        self.processes.enter(process);
        self.process_started(pid);
    }

    /// The calls in line on a context are there again, unheard.
    fn restore_calls(&mut self, image: &ContextImage) {
        for queued in &image.queue {
            let call = queued.call;
            self.calls.count_from(call);
            let known = Call::NAMES.iter().find(|name| **name == queued.name);
            let pending = Pending {
                traced: None,
                caller: None,
                pid: image.owner,
                uid: self.processes.identity(image.owner).map_or(u32::MAX, |id| id.uid),
                name: known.copied().unwrap_or_default(),
                since: self.now,
                waits: Waits::Context(image.id),
                waits_for: None,
                deadline: None,
            };
            self.calls.insert(call, pending);
            if let Some(process) = self.processes.living_mut(image.owner) {
                process.calls.insert(call);
            }
        }
    }

    /// A model is loaded: contexts that slept for it go on.
    pub(in crate::core) fn wake_contexts(&mut self, model: ModelId) {
        let Some(name) = self.models.get(&model).map(|m| m.name.clone()) else { return };
        let of_it = self.asleep.values().filter(|image| image.model == name);
        for id in of_it.map(|image| image.id).collect::<Vec<_>>() {
            let trouble = match (self.models.get(&model), self.asleep.get(&id)) {
                (Some(model), Some(image)) => image.trouble_on(model),
                _ => continue,
            };
            match trouble {
                Some(fault) => self.fail_asleep(id, &fault),
                None => self.wake_context(id, model),
            }
        }
    }

    fn wake_context(&mut self, id: ContextId, model: ModelId) {
        let Some(image) = self.asleep.remove(&id) else { return };
        let window = self.models.get(&model).map_or(0, Model::context_tokens_max);
        let length = image.log.len() as u32;
        let (owner, since) = (image.owner, self.now);
        let generation = image.generation.map(|g| Box::new(Generation::woken(*g, since)));
        let (generates, slides) = (generation.is_some(), image.on_full != OnFull::Stop);
        let queued = |q: super::QueuedImage| Queued::new(q.call, q.work);
        let context = Context {
            id,
            owner,
            model,
            space: image.space,
            log: image.log.into(),
            tokens_max: image.tokens_max.min(window),
            on_full: image.on_full,
            // As far as anybody can tell, all of it was computed before.
            evaluated: length,
            instructions: image.instructions,
            messages: image.messages,
            answering: image.answering,
            queue: image.queue.into_iter().map(queued).collect(),
            compaction: None,
            generation,
            resident: None,
            place: Place::Parked,
            in_step: false,
            condemned: image.condemned,
            kept: Some(length),
        };
        let full = length >= context.tokens_max;
        self.contexts.insert(id, context);
        self.contexts_of.add(self.processes.identity(owner).map_or(u32::MAX, |id| id.uid));
        if let Some(process) = self.processes.living_mut(owner) {
            process.contexts.insert(id);
            process.context_tokens += u64::from(length);
            if generates {
                process.begin_work(since);
            }
        }
        if let Some(model) = self.models.get_mut(&model) {
            model.contexts.insert(id);
        }
        self.claim_saved(id);
        self.settle(id);
        match generates && full {
            true if slides => self.shorten(id),
            // Its window has become so small that there is no room for another token.
            true => self.end_generation(id, Finish::ContextFull),
            false => {}
        }
        self.advance(id);
        self.touch(id);
    }

    /// Fails the calls on a context that cannot be woken. What it holds stays.
    pub(in crate::core) fn fail_asleep(&mut self, id: ContextId, fault: &Fault) {
        let Some(image) = self.asleep.get(&id) else { return };
        let line = format!("context {id} of process {} sleeps on: {}", image.owner, fault.message);
        let (model, pid) = (Some(image.model.clone()), Some(image.owner));
        let subject = Subject { model, pid, happening: None };
        self.out.push(Effect::LogAbout(LogLevel::Warn, Box::new(subject), line));
        for queued in image.queue.iter().map(|q| q.call).collect::<Vec<_>>() {
            self.withdraw_asleep(id, queued);
            self.finish(queued, Err(fault.clone()));
        }
    }

    /// Takes a call out of the line of a context that sleeps.
    pub(in crate::core) fn withdraw_asleep(&mut self, id: ContextId, call: CallNo) {
        let Some(image) = self.asleep.get_mut(&id) else { return };
        image.queue.retain(|queued| queued.call != call);
        if image.generation.as_ref().is_some_and(|g| g.call == call) {
            image.generation = None;
        }
        self.touch(id);
    }

    /// Forgets contexts that sleep, with their calls.
    pub(in crate::core) fn forget_asleep(&mut self, which: impl Fn(&ContextImage) -> bool, fault: &Fault) {
        if self.asleep.is_empty() {
            return;
        }
        let gone: BTreeMap<ContextId, ContextImage> =
            self.asleep.extract_if(.., |_, image| which(image)).collect();
        for (id, image) in gone {
            self.journal.close(id);
            for queued in image.queue {
                self.finish(queued.call, Err(fault.clone()));
            }
        }
    }
}

impl ContextImage {
    /// Why it cannot go on with a model of this name that has been loaded.
    pub(in crate::core) fn trouble_on(&self, model: &Model) -> Option<Fault> {
        let (length, window) = (self.log.len() as u32, model.context_tokens_max());
        if self.fingerprint != model.fingerprint() {
            let message = format!(
                "model {} is another file than the one that it was made with; mount that one again",
                model.name
            );
            return Some(Fault::new(Errno::ENODEV, message));
        }
        (length > window).then(|| {
            let message = format!(
                "it has {length} tokens and a context of model {} holds {window} now; mount it with a larger --context",
                model.name
            );
            Fault::new(Errno::ENOSPC, message)
        })
    }
}

impl Generation {
    /// A generation that goes on after a restart. Its time begins anew.
    fn woken(image: GenerationImage, now: Now) -> Self {
        let deadline = image.valid.deadline_ms.map(|ms| Now(now.0.saturating_add(ms.saturating_mul(1000))));
        Generation {
            call: image.call,
            caller: None,
            valid: image.valid,
            start: image.start,
            usage: Usage::default(),
            deadline,
            since: now,
            beside: 0,
            tokens_max: image.tokens_max,
            text: image.text,
            logprobs: image.logprobs,
            submitted: false,
            drafter: None,
            slid: image.slid,
            history: image.history,
        }
    }
}
