//! Telling what changed of processes that outlive the daemon.
//!
//! Whoever changes a context or process calls [`Kernel::touch`] or [`Kernel::touch_process`], which cost a comparison for
//! all others. When the event has been taken in, one entry for each thing that was touched goes out, before every other
//! effect: what is said to programs is on its way to the disk before they hear it.

use std::collections::{BTreeMap, BTreeSet};

use drivers::wire::Sampled;
use syscalls::call::Lifetime;
use syscalls::event::TokenLogprob;
use syscalls::{ContextId, Pid, Token};

use super::super::Kernel;
use super::super::context::{Context, Queued};
use super::super::effect::Effect;
use super::super::generate::{Generation, token_logprob};
use super::super::process::{Process, Run};
use super::{ContextImage, Entry, GenerationImage, Images, ProcessImage, QueuedImage};

/// Tokens that a generation has got in one event.
#[derive(Debug, Default)]
struct Grown {
    tokens: Vec<Token>,
    pieces: Vec<Vec<u8>>,
    logprobs: Vec<TokenLogprob>,
}

/// What was touched while an event is taken in.
#[derive(Debug, Default)]
pub(in crate::core) struct Journal {
    contexts: BTreeSet<ContextId>,
    processes: BTreeSet<Pid>,
    grown: BTreeMap<ContextId, Grown>,
    /// Entries that are as they are.
    others: Vec<Entry>,
    /// Everything is written anew, in the place of all entries so far.
    whole: bool,
    /// What is said before that, since it is of something that is forgotten then.
    last_words: Option<Effect>,
    /// Everything has been written for the last time.
    closed: bool,
}

impl Journal {
    fn is_empty(&self) -> bool {
        self.contexts.is_empty()
            && self.processes.is_empty()
            && self.grown.is_empty()
            && self.others.is_empty()
            && !self.whole
    }

    /// Adds an entry.
    pub(in crate::core) fn add(&mut self, entry: Entry) {
        self.others.push(entry);
    }

    /// A generation has got a token that is in the log.
    pub(in crate::core) fn grow(&mut self, context: &Context, sampled: &Sampled) {
        let grown = self.grown.entry(context.id).or_default();
        grown.tokens.push(sampled.token);
        grown.pieces.push(sampled.piece.clone());
        let logprob = sampled.logprob.clone().filter(|_| context.keeps_logprobs());
        grown.logprobs.extend(logprob.map(|logprob| token_logprob(sampled.token, logprob)));
    }

    /// A persistent process has changed.
    pub(in crate::core) fn touch_process(&mut self, pid: Pid) {
        self.processes.insert(pid);
    }

    /// A context is closed.
    pub(in crate::core) fn close(&mut self, context: ContextId) {
        self.contexts.remove(&context);
        self.grown.remove(&context);
        self.others.push(Entry::Closed { context });
    }

    /// A process has ended.
    pub(in crate::core) fn end(&mut self, pid: Pid) {
        self.processes.remove(&pid);
        self.others.push(Entry::Gone { pid });
    }
}

impl Kernel {
    /// Notes that a context has changed in another way than by a generated token.
    pub(in crate::core) fn touch(&mut self, id: ContextId) {
        if self.contexts.get(&id).is_some_and(|c| c.kept.is_some()) || self.asleep.contains_key(&id) {
            self.journal.contexts.insert(id);
        }
    }

    /// Notes that a process has changed.
    pub(in crate::core) fn touch_process(&mut self, pid: Pid) {
        if self.processes.living(pid).is_some_and(Process::is_kept) {
            self.journal.processes.insert(pid);
        }
    }

    /// A process is in the table from now on.
    pub(in crate::core) fn note_begin(&mut self, pid: Pid) {
        let Some(process) = self.processes.living(pid) else { return };
        if process.is_kept() {
            self.journal.processes.insert(pid);
        } else {
            let (uid, name) = (process.id.uid, process.id.name.clone());
            self.journal.add(Entry::Began { pid, uid, name });
        }
    }

    /// Lets what was touched go out.
    pub(in crate::core) fn write_journal(&mut self) {
        if self.journal.is_empty() {
            return;
        }
        let mut journal = std::mem::take(&mut self.journal);
        self.journal.closed = journal.closed;
        if journal.closed {
            return;
        }
        let (whole, last_words) = (journal.whole, journal.last_words.take());
        let mut entries = Vec::new();
        for (id, grown) in std::mem::take(&mut journal.grown) {
            let Some(context) = self.contexts.get_mut(&id) else { continue };
            if journal.contexts.contains(&id) {
                // The head has all that the tokens did, and so has that of the process.
                journal.processes.insert(context.owner);
                continue;
            }
            context.kept = Some(context.length());
            let Grown { tokens, pieces, logprobs } = grown;
            entries.push(Entry::Generated { context: id, tokens, pieces, logprobs });
        }
        let heads = journal.processes.iter().filter_map(|pid| self.process_image(*pid));
        entries.extend(heads.map(|image| Entry::Process(Box::new(image))));
        entries.extend(journal.others);
        for id in journal.contexts {
            self.write_context(id, &mut entries);
        }
        if whole {
            self.write_whole();
            last_words.into_iter().for_each(|words| self.write_first(words));
        }
        // What is written anew may find no room, and then what there was before goes on.
        if !whole || !entries.is_empty() {
            self.write_first(Effect::Journal(entries));
        }
    }

