//! The calls of version 1, and how a request is read from a line.
//!
//! On the wire a request is `{"id":7,"call":"generate","args":{…}}`, with `"pid"` where a program acts for one
//! of its children instead of for itself. Unknown calls, unknown arguments and wrong types are faults, never
//! ignored: a misspelt limit must not become no limit.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::errno::{Errno, Fault};
use crate::id::{CallId, ContextId, Pid, Token, Tokens};

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Chosen by the client; the reply and the events carry it back.
    pub id: CallId,
    /// The process that acts: the connection's own, or a descendant that it spawned.
    pub pid: Option<Pid>,
    /// What is asked.
    pub call: Call,
}

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
    /// Sends a signal to a process.
    Kill "kill"(Kill) -> "done";
    /// Lists processes.
    Ps "ps"(Ps) -> "processes";
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
    /// Writes a context to the store under a name.
    Snapshot "snapshot"(Snapshot) -> "done";
    /// Opens a context from a snapshot.
    Restore "restore"(Restore) -> "opened";
    /// Names the beginning of a context, so that others may open on it: a shared segment. It outlives the process,
    /// and lives until `unshare`, or until the model is unmounted. Its owner may replace it by the same name.
    Share "share"(Share) -> "done";
    /// Removes a shared segment; contexts that were opened on it keep what they have. Only for its owner and the
    /// administrator.
    Unshare "unshare"(Unshare) -> "done";
    /// Lists shared segments.
    Segments "segments"(Segments) -> "segments";
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
    /// Writes a value.
    StorePut "store_put"(StorePut) -> "done";
    /// Reads a value.
    StoreGet "store_get"(StoreGet) -> "value";
    /// Removes a value.
    StoreDelete "store_delete"(StoreDelete) -> "done";
    /// Lists keys.
    StoreList "store_list"(StoreList) -> "keys";
    /// Finds the values nearest in meaning to a text.
    StoreSearch "store_search"(StoreSearch) -> "found";
    /// Makes a model available under a name.
    Mount "mount"(Mount) -> "mounted";
    /// Takes a model away.
    Unmount "unmount"(Unmount) -> "done";
    /// Lists mounted models.
    Models "models"(Models) -> "models";
    /// Trains a model.
    Train "train"(Train) -> "trained";
    /// Makes a model smaller.
    Compress "compress"(Compress) -> "compressed";
    /// Measures a model on a task.
    Evaluate "evaluate"(Evaluate) -> "evaluated";
    /// Streams what happens in the system, as events. A client that does not read them loses some, and is told how
    /// many (`lost`).
    Subscribe "subscribe"(Subscribe) -> "done";
    /// Describes the machine and the daemon.
    Sysinfo "sysinfo"(Sysinfo) -> "sysinfo";
    /// Stops the daemon.
    Shutdown "shutdown"(Shutdown) -> "done";
}

