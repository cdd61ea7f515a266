//! The calls that programs make most, with their arguments and replies as Rust has them.
//!
//! All are [`Client::call`] with the right reply taken out; the faults are those that the manual lists for the
//! call, and EPROTO where the daemon answers with another call's reply.

use super::super::{Opened, mount, unexpected};
use super::Client;
use crate::call::{
    Append, Attach, Close, Detach, Detokenize, Discard, Embed, Follow, Fork, Generate, Groups, Inspect, Kill,
    Message, Models, Mount, Open, Ps, Restore, Segments, Shutdown, Signal, Snapshot, Snapshots, Stat,
    Sysinfo, Tokenize, Truncate, Unmount, Wait,
};
use crate::errno::Fault;
use crate::event::Event;
use crate::id::{ContextId, Pid, Ticket, Token, Tokens};
use crate::reply::{
    AttachedReply, GeneratedReply, GroupInfo, InspectReply, ModelInfo, ProcessInfo, Reply, SegmentInfo,
    SnapshotInfo, Stats, SysinfoReply,
};

/// Takes the one kind of reply that a call has.
macro_rules! take {
    ($reply:expr, $pattern:pat => $value:expr) => {
        match $reply? {
            $pattern => Ok($value),
            other => Err(unexpected(&other)),
        }
    };
}

#[allow(clippy::missing_errors_doc, reason = "the module says it for all")]
impl Client {
    /// Opens a context on a model; on the default one if none is named.
    pub fn open(&mut self, model: Option<&str>) -> Result<Opened, Fault> {
        self.open_with(Open {
            model: model.map(Into::into),
            tokens_max: None,
            on_full: Default::default(),
            prefix: None,
        })
    }

    /// Opens a context.
    pub fn open_with(&mut self, open: Open) -> Result<Opened, Fault> {
        take!(self.call(open), Reply::Opened { context, model, length, tokens_max }
            => Opened { context, model, length, tokens_max })
    }

    /// Copies a context.
    pub fn fork(&mut self, context: ContextId, copies: u32) -> Result<Vec<ContextId>, Fault> {
        take!(self.call(Fork { context, copies, length: None }), Reply::Forked { contexts } => contexts)
    }

    /// Closes a context.
    pub fn close(&mut self, context: ContextId) -> Result<(), Fault> {
        take!(self.call(Close { context }), Reply::Done {} => ())
    }

    /// Adds text, in which names of special tokens are ordinary text. Gives the context's new length.
    pub fn append_text(&mut self, context: ContextId, text: &str) -> Result<Tokens, Fault> {
        let text = Some(text.into());
        self.append(Append { context, text, tokens: None, messages: None, special: false })
    }

    /// Adds tokens. Gives the context's new length.
    pub fn append_tokens(&mut self, context: ContextId, tokens: Vec<Token>) -> Result<Tokens, Fault> {
        let tokens = Some(tokens);
        self.append(Append { context, text: None, tokens, messages: None, special: false })
    }

    /// Adds chat messages in the model's template. Gives the context's new length.
    pub fn append_messages(&mut self, context: ContextId, messages: Vec<Message>) -> Result<Tokens, Fault> {
        let messages = Some(messages);
        self.append(Append { context, text: None, tokens: None, messages, special: false })
    }

    /// Adds to a context. Gives its new length.
    pub fn append(&mut self, append: Append) -> Result<Tokens, Fault> {
        take!(self.call(append), Reply::Appended { length, .. } => length)
    }

    /// Continues a context; `on_event` gets the tokens as they come.
    pub fn generate(
        &mut self,
        generate: Generate,
        on_event: impl FnMut(Event),
    ) -> Result<GeneratedReply, Fault> {
        take!(self.call_with(generate, on_event), Reply::Generated(generated) => generated)
    }

    /// Cuts a context to a length.
    pub fn truncate(&mut self, context: ContextId, length: Tokens) -> Result<(), Fault> {
        take!(self.call(Truncate { context, length }), Reply::Done {} => ())
    }

    /// Keeps a context under a name.
    pub fn snapshot(&mut self, context: ContextId, name: &str) -> Result<(), Fault> {
        take!(self.call(Snapshot { context, name: name.into() }), Reply::Done {} => ())
    }

    /// Opens a context from a snapshot.
    pub fn restore(&mut self, name: &str) -> Result<Opened, Fault> {
        take!(self.call(Restore { name: name.into() }), Reply::Opened { context, model, length, tokens_max }
            => Opened { context, model, length, tokens_max })
    }

    /// Lists the snapshots of the caller's user.
    pub fn snapshots(&mut self) -> Result<Vec<SnapshotInfo>, Fault> {
        take!(self.call(Snapshots {}), Reply::Snapshots(snapshots) => snapshots)
    }

    /// Removes a snapshot.
    pub fn discard(&mut self, name: &str) -> Result<(), Fault> {
        take!(self.call(Discard { name: name.into() }), Reply::Done {} => ())
    }

