//! The changes that images are written as, and what they come to.
//!
//! What changes with every token is short. The heads, which change with calls, are JSON inside, so that a field that
//! comes to them later does not make older ones unreadable.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use syscalls::event::TokenLogprob;
use syscalls::limits::RESULTS_KEPT_MAX;
use syscalls::{ContextId, Pid, Token};

use super::super::call::CallNo;
use super::super::effect::Record;
use super::super::process::Ended;
use super::{ContextImage, Kept, ProcessImage};

/// One change. The order of the variants is part of the format on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// A process has begun that does not outlive the daemon: the next one tells that it was interrupted.
    Began { pid: Pid, uid: u32, name: String },
    /// The head of a process.
    Process(#[serde(with = "json")] Box<ProcessImage>),
    /// A process has ended.
    Gone { pid: Pid },
    /// The head of a context.
    Context(#[serde(with = "json")] Box<ContextImage>),
    /// The log of a context is so long and then has these tokens.
    Log { context: ContextId, from: u32, tokens: Vec<Token> },
    /// The generation of a context has got tokens, with the bytes of each.
    Generated {
        context: ContextId,
        tokens: Vec<Token>,
        pieces: Vec<Vec<u8>>,
        #[serde(with = "json")]
        logprobs: Vec<TokenLogprob>,
    },
    /// A context is closed.
    Closed { context: ContextId },
    /// A message waits for a process.
    Message {
        pid: Pid,
        from: Pid,
        #[serde(with = "json")]
        data: Kept,
    },
    /// It has taken the first one.
    MessageTaken { pid: Pid },
    /// A reply is kept for a process.
    Ended {
        pid: Pid,
        #[serde(with = "json")]
        ended: Box<EndedCall>,
    },
    /// It is kept no longer.
    Fetched { pid: Pid, call: u64 },
    /// Pids up to this one have been given out.
    Numbered { pid: Pid },
}

/// A reply that is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndedCall(pub(in crate::core) Ended);

/// All that outlives the daemon, as entries come to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    pub processes: BTreeMap<Pid, ProcessImage>,
    pub contexts: BTreeMap<ContextId, ContextImage>,
    /// Processes that do not outlive it, with user and name.
    pub running: BTreeMap<Pid, (u32, String)>,
    /// The last pid that was given out.
    pub last: Pid,
}

impl Default for Images {
    fn default() -> Self {
        let (processes, contexts, running) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Images { processes, contexts, running, last: Pid::KERNEL }
    }
}

impl Images {
    /// Takes a change in. One of something that is not there changes nothing.
    pub fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Began { pid, uid, name } => {
                self.last = self.last.max(pid);
                self.running.insert(pid, (uid, name));
            }
            Entry::Process(mut image) => {
                self.last = self.last.max(image.pid);
                if let Some(before) = self.processes.remove(&image.pid) {
                    (image.mailbox, image.results) = (before.mailbox, before.results);
                }
                self.processes.insert(image.pid, *image);
            }
            Entry::Gone { pid } => {
                self.running.remove(&pid);
                self.processes.remove(&pid);
            }
            Entry::Context(mut image) => {
                if let Some(before) = self.contexts.remove(&image.id) {
                    image.log = before.log;
                }
                self.contexts.insert(image.id, *image);
            }
            Entry::Log { context, from, tokens } => {
                if let Some(image) = self.contexts.get_mut(&context) {
                    image.log.truncate(from as usize);
                    image.log.extend(tokens);
                }
            }
            Entry::Generated { context, tokens, pieces, logprobs } => {
                self.generated(context, tokens, pieces, logprobs);
            }
            Entry::Numbered { pid } => self.last = self.last.max(pid),
            Entry::Closed { context } => drop(self.contexts.remove(&context)),
            Entry::Message { pid, from, data } => {
                self.processes
                    .get_mut(&pid)
                    .into_iter()
                    .for_each(|p| p.mailbox.push_back((from, data.clone())));
            }
            Entry::MessageTaken { pid } => {
                self.processes.get_mut(&pid).map(|p| p.mailbox.pop_front());
            }
            Entry::Ended { pid, ended } => {
                if let Some(process) = self.processes.get_mut(&pid) {
                    process.results.push_back(ended.0);
                    let surplus = process.results.len().saturating_sub(RESULTS_KEPT_MAX);
                    process.results.drain(..surplus);
                }
            }
            Entry::Fetched { pid, call } => {
                if let Some(process) = self.processes.get_mut(&pid) {
                    process.results.retain(|ended| ended.call != CallNo(call));
                }
            }
        }
    }

    fn generated(
        &mut self,
        context: ContextId,
        tokens: Vec<Token>,
        pieces: Vec<Vec<u8>>,
        logprobs: Vec<TokenLogprob>,
    ) {
        let Some(image) = self.contexts.get_mut(&context) else { return };
        if let Some(process) = self.processes.get_mut(&image.owner) {
            process.tokens_generated += tokens.len() as u64;
        }
        image.log.extend(tokens);
        if let Some(generation) = &mut image.generation {
            pieces.into_iter().for_each(|piece| drop(generation.text.push(piece)));
            generation.logprobs.extend(logprobs);
        }
    }

    /// Entries that come to these images.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = vec![Entry::Numbered { pid: self.last }];
        for (pid, (uid, name)) in &self.running {
            entries.push(Entry::Began { pid: *pid, uid: *uid, name: name.clone() });
        }
        for (pid, image) in &self.processes {
            let pid = *pid;
            let head = ProcessImage { mailbox: VecDeque::new(), results: VecDeque::new(), ..image.clone() };
            entries.push(Entry::Process(Box::new(head)));
            let message =
                |(from, data): &(Pid, Kept)| Entry::Message { pid, from: *from, data: data.clone() };
            entries.extend(image.mailbox.iter().map(message));
            let ended = |ended: &Ended| Entry::Ended { pid, ended: Box::new(EndedCall(ended.clone())) };
            entries.extend(image.results.iter().map(ended));
        }
        for (id, image) in &self.contexts {
            let head = ContextImage { log: Vec::new(), ..image.clone() };
            entries.push(Entry::Context(Box::new(head)));
            entries.push(Entry::Log { context: *id, from: 0, tokens: image.log.clone() });
        }
        entries
    }

    /// The records that the kernel begins with.
    pub fn into_records(self) -> Vec<Record> {
        let interrupted = |(pid, (uid, name))| Record::Interrupted { pid, uid, name };
        let running = self.running.into_iter().map(interrupted);
        let processes = self.processes.into_values().map(|image| Record::Process(Box::new(image)));
        let contexts = self.contexts.into_values().map(|image| Record::Context(Box::new(image)));
        let numbered = (self.last > Pid::KERNEL).then_some(Record::Numbered(self.last));
        numbered.into_iter().chain(running).chain(processes).chain(contexts).collect()
    }
}

/// JSON inside the binary form: it knows the names of fields.
mod json {
    use serde::de::{DeserializeOwned, Error as _};
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<T: Serialize, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        let text = serde_json::to_string(value).map_err(S::Error::custom)?;
        to.serialize_str(&text)
    }

    pub fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        let text = String::deserialize(from)?;
        serde_json::from_str(&text).map_err(D::Error::custom)
    }
}