macro_rules! args {
    ($($(#[$meta:meta])* struct $name:ident { $($(#[$field_meta:meta])* $field:ident: $ty:ty,)* })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($(#[$field_meta])* pub $field: $ty,)* }
    )+};
}

args! {
    /// Arguments of `hello`.
    struct Hello {
        /// The version that the client speaks.
        version: u32,
        /// What `ps` shows; the executable's name if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The scheduling class.
        #[serde(default)]
        class: Class,
        /// From −20 (most) to 19 (least).
        #[serde(default)]
        nice: i8,
        /// A group inside the user's own, such as `a/b`; the user's own if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
    }

    /// Arguments of `spawn`.
    struct Spawn {
        /// What `ps` shows.
        name: String,
        /// The scheduling class; the parent's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        class: Option<Class>,
        /// From −20 (most) to 19 (least); the parent's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nice: Option<i8>,
        /// A group inside the parent's, such as `a/b`; the parent's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
        /// A program that the daemon starts as this process; absent for a process that the caller acts for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        argv: Vec<String>,
    }

    /// Arguments of `exit`.
    struct Exit {
        /// 0 for success.
        #[serde(default)]
        status: u8,
    }

    /// Arguments of `wait`.
    struct Wait {
        /// The child; any child if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<Pid>,
        /// How long to wait; for ever if absent, not at all if 0.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    }

    /// Arguments of `kill`.
    struct Kill {
        /// The process.
        pid: Pid,
        /// The signal.
        #[serde(default)]
        signal: Signal,
    }

    /// Arguments of `ps`.
    struct Ps {}

    /// Arguments of `stat`; without any, the whole system.
    struct Stat {
        /// One process.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<Pid>,
        /// One model.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
    }

    /// Arguments of `setpriority`.
    struct Setpriority {
        /// The process.
        pid: Pid,
        /// The new class; unchanged if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        class: Option<Class>,
        /// The new nice value; unchanged if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nice: Option<i8>,
    }

    /// Arguments of `setpolicy`.
    struct Setpolicy {
        /// `fifo`, `rr`, `fair`, `mlfq` or `edf`.
        policy: String,
    }

    /// Arguments of `setgroup`.
    struct Setgroup {
        /// The group inside the caller's own, such as `a/b`; from the root on if it begins with a slash, such as
        /// `/user.1000/a`, for the administrator.
        group: String,
        /// Its share of the device's time beside its siblings, from 1 to 10,000; 100 if never set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight: Option<u32>,
        /// Which limit to set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<GroupLimit>,
        /// The new value of the limit; none lifts it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<u64>,
        /// Forgets all that was set. The group goes when it is empty.
        #[serde(default)]
        remove: bool,
    }

    /// Arguments of `groups`.
    struct Groups {}

    /// Arguments of `setlimit`.
    struct Setlimit {
        /// The process.
        pid: Pid,
        /// Which limit.
        limit: Limit,
        /// The new value; none lifts the limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<u64>,
    }

    /// Arguments of `open`.
    struct Open {
        /// The model's name; the only mounted one, or the configured default, if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// The most tokens that it may hold; what the model was mounted with if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tokens_max: Option<Tokens>,
        /// What happens when it is full.
        #[serde(default)]
        on_full: OnFull,
        /// A shared segment to begin with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prefix: Option<String>,
    }

    /// Arguments of `fork`.
    struct Fork {
        /// The context to copy.
        context: ContextId,
        /// How many copies.
        #[serde(default = "one")]
        copies: u32,
        /// How much of it to copy; all if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        length: Option<Tokens>,
    }

    /// Arguments of `close`.
    struct Close {
        /// The context.
        context: ContextId,
    }

    /// Arguments of `append`. Exactly one of `text`, `tokens` and `messages` is given.
    struct Append {
        /// The context.
        context: ContextId,
        /// Plain text. Names of special tokens in it are ordinary text, unless `special` is set. The model's
        /// beginning-of-text token comes first where the context is empty and the model wants one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// Tokens as they are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tokens: Option<Vec<Token>>,
        /// Chat messages, put into the model's template behind those that the context has already.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        messages: Option<Vec<Message>>,
        /// Reads names of special tokens in `text`, such as `<|im_end|>`, as these tokens.
        #[serde(default)]
        special: bool,
    }

    /// One chat message.
    struct Message {
        /// `system`, `user`, `assistant` or `tool`, or what else the template knows.
        role: String,
        /// What was said.
        content: String,
    }

    /// Arguments of `generate`.
    struct Generate {
        /// The context to continue.
        context: ContextId,
        /// The most tokens to generate; until the context is full, or as many as it holds if it slides, if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_tokens: Option<Tokens>,
        /// Strings that end the generation; they are not part of the text.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        stop: Vec<String>,
        /// How tokens are chosen.
        #[serde(default)]
        sampling: Sampling,
        /// Goes on past the model's end-of-generation tokens, which are then never chosen.
        #[serde(default)]
        ignore_eos: bool,
        /// How many alternatives to report for each token; none are reported if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        logprobs: Option<u32>,
        /// Sends events as tokens come. Otherwise the reply alone carries the text.
        #[serde(default = "yes")]
        stream: bool,
        /// When it should have ended, in milliseconds from now. In the class `realtime`, and under the policy `edf`,
        /// the earliest deadline goes first. A generation that misses it goes on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_ms: Option<i64>,
    }

    /// How tokens are chosen. The filters act in the order of the fields.
    struct Sampling {
        /// Divides the logits of recent tokens; 1 does nothing.
        #[serde(default = "one_f32")]
        repeat_penalty: f32,
        /// Subtracted for each time that a token occurred; 0 does nothing.
        #[serde(default)]
        frequency_penalty: f32,
        /// Subtracted if a token occurred at all; 0 does nothing.
        #[serde(default)]
        presence_penalty: f32,
        /// How many of the last tokens the penalties look at.
        #[serde(default = "penalty_last_n")]
        penalty_last_n: u32,
        /// Keeps the k most likely tokens; 0 keeps all.
        #[serde(default = "top_k")]
        top_k: u32,
        /// Keeps the smallest set of tokens whose probabilities sum to this; 1 keeps all.
        #[serde(default = "top_p")]
        top_p: f32,
        /// Keeps tokens at least this likely relative to the likeliest; 0 keeps all.
        #[serde(default = "min_p")]
        min_p: f32,
        /// Divides the logits; 0 takes the likeliest token always.
        #[serde(default = "temperature")]
        temperature: f32,
        /// Makes the choice repeatable: the same seed on the same context gives the same tokens. The kernel
        /// picks one, and reports it, if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seed: Option<u64>,
        /// A grammar in GBNF that the text must follow; its start symbol is `root`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grammar: Option<String>,
        /// A JSON schema that the text must satisfy; not together with `grammar`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        json_schema: Option<serde_json::Value>,
    }

    /// Arguments of `truncate`.
    struct Truncate {
        /// The context.
        context: ContextId,
        /// How many tokens stay.
        length: Tokens,
    }

    /// Arguments of `tokens`.
    struct ReadTokens {
        /// The context.
        context: ContextId,
        /// The first token.
        #[serde(default)]
        from: Tokens,
        /// Behind the last token; the end if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<Tokens>,
    }

    /// Arguments of `snapshot`.
    struct Snapshot {
        /// The context.
        context: ContextId,
        /// The name to keep it under.
        name: String,
    }

    /// Arguments of `restore`.
    struct Restore {
        /// The name of the snapshot.
        name: String,
    }

    /// Arguments of `share`.
    struct Share {
        /// The context.
        context: ContextId,
        /// The name of the segment.
        name: String,
        /// How much of the context; all if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        length: Option<Tokens>,
        /// Who may open on it, bits as for files: 0o400 the owner, 0o004 everyone else. There are no groups and
        /// nothing to write, so the other bits up to 0o777 mean nothing; 0o644 is for everyone.
        #[serde(default = "owner_only")]
        mode: u32,
    }

    /// Arguments of `unshare`.
    struct Unshare {
        /// The name of the segment.
        name: String,
    }

    /// Arguments of `segments`.
    struct Segments {}

    /// Arguments of `tokenize`.
    struct Tokenize {
        /// The model's name; the only mounted one, or the configured default, if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// The text.
        text: String,
        /// Puts the model's beginning-of-text token first, where it wants one.
        #[serde(default)]
        bos: bool,
        /// Reads names of special tokens as these tokens.
        #[serde(default)]
        special: bool,
    }

    /// Arguments of `detokenize`.
    struct Detokenize {
        /// The model's name; the only mounted one, or the configured default, if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// The tokens.
        tokens: Vec<Token>,
    }

    /// Arguments of `embed`.
    struct Embed {
        /// The model's name; the only mounted encoder, or the configured default, if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// The texts.
        texts: Vec<String>,
    }

    /// Arguments of `score`.
    struct Score {
        /// The model's name; the only mounted one, or the configured default, if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// What stands before.
        prompt: String,
        /// What may follow.
        continuations: Vec<String>,
    }

    /// Arguments of `send`.
    struct Send {
        /// The receiver.
        pid: Pid,
        /// The message.
        data: serde_json::Value,
    }

    /// Arguments of `receive`.
    struct Receive {
        /// How long to wait; for ever if absent, not at all if 0.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    }

    /// Arguments of `store_put`.
    struct StorePut {
        /// The store.
        store: String,
        /// The key.
        key: String,
        /// The value.
        value: serde_json::Value,
    }

    /// Arguments of `store_get`.
    struct StoreGet {
        /// The store.
        store: String,
        /// The key.
        key: String,
    }

    /// Arguments of `store_delete`.
    struct StoreDelete {
        /// The store.
        store: String,
        /// The key.
        key: String,
    }

    /// Arguments of `store_list`.
    struct StoreList {
        /// The store.
        store: String,
        /// Only keys that begin so.
        #[serde(default)]
        prefix: String,
    }

    /// Arguments of `store_search`.
    struct StoreSearch {
        /// The store.
        store: String,
        /// The text to be near to.
        text: String,
        /// How many results.
        #[serde(default = "ten")]
        count: u32,
    }

    /// Arguments of `mount`.
    struct Mount {
        /// The model's file, as an absolute path; or `sim:` and a script for the driver without a model.
        path: String,
        /// The name to mount it under; from the file's name if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Tokens that one context can hold, and that the pool has room for; what the model was trained with,
        /// at most 8,192, if absent, and less where memory is short.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        context: Option<Tokens>,
        /// Which attention kernel runs.
        #[serde(default)]
        attention: Attention,
        /// Layers that go to the graphics device, the output counted as one, from the last one on; if absent, as
        /// many as fit there beside the pool.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gpu_layers: Option<u32>,
        /// The device that it goes to, as `sysinfo` names them: `cpu`, `cuda:0`, …; the one where most of it fits if
        /// absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<String>,
        /// Threads of the worker; one for each physical core if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        threads: Option<u32>,
        /// What a context generates depends on it alone, to the last bit, and not on what else the model is doing.
        /// Costs speed.
        #[serde(default)]
        deterministic: bool,
    }

    /// Arguments of `unmount`.
    struct Unmount {
        /// The model's name.
        name: String,
        /// Ends the calls that use it instead of refusing.
        #[serde(default)]
        force: bool,
    }

    /// Arguments of `models`.
    struct Models {}

    /// Arguments of `train`.
    struct Train {
        /// The training specification.
        spec: serde_json::Value,
    }

    /// Arguments of `compress`.
    struct Compress {
        /// The compression specification.
        spec: serde_json::Value,
    }

    /// Arguments of `evaluate`.
    struct Evaluate {
        /// The evaluation specification.
        spec: serde_json::Value,
    }

    /// Arguments of `subscribe`.
    struct Subscribe {
        /// Kinds of events: `process`, `step`, `page`, `worker`; all if empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        kinds: Vec<String>,
        /// Ends the subscription after so many milliseconds, with the reply. Otherwise INT ends it, with EINTR.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    }

    /// Arguments of `sysinfo`.
    struct Sysinfo {}

    /// Arguments of `shutdown`.
    struct Shutdown {}
}

/// The scheduling class, highest first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Before everything else.
    Realtime,
    /// Somebody is watching.
    Interactive,
    /// Weighted fair share.
    #[default]
    Normal,
    /// Only what the others leave.
    Batch,
}

/// A signal to a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Signal {
    /// Ends the calls that run; the process lives on.
    Int,
    /// Asks the process to end.
    #[default]
    Term,
    /// Ends the process.
    Kill,
    /// Stops generation after the step that runs.
    Stop,
    /// Goes on after STOP.
    Cont,
}

impl Signal {
    /// The number that an exit status of `128 + number` carries.
    pub fn number(self) -> u8 {
        match self {
            Signal::Int => 2,
            Signal::Kill => 9,
            Signal::Term => 15,
            Signal::Cont => 18,
            Signal::Stop => 19,
        }
    }
}

/// A limit of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Contexts at once.
    Contexts,
    /// Tokens in all contexts together.
    ContextTokens,
    /// Frames in device memory.
    ResidentFrames,
    /// Tokens that it may generate in its life.
    GeneratedTokens,
    /// Pages of its contexts that are saved in host memory and on disk; further ones are computed again.
    SwapPages,
    /// Tokens that it may generate in a second. What it does not use is kept, up to one second's worth.
    TokensPerSecond,
}

/// A limit of a group, on all its processes and those of the groups in it together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupLimit {
    /// Contexts at once.
    Contexts,
    /// Tokens in all contexts together, when a context is opened, copied or appended to.
    ContextTokens,
    /// Frames in device memory.
    ResidentFrames,
    /// Frames in device memory above which the group gets no further ones while others wait for some.
    ResidentFramesSoft,
    /// Tokens that may be generated in a second. What is not used is kept, up to one second's worth.
    TokensPerSecond,
}

