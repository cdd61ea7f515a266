//! What a running call reports before its reply.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::call::{Class, OnFull, Signal};
use crate::errno::Fault;
use crate::id::{ContextId, Pid, Token, TokenRun, Tokens};
use crate::reply::ServiceState;

/// One event, named by its `event` field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Generated tokens. `text` is whole UTF-8: a character that spans tokens comes with its last one.
    Tokens {
        /// The text that has become certain since the last event; empty while a character or a possible stop
        /// string is incomplete.
        text: String,
        /// The tokens since the last event.
        tokens: TokenRun,
        /// One entry a token, if the call asked for `logprobs`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        logprobs: Vec<TokenLogprob>,
    },
    /// The worker died; the context is computed again from its token log. No token is lost or repeated.
    Replaying {
        /// Tokens that are computed again.
        tokens: u32,
    },
    /// The context was full and slides (`on_full`): its oldest part is gone, and the rest is computed again.
    Slid {
        /// Tokens at the beginning that stayed: instructions, or the first page.
        #[serde(default)]
        kept: Tokens,
        /// Tokens that were dropped.
        tokens: Tokens,
        /// Messages of the conversation that were dropped instead, oldest first.
        messages: u32,
    },
    /// The context was full and compacts (`on_full`): a summary, written by the model, stands for its oldest part.
    Compacted {
        /// Tokens at the beginning that stayed: instructions, or the first page.
        #[serde(default)]
        kept: Tokens,
        /// Tokens that were dropped.
        tokens: Tokens,
        /// Tokens of the summary.
        summary: Tokens,
        /// Messages of the conversation that it stands for instead, oldest first.
        #[serde(default)]
        messages: u32,
    },
    /// To a follower of `output`: a program has printed.
    Output {
        /// What, in its order.
        lines: Vec<OutputLine>,
    },
    /// A progress report of a long call such as `mount`.
    Progress {
        /// Between 0 and 1.
        fraction: f32,
        /// What is being done.
        what: String,
    },
    /// To a subscriber of `process`, and to who traces it: a process began or ended.
    Process {
        /// When, in microseconds since the daemon's start.
        at_us: u64,
        /// The process.
        pid: Pid,
        /// Its parent.
        parent: Pid,
        /// Its name, as `ps` shows it.
        name: String,
        /// Its scheduling class.
        class: Class,
        /// What happened.
        change: ProcessChange,
        /// Its exit status, if it has ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u8>,
    },
    /// To a subscriber of `step`: a worker has run a step. A tracer with `tokens` gets the rows of what it traces.
    Step {
        /// When its result came, in microseconds since the daemon's start.
        at_us: u64,
        /// When it was given to the worker.
        begun_us: u64,
        /// What the worker says that it took, in microseconds.
        elapsed_us: u64,
        /// The model.
        model: String,
        /// Counts the steps of the model since it was mounted.
        number: u64,
        /// Frames without a page, after the step.
        frames_free: u64,
        /// One entry for each context that had part in it.
        rows: Vec<StepRow>,
    },
    /// To a subscriber of `page`: the pages of a context came or went.
    Page {
        /// When, in microseconds since the daemon's start.
        at_us: u64,
        /// The model.
        model: String,
        /// The owner of the context.
        pid: Pid,
        /// The context.
        context: ContextId,
        /// What happened.
        change: PageChange,
        /// The tokens whose entries this is about.
        tokens: u32,
    },
    /// To a subscriber of `worker`: a worker started, was ready, or went.
    Worker {
        /// When, in microseconds since the daemon's start.
        at_us: u64,
        /// The model.
        model: String,
        /// Counts the workers of the model since it was mounted.
        incarnation: u32,
        /// What happened.
        change: WorkerChange,
        /// How or why, where there is something to say.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        detail: String,
    },
    /// To a subscriber of `service`: the state of a service has changed.
    Service {
        /// When, in microseconds since the daemon's start.
        at_us: u64,
        /// The service.
        name: String,
        /// What it is doing now.
        state: ServiceState,
        /// Its process, or the last one that it had.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<Pid>,
        /// Why it has failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// To a tracer: a process makes a call.
    Called {
        /// When, in microseconds since the daemon's start.
        at_us: u64,
        /// The process that acts.
        pid: Pid,
        /// Numbers the calls that are traced; its answer has the same.
        number: u64,
        /// The name of the call.
        call: String,
        /// Its arguments.
        args: serde_json::Value,
    },
    /// To a tracer: a call is answered. With a result, or with a fault.
    Returned {
        /// When, in microseconds since the daemon's start.
        at_us: u64,
        /// The process.
        pid: Pid,
        /// The number of the call.
        number: u64,
        /// The name of the call.
        call: String,
        /// How long the answer took, in microseconds.
        took_us: u64,
        /// The reply.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<serde_json::Value>,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fault: Option<Fault>,
    },
    /// To a tracer with `tokens`: a token came out.
    Sampled {
        /// When, in microseconds since the daemon's start.
        at_us: u64,
        /// The process.
        pid: Pid,
        /// The number of the call that generates.
        number: u64,
        /// The context.
        context: ContextId,
        /// The token.
        token: Token,
        /// Its text, with bytes that are no UTF-8 replaced.
        text: String,
    },
    /// To a tracer: a signal comes to a process.
    Signalled {
        /// When, in microseconds since the daemon's start.
        at_us: u64,
        /// The process.
        pid: Pid,
        /// The signal.
        signal: Signal,
    },
    /// To a tracer with `whole`: a context holds tokens that no traced call has brought there.
    Held {
        /// When, in microseconds since the daemon's start.
        at_us: u64,
        /// The process.
        pid: Pid,
        /// The context.
        context: ContextId,
        /// The name of its model.
        model: String,
        /// All of them.
        tokens: Vec<Token>,
        /// How many it can have.
        tokens_max: Tokens,
        /// What happens when it is full.
        on_full: OnFull,
        /// It depends on more than its tokens: it is a conversation, or calls on it are under way.
        busy: bool,
    },
    /// To a subscriber or tracer that did not read fast enough: so many events were left out before this one. To a
    /// follower of `output`: so many lines.
    Lost {
        /// How many.
        events: u64,
    },
}

