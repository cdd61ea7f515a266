//! The calls of version 1, and how a request is read from a line.
//!
//! On the wire a request is `{"id":7,"call":"generate","args":{…}}`, with `"pid"` where a program acts for one
//! of its children instead of for itself. Unknown calls, unknown arguments and wrong types are faults, never
//! ignored: a misspelt limit must not become no limit.
//!
//! The arguments stand by subject in the files of this folder; all are named here.

use serde_json::value::RawValue;

use crate::errno::Fault;

macro_rules! args {
    ($($(#[$meta:meta])* struct $name:ident { $($(#[$field_meta:meta])* $field:ident: $ty:ty,)* })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($(#[$field_meta])* pub $field: $ty,)* }
    )+};
}

mod capability;
mod compute;
mod context;
mod generate;
mod group;
mod model;
mod nearest;
mod process;
mod request;
mod segment;
mod service;
mod store;
mod system;
mod text;
mod trace;

pub use capability::Capability;
pub use compute::*;
pub use context::*;
pub use generate::*;
pub use group::*;
pub use model::*;
pub use nearest::nearest;
pub use process::*;
pub use request::Request;
pub use segment::*;
pub use service::*;
pub use store::*;
pub use system::*;
pub use text::*;
pub use trace::*;

use request::{bad_args, unknown_call};

macro_rules! calls {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal($args:ident) -> $reply:literal;)+) => {
        /// Every call of version 1 with its arguments.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Call { $($(#[doc = $doc])+ $variant($args),)+ }

        impl Call {
            /// Every call's name, in the order of the manual.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// The name on the wire.
            pub fn name(&self) -> &'static str {
                match self { $(Call::$variant(_) => $name,)+ }
            }

            /// Reads the arguments of the call that is named.
            fn read(name: &str, args: &str) -> Result<Call, Fault> {
                match name {
                    $($name => serde_json::from_str(args).map(Call::$variant).map_err(|e| bad_args(name, &e)),)+
                    _ => Err(unknown_call(name)),
                }
            }

            /// The arguments as a value.
            pub fn args(&self) -> serde_json::Value {
                match self { $(Call::$variant(args) => serde_json::json!(args),)+ }
            }

            /// Writes the arguments as JSON.
            fn args_json(&self) -> serde_json::Result<Box<RawValue>> {
                match self { $(Call::$variant(args) => serde_json::value::to_raw_value(args),)+ }
            }
        }

        /// Name, sentence, schema of the arguments and name of the reply of every call, for the manual.
        pub(crate) fn described() -> Vec<Described> {
            vec![$(Described {
                name: $name,
                doc: concat!($($doc, "\n"),+),
                args: schemars::schema_for!($args),
                reply: $reply,
            }),+]
        }

        $(impl From<$args> for Call {
            fn from(args: $args) -> Call { Call::$variant(args) }
        })+
    };
}

/// What the manual says of one call.
pub(crate) struct Described {
    pub name: &'static str,
    pub doc: &'static str,
    pub args: schemars::Schema,
    pub reply: &'static str,
}