/// What happens when a context is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// The call ends and says so.
    #[default]
    Stop,
    /// The oldest part is dropped, half of the window at a time, or in a conversation the oldest messages. The
    /// beginning stays: system messages, or the segment that the context was opened on; the first page where there
    /// are none, or where these are longer than half of the window.
    Slide,
    /// As `slide`, but when a generation fills the context, a summary that the model writes takes the place of what
    /// is dropped.
    Compact,
}

/// Which attention kernel the driver runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Attention {
    /// What is faster here by measurement.
    #[default]
    Auto,
    /// The fused kernel.
    Flash,
    /// Two matrix products with a softmax between.
    Plain,
    /// The driver's own kernel for CPUs, which reads what many sequences share once for all of them. Where it cannot
    /// run, the fused kernel does.
    Blocked,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling {
            repeat_penalty: one_f32(),
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            penalty_last_n: penalty_last_n(),
            top_k: top_k(),
            top_p: top_p(),
            min_p: min_p(),
            temperature: temperature(),
            seed: None,
            grammar: None,
            json_schema: None,
        }
    }
}

// The defaults of llama.cpp's own tools, so that a model behaves here as people know it.
fn top_k() -> u32 {
    40
}
fn top_p() -> f32 {
    0.95
}
fn min_p() -> f32 {
    0.05
}
fn temperature() -> f32 {
    0.8
}
fn penalty_last_n() -> u32 {
    64
}
fn one() -> u32 {
    1
}
fn one_f32() -> f32 {
    1.0
}
fn ten() -> u32 {
    10
}
fn yes() -> bool {
    true
}
fn owner_only() -> u32 {
    0o600
}