/// A line that a program has printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutputLine {
    /// Counts the lines of the program, or of the service that it is, from 0.
    pub number: u64,
    /// When, in microseconds since the daemon's start.
    pub at_us: u64,
    /// The process of the program.
    pub pid: Pid,
    /// Where to.
    pub stream: Stream,
    /// The line, without its end; bytes that are no UTF-8 are replaced.
    pub text: String,
    /// The next line of this stream goes on with it: it was longer than a line may be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// A standard stream of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What happened to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProcessChange {
    /// It is in the table from now on.
    Started,
    /// It has ended, and is a zombie until its parent has waited for it.
    Ended,
}

/// What happened to the pages of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PageChange {
    /// A generation waits until there are frames for it.
    Waits,
    /// The context is in memory from now on; `tokens` of it need not be computed.
    Mapped,
    /// It lost its frames; `tokens` are computed again when they are needed.
    Dropped,
    /// `tokens` went to a lower tier.
    SwappedOut,
    /// `tokens` came back from a lower tier.
    SwappedIn,
}

/// What happened to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkerChange {
    /// It was started and loads the model.
    Starting,
    /// It takes steps.
    Ready,
    /// It is gone, and another one is started.
    Died,
    /// It is gone for good: the model is offline or unmounted.
    Gone,
}

/// The part of one context in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepRow {
    /// The owner of the context.
    pub pid: Pid,
    /// The context.
    pub context: ContextId,
    /// Tokens that went in.
    pub tokens: u32,
    /// Whether they are of a prompt, or computed again; generated ones go in one at a time.
    pub prefill: bool,
}

/// How likely a token was, and what else was likely.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TokenLogprob {
    /// The token that was taken.
    pub token: Token,
    /// The natural logarithm of its probability under the model, before temperature and filters.
    pub logprob: f32,
    /// The most likely tokens, best first.
    pub top: Vec<Alternative>,
}

/// A token that could have been taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Alternative {
    /// The token.
    pub token: Token,
    /// Its text, with bytes that are no UTF-8 replaced.
    pub text: String,
    /// The natural logarithm of its probability under the model, before temperature and filters.
    pub logprob: f32,
}