    fn write_whole(&mut self) {
        let images = self.images();
        for id in images.contexts.keys() {
            let context = self.contexts.get_mut(id);
            context.into_iter().for_each(|c| c.kept = Some(c.length()));
        }
        self.write_first(Effect::Checkpoint(images.entries()));
    }

    fn write_first(&mut self, effect: Effect) {
        self.out.push(effect);
        self.out.rotate_right(1);
    }

    fn write_context(&mut self, id: ContextId, entries: &mut Vec<Entry>) {
        let Some(head) = self.context_head(id) else { return };
        entries.push(Entry::Context(Box::new(head)));
        let Some(context) = self.contexts.get_mut(&id) else { return };
        let from = context.kept.unwrap_or_default();
        let tokens = context.log[from as usize..].to_vec();
        context.kept = Some(context.length());
        entries.push(Entry::Log { context: id, from, tokens });
    }

    /// All that outlives the daemon, as it is now.
    pub fn images(&self) -> Images {
        let mut images =
            Images { contexts: self.asleep.clone(), last: self.processes.last(), ..Images::default() };
        for process in self.processes.all_living() {
            let pid = process.id.pid;
            match self.process_image(pid) {
                Some(image) => {
                    let (mailbox, results) = (process.mailbox.clone(), process.results.clone());
                    images.processes.insert(pid, ProcessImage { mailbox, results, ..image });
                }
                None => drop(images.running.insert(pid, (process.id.uid, process.id.name.clone()))),
            }
        }
        for context in self.contexts.values() {
            if let Some(head) = self.context_head(context.id) {
                images.contexts.insert(context.id, ContextImage { log: context.log.to_vec(), ..head });
            }
        }
        images
    }

    /// Has everything written anew, as it is when the event has been taken in: what changes behind this call is in it.
    pub(in crate::core) fn checkpoint(&mut self) {
        self.journal.whole = true;
    }

    /// Has everything written anew when this has been said.
    pub(in crate::core) fn checkpoint_behind(&mut self, words: Effect) {
        self.journal.last_words = Some(words);
        self.checkpoint();
    }

    /// Has everything written for the last time: what the end of the daemon does to processes is not theirs. Of those
    /// that do not outlive it, the next daemon hears of the ones that nobody was told of.
    pub(in crate::core) fn checkpoint_for_the_end(&mut self) {
        let mut images = self.images();
        images.running.retain(|pid, _| self.processes.living(*pid).is_some_and(|p| p.conn.is_none()));
        self.out.push(Effect::Checkpoint(images.entries()));
        self.journal.closed = true;
    }

    fn process_image(&self, pid: Pid) -> Option<ProcessImage> {
        let process = self.processes.living(pid).filter(|p| p.is_kept())?;
        let id = &process.id;
        Some(ProcessImage {
            pid,
            parent: id.parent,
            uid: id.uid,
            name: id.name.clone(),
            class: id.class,
            nice: id.nice,
            group: self.groups.name(id.group),
            stopped: process.run == Run::Stopped,
            ending: process.kill_at.is_some(),
            limits: process.limits,
            caps: process.bound,
            tokens_generated: id.counters.tokens_generated,
            deadly_calls: process.deadly_calls,
            program: process.again.clone(),
            mailbox: Default::default(),
            results: Default::default(),
        })
    }

    /// The image of a context without its log.
    fn context_head(&self, id: ContextId) -> Option<ContextImage> {
        let Some(context) = self.contexts.get(&id).filter(|c| c.kept.is_some()) else {
            return self.asleep.get(&id).map(|image| ContextImage { log: Vec::new(), ..image.clone() });
        };
        let model = self.models.get(&context.model)?;
        Some(ContextImage {
            id,
            owner: context.owner,
            model: model.name.clone(),
            fingerprint: model.fingerprint(),
            space: context.space,
            tokens_max: context.tokens_max,
            on_full: context.on_full,
            instructions: context.instructions,
            messages: context.messages.clone(),
            answering: context.answering,
            condemned: context.condemned,
            queue: context.queue.iter().map(|queued| self.queued_image(queued)).collect(),
            generation: context.generation.as_deref().map(|g| Box::new(g.image())),
            log: Vec::new(),
        })
    }

    fn queued_image(&self, queued: &Queued) -> QueuedImage {
        let name = self.calls.get(queued.call).map_or("", |pending| pending.name).to_owned();
        let work = queued.work.clone().or_else(|| queued.asked.as_deref().cloned());
        QueuedImage { call: queued.call, name, work }
    }
}

impl Generation {
    fn image(&self) -> GenerationImage {
        GenerationImage {
            call: self.call,
            valid: self.valid.clone(),
            start: self.start,
            tokens_max: self.tokens_max,
            text: self.text.clone(),
            logprobs: self.logprobs.clone(),
            slid: self.slid.clone(),
            history: self.history.clone(),
        }
    }
}

impl Process {
    /// Whether it outlives the daemon.
    pub(in crate::core) fn is_persistent(&self) -> bool {
        self.lifetime == Lifetime::Persistent
    }

    /// Whether the next daemon has it, too: as it was, or as a program that is started again.
    fn is_kept(&self) -> bool {
        self.is_persistent() || self.again.is_some()
    }
}