/// A request before its call is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    id: Option<CallId>,
    #[serde(default)]
    pid: Option<Pid>,
    call: Option<String>,
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct EnvelopeOut<'a> {
    id: CallId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<Pid>,
    call: &'a str,
    args: Box<RawValue>,
}

impl Request {
    /// Reads a request from one line.
    ///
    /// # Errors
    ///
    /// The fault to answer with, beside the `id` where one could be read: EPROTO for what is no request, EINVAL
    /// for wrong arguments, ENOSYS for an unknown call.
    pub fn from_line(line: &[u8]) -> Result<Request, (Option<CallId>, Fault)> {
        let text = std::str::from_utf8(line).map_err(|e| {
            (
                None,
                Fault::new(Errno::EPROTO, format!("the line is not UTF-8 from byte {} on", e.valid_up_to())),
            )
        })?;
        let envelope: Envelope = serde_json::from_str(text).map_err(|e| (None, bad_envelope(&e)))?;
        let Some(id) = envelope.id else {
            return Err((None, Fault::new(Errno::EPROTO, "the request has no `id`; give each a number")));
        };
        let Some(name) = envelope.call else {
            return Err((Some(id), Fault::new(Errno::EPROTO, "the request has no `call`; name one")));
        };
        let args = envelope.args.map_or("{}", RawValue::get);
        let call = Call::read(&name, args).map_err(|fault| (Some(id), fault))?;
        Ok(Request { id, pid: envelope.pid, call })
    }