calls! {
    /// Opens the conversation: agrees on the version and creates the caller's process. Must come first.
    Hello "hello"(Hello) -> "hello";
    /// Creates a child process, owned by this connection.
    Spawn "spawn"(Spawn) -> "spawned";
    /// Ends the acting process; its contexts are freed and its parent may `wait` for it.
    Exit "exit"(Exit) -> "done";
    /// Waits until a child has ended, and reaps it.
    Wait "wait"(Wait) -> "waited";
    /// Takes a process off its connection. It goes on: events of its calls are dropped, and their replies are kept until
    /// they are fetched, the last of them. Its requests without a reply get ECANCELED, and those that wait for
    /// children, messages or events end. With the process that a connection began with, the connection ends. Only for
    /// its user and the administrator.
    Detach "detach"(Detach) -> "done";
    /// Takes a detached process over: it becomes a child of the acting one, which acts for it from now on and may
    /// `wait` for it. Only for its user and the administrator.
    Attach "attach"(Attach) -> "attached";
    /// Continues a call of an attached process that was begun on another connection: its events come from now on, and
    /// its reply is the reply. One that has ended in the meantime answers at once, and is then forgotten.
    Follow "follow"(Follow) -> "generated";
    /// Sends a signal to a process.
    Kill "kill"(Kill) -> "done";
    /// Sends a signal to all processes of a group and of those in it: the caller's own, and for the administrator all of
    /// them. ESRCH where there are none.
    KillGroup "kill_group"(KillGroup) -> "done";
    /// Reads what the program of a process has printed, or follows it. Only for its user and the administrator.
    Output "output"(Output) -> "output";
    /// Waits for a signal that asks the acting process to end (TERM, XCPU). With such a call such a signal does not end
    /// the process: it answers the call, and the process has the time that the reply names to finish. Then it is
    /// killed.
    Sigwait "sigwait"(Sigwait) -> "signalled";
    /// Lists processes: the kernel and those of the caller's user; with the capability `kill` all of them.
    Ps "ps"(Ps) -> "processes";
    /// Looks into a process: what its calls wait for, what its contexts have in memory and with whom they share it, what
    /// its limits leave, and its last calls. Only for its user and the administrator. Tells no prompt and no text.
    Inspect "inspect"(Inspect) -> "inspected";
    /// Reports the counters of the system, of one model, or of one process.
    Stat "stat"(Stat) -> "stat";
    /// Changes the class or nice value of a process.
    Setpriority "setpriority"(Setpriority) -> "done";
    /// Changes how the contexts of a class share a model; only the administrator may.
    Setpolicy "setpolicy"(Setpolicy) -> "done";
    /// Makes a group of processes, and sets its weight and limits.
    Setgroup "setgroup"(Setgroup) -> "done";
    /// Lists groups of processes.
    Groups "groups"(Groups) -> "groups";
    /// Changes a limit of a process.
    Setlimit "setlimit"(Setlimit) -> "done";
    /// Opens a context on a mounted model.
    Open "open"(Open) -> "opened";
    /// Copies a context. The copies share every page until one of them writes.
    Fork "fork"(Fork) -> "forked";
    /// Closes a context and frees its pages.
    Close "close"(Close) -> "done";
    /// Adds to the end of a context: text, tokens, or chat messages in the model's own template.
    Append "append"(Append) -> "appended";
    /// Continues a context, one token after another, and streams what comes.
    Generate "generate"(Generate) -> "generated";
    /// Cuts a context to a length.
    Truncate "truncate"(Truncate) -> "done";
    /// Reads tokens of a context.
    Tokens "tokens"(ReadTokens) -> "tokens";
    /// Keeps a context under a name: its tokens, and the conversation that they stand for. A snapshot outlives the process,
    /// the daemon, and the mount of its model. One of a context that generates has what has come so far. The context may
    /// be another process's of the caller's user, or anybody's for the administrator: it is kept at once, as it is after
    /// the last step, and the snapshot belongs to that process's user. Answered when it is on disk; where the disk does
    /// not take it, ENOSPC or EROFS, and what had the name stays.
    Snapshot "snapshot"(Snapshot) -> "done";
    /// Opens a context from a snapshot, on the model that it was made with, under whatever name that is mounted. EINVAL
    /// where the model of its name is another file.
    Restore "restore"(Restore) -> "opened";
    /// Lists the snapshots of the caller's user.
    Snapshots "snapshots"(Snapshots) -> "snapshots";
    /// Removes a snapshot of the caller's user.
    Discard "discard"(Discard) -> "done";
    /// Names the beginning of a context, so that others may open on it: a shared segment. It outlives the process,
    /// and lives until `unshare`, or until the model is unmounted. Its owner may replace it by the same name.
    Share "share"(Share) -> "done";
    /// Removes a shared segment; contexts that were opened on it keep what they have. Only for its owner and the
    /// administrator.
    Unshare "unshare"(Unshare) -> "done";
    /// Lists shared segments: the caller's own, and those that he may open on.
    Segments "segments"(Segments) -> "segments";
    /// Starts a service and those that it requires, and answers when its program runs. EIO where it has failed. Services of
    /// the configuration are the administrator's to start and stop, by the capability `kill`; transient ones are their
    /// user's, and take `exec` and `persist`.
    ServiceStart "service_start"(ServiceStart) -> "service";
    /// Stops a service, and answers when its program has ended.
    ServiceStop "service_stop"(ServiceStop) -> "service";
    /// Stops a service and starts it again.
    ServiceRestart "service_restart"(ServiceRestart) -> "service";
    /// Describes a service, with what it has printed.
    ServiceStatus "service_status"(ServiceStatus) -> "service_status";
    /// Lists services.
    ServiceList "service_list"(ServiceList) -> "services";
    /// Turns text into tokens.
    Tokenize "tokenize"(Tokenize) -> "tokens";
    /// Turns tokens into text.
    Detokenize "detokenize"(Detokenize) -> "text";
    /// Turns texts into vectors, with an encoder or with any model that pools.
    Embed "embed"(Embed) -> "embedded";
    /// Measures how likely continuations are.
    Score "score"(Score) -> "scored";
    /// Sends a message to a process.
    Send "send"(Send) -> "done";
    /// Waits for a message.
    Receive "receive"(Receive) -> "message";
    /// Writes a value under a key of a store. Stores belong to the user and come to be when something is put there;
    /// a value that is answered with `done` outlives the daemon.
    StorePut "store_put"(StorePut) -> "done";
    /// Reads a value; null where the key has none.
    StoreGet "store_get"(StoreGet) -> "value";
    /// Removes a value. A key without one is no error.
    StoreDelete "store_delete"(StoreDelete) -> "done";
    /// Lists the keys of a store, in their order.
    StoreList "store_list"(StoreList) -> "keys";
    /// Finds the values that have words of a text, best first, by BM25: words count more the fewer values have them.
    /// All strings in a value are looked at, without regard to case. To find by meaning, keep vectors of `embed` and
    /// compare them.
    StoreSearch "store_search"(StoreSearch) -> "found";
    /// Makes a model available under a name.
    Mount "mount"(Mount) -> "mounted";
    /// Takes a model away.
    Unmount "unmount"(Unmount) -> "done";
    /// Lists mounted models.
    Models "models"(Models) -> "models";
    /// Waits for the process's turn to compute on a device by itself, and begins a quantum. One that it has ends first.
    /// Turns go by class, and within a class to the process that has had least for its weight; classes above it leave it a
    /// twentieth of the time that they compute in. The time until the next `compute` or `yield` is its service.
    Compute "compute"(Compute) -> "quantum";
    /// Ends the quantum that the process has.
    Yield "yield"(Yield) -> "done";
    /// Trains a model: starts `llmasos-trainer` as a child process, as `spawn` starts programs, with all of the
    /// machine's memory and processors. The reply comes when it runs. `log.jsonl` in the folder `out` tells how it goes
    /// on, and `wait` how it ended: 0 when all steps are done, 1 for a failure, which `output` tells, 128 + n for the
    /// end by signal n. INT, TERM and KILL leave a checkpoint, which `resume` goes on from. When the daemon dies, the
    /// next one starts it again from there, as the same process.
    Train "train"(Train) -> "spawned";
    /// Makes a model smaller.
    Compress "compress"(Compress) -> "compressed";
    /// Measures a model on a task.
    Evaluate "evaluate"(Evaluate) -> "evaluated";
    /// Streams what happens in the system, as events; of processes of other users with the capability `kill` alone. A client that does not read them loses some, and is told how
    /// many (`lost`).
    Subscribe "subscribe"(Subscribe) -> "done";
    /// Streams the calls of a process as it makes them, with arguments, results and errors, and its signals, as events.
    /// Ends when the process has. Only for its user and the administrator. A process does not wait for who traces it:
    /// who does not read loses events, and is told how many (`lost`).
    Trace "trace"(Trace) -> "done";
    /// Describes the machine and the daemon.
    Sysinfo "sysinfo"(Sysinfo) -> "sysinfo";
    /// Stops the daemon.
    Shutdown "shutdown"(Shutdown) -> "done";
}