    /// Turns text into tokens, without a beginning-of-text token and with special names as ordinary text.
    pub fn tokenize(&mut self, model: Option<&str>, text: &str) -> Result<Vec<Token>, Fault> {
        let (model, text) = (model.map(Into::into), text.into());
        take!(self.call(Tokenize { model, text, bos: false, special: false }), Reply::Tokens(tokens) => tokens)
    }

    /// Turns tokens into text.
    pub fn detokenize(&mut self, model: Option<&str>, tokens: Vec<Token>) -> Result<String, Fault> {
        take!(self.call(Detokenize { model: model.map(Into::into), tokens }), Reply::Text(text) => text)
    }

    /// Turns texts into vectors of length 1.
    pub fn embed(&mut self, model: Option<&str>, texts: Vec<String>) -> Result<Vec<Vec<f32>>, Fault> {
        take!(self.call(Embed { model: model.map(Into::into), texts }), Reply::Embedded(vectors) => vectors)
    }

    /// Creates a child for this program to act for, with [`Client::call_as`].
    pub fn spawn(&mut self, name: &str) -> Result<Pid, Fault> {
        let spawn = super::super::spawn(name);
        take!(self.call(spawn), Reply::Spawned { pid } => pid)
    }

    /// Takes a process off its connection; without a pid the client's own, whose connection ends.
    pub fn detach(&mut self, pid: Option<Pid>) -> Result<(), Fault> {
        take!(self.call(Detach { pid }), Reply::Done {} => ())
    }

    /// Takes a detached process over, or with `force` one that another connection has.
    pub fn attach(&mut self, pid: Pid, force: bool) -> Result<AttachedReply, Fault> {
        take!(self.call(Attach { pid, force }), Reply::Attached(attached) => attached)
    }

    /// Continues a call of an attached process, from its beginning; `on_event` gets the tokens.
    pub fn follow(&mut self, pid: Pid, call: Ticket, on_event: impl FnMut(Event)) -> Result<Reply, Fault> {
        let id = self.start_as(pid, Follow { call, replay: true })?;
        self.finish(id, on_event)
    }

    /// Waits for a child, or for any; gives its pid and exit status.
    pub fn wait(&mut self, pid: Option<Pid>) -> Result<(Pid, u8), Fault> {
        take!(self.call(Wait { pid, timeout_ms: None }), Reply::Waited { pid, status } => (pid, status))
    }

    /// Sends a signal to a process.
    pub fn kill(&mut self, pid: Pid, signal: Signal) -> Result<(), Fault> {
        take!(self.call(Kill { pid, signal }), Reply::Done {} => ())
    }

    /// Lists processes.
    pub fn ps(&mut self) -> Result<Vec<ProcessInfo>, Fault> {
        take!(self.call(Ps { all: false }), Reply::Processes(processes) => processes)
    }

    /// Looks into a process.
    pub fn inspect(&mut self, pid: Pid) -> Result<InspectReply, Fault> {
        take!(self.call(Inspect { pid }), Reply::Inspected(inspected) => *inspected)
    }

    /// Lists groups of processes.
    pub fn groups(&mut self) -> Result<Vec<GroupInfo>, Fault> {
        take!(self.call(Groups {}), Reply::Groups(groups) => groups)
    }

    /// Lists shared segments.
    pub fn segments(&mut self) -> Result<Vec<SegmentInfo>, Fault> {
        take!(self.call(Segments {}), Reply::Segments(segments) => segments)
    }

    /// Reports the counters of the system, or of one process or model.
    pub fn stat(&mut self, pid: Option<Pid>, model: Option<&str>) -> Result<Stats, Fault> {
        take!(self.call(Stat { pid, model: model.map(Into::into) }), Reply::Stat(stats) => stats)
    }

    /// Lists mounted models.
    pub fn models(&mut self) -> Result<Vec<ModelInfo>, Fault> {
        take!(self.call(Models {}), Reply::Models(models) => models)
    }

    /// Mounts the model in a file; `on_event` gets the progress.
    pub fn mount(&mut self, path: &str, name: &str, on_event: impl FnMut(Event)) -> Result<ModelInfo, Fault> {
        self.mount_with(mount(path, name), on_event)
    }

    /// Mounts a model; `on_event` gets the progress.
    pub fn mount_with(&mut self, mount: Mount, on_event: impl FnMut(Event)) -> Result<ModelInfo, Fault> {
        take!(self.call_with(mount, on_event), Reply::Mounted(model) => model)
    }

    /// Takes a model away; `force` ends the calls that use it.
    pub fn unmount(&mut self, name: &str, force: bool) -> Result<(), Fault> {
        take!(self.call(Unmount { name: name.into(), force }), Reply::Done {} => ())
    }

    /// Describes the machine and the daemon.
    pub fn sysinfo(&mut self) -> Result<SysinfoReply, Fault> {
        take!(self.call(Sysinfo {}), Reply::Sysinfo(info) => info)
    }

    /// Stops the daemon.
    pub fn shutdown(&mut self) -> Result<(), Fault> {
        take!(self.call(Shutdown {}), Reply::Done {} => ())
    }
}