    /// Writes the request as one line, newline included.
    ///
    /// # Errors
    ///
    /// EINVAL where an argument has no JSON form, such as a number that is not finite.
    pub fn to_line(&self) -> Result<Vec<u8>, Fault> {
        let no_json =
            |e: serde_json::Error| Fault::new(Errno::EINVAL, format!("the request has no JSON form: {e}"));
        let args = self.call.args_json().map_err(no_json)?;
        let out = EnvelopeOut { id: self.id, pid: self.pid, call: self.call.name(), args };
        let mut line = serde_json::to_vec(&out).map_err(no_json)?;
        line.push(b'\n');
        Ok(line)
    }
}

fn bad_envelope(error: &serde_json::Error) -> Fault {
    Fault::new(
        Errno::EPROTO,
        format!(
            r#"the line is not a request: {}; send {{"id":1,"call":"hello","args":{{"version":1}}}} first"#,
            shown(error)
        ),
    )
}

fn bad_args(name: &str, error: &serde_json::Error) -> Fault {
    Fault::new(Errno::EINVAL, format!("{name}: {}", shown(error)))
}

/// What serde says, cut in its middle: it quotes what was sent, which can be megabytes, and ends with the place.
fn shown(error: &serde_json::Error) -> String {
    const ENDS_CHARS: usize = 200;
    let text = error.to_string();
    let chars = text.chars().count();
    if chars <= 2 * ENDS_CHARS {
        return text;
    }
    let begin: String = text.chars().take(ENDS_CHARS).collect();
    let end: String = text.chars().skip(chars - ENDS_CHARS).collect();
    format!("{begin} … {end}")
}

fn unknown_call(name: &str) -> Fault {
    let shown: String = name.chars().take(64).collect();
    let mut message = format!("unknown call `{shown}`");
    if let Some(near) = nearest(name, Call::NAMES) {
        message.push_str(&format!("; did you mean `{near}`?"));
    }
    Fault::new(Errno::ENOSYS, message)
}

/// The candidate that a typing error most likely meant: at most a third of its letters wrong.
pub fn nearest<'a>(typed: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let (distance, best) = candidates.iter().map(|c| (edit_distance(typed, c), *c)).min()?;
    (typed.len() <= 64 && distance * 3 <= best.chars().count().max(3)).then_some(best)
}

/// The Levenshtein distance in characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().take(128).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(line: &str) -> (Option<CallId>, Errno, String) {
        let (id, fault) = Request::from_line(line.as_bytes()).expect_err("the line must be refused");
        (id, fault.errno, fault.message)
    }

    #[test]
    fn request_written_and_read_is_the_same() {
        let call = Call::Generate(Generate {
            context: ContextId(3),
            max_tokens: Some(Tokens(8)),
            stop: vec!["\n".into()],
            sampling: Sampling { seed: Some(7), ..Sampling::default() },
            ignore_eos: true,
            logprobs: Some(2),
            stream: false,
            deadline_ms: Some(500),
        });
        let request = Request { id: CallId(9), pid: Some(Pid(4)), call };
        let line = request.to_line().expect("has a JSON form");
        assert_eq!(line.last(), Some(&b'\n'));
        assert_eq!(Request::from_line(&line).expect("reads back"), request);
    }

    #[test]
    fn argument_unknown_is_named() {
        let (id, errno, message) = fault(r#"{"id":5,"call":"exit","args":{"statsu":1}}"#);
        assert_eq!((id, errno), (Some(CallId(5)), Errno::EINVAL));
        assert!(message.contains("statsu") && message.contains("status"), "{message}");
    }

    #[test]
    fn fault_about_a_huge_argument_is_short() {
        let (_, errno, message) =
            fault(&format!(r#"{{"id":5,"call":"exit","args":{{"{}":1}}}}"#, "ü".repeat(1 << 20)));
        assert_eq!(errno, Errno::EINVAL);
        assert!(message.len() < 2048, "{} bytes", message.len());
        assert!(message.contains("unknown field") && message.contains("column"), "{message}");
    }

    #[test]
    fn call_misspelt_suggests_the_right_one() {
        let (_, errno, message) = fault(r#"{"id":5,"call":"genrate"}"#);
        assert_eq!(errno, Errno::ENOSYS);
        assert!(message.contains("did you mean `generate`?"), "{message}");
    }

    #[test]
    fn line_without_id_is_a_protocol_fault() {
        assert_eq!(fault(r#"{"call":"ps"}"#).1, Errno::EPROTO);
        assert_eq!(fault("[1,2").1, Errno::EPROTO);
        assert_eq!(fault("").1, Errno::EPROTO);
    }

    #[test]
    fn arguments_absent_take_their_defaults() {
        let request = Request::from_line(br#"{"id":1,"call":"kill","args":{"pid":7}}"#).expect("valid");
        assert_eq!(request.call, Call::Kill(Kill { pid: Pid(7), signal: Signal::Term }));
    }
}
