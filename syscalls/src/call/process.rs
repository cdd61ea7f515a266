//! Calls about processes: whose they are, how they end, and what they tell each other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Capability;
use crate::id::{Pid, Ticket};

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
        /// A group inside the user's own, such as `a/b`; the user's own if absent. Whoever connects from within a program that
        /// the daemon started is inside that program's group, and has its limits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
        /// What the process outlives.
        #[serde(default)]
        lifetime: Lifetime,
        /// What it may do at most; all that its user may if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        caps: Option<Vec<Capability>>,
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
        /// What the child outlives; as much as the parent if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lifetime: Option<Lifetime>,
        /// What it may do at most: some of what the parent may, which is what it gets if absent. It never gets more.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        caps: Option<Vec<Capability>>,
        /// A program that the daemon starts as this process, with its arguments, in the jail and as the caller's user;
        /// absent for a process that the caller acts for. Its name is looked for beside the daemon and in the system's
        /// folders unless it begins with `/`. It inherits a connection as the descriptor that `LLMASOS_SOCKET_FD`
        /// names, and there it is this process. The last lines that it prints are kept (`output`); STOP, CONT, INT, TERM
        /// and XCPU reach it and all that it has started as well, and KILL ends them. The reply comes when it runs.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        argv: Vec<String>,
        /// Files and folders, as absolute paths, that such a program may read beside those of the system. It reads them as
        /// the caller's user, so they give it nothing that the caller has not; a program in the jail cannot give any.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        read: Vec<String>,
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

    /// Arguments of `detach`.
    struct Detach {
        /// The process; the acting one if absent. Those below it on its connection go with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<Pid>,
    }

    /// Arguments of `attach`.
    struct Attach {
        /// The process. Those below it that are detached come with it.
        pid: Pid,
        /// Takes it from the connection that has it.
        #[serde(default)]
        force: bool,
    }

    /// Arguments of `follow`.
    struct Follow {
        /// The call, as `attach` lists it.
        call: Ticket,
        /// Begins with one event that has the text and the tokens so far, where the call is a generation that runs.
        #[serde(default = "yes")]
        replay: bool,
    }

    /// Arguments of `kill`.
    struct Kill {
        /// The process.
        pid: Pid,
        /// The signal.
        #[serde(default)]
        signal: Signal,
    }

    /// Arguments of `kill_group`.
    struct KillGroup {
        /// The group: inside the user's own, such as `a/b`, or from the root on, such as `/user.1000/a`.
        group: String,
        /// The signal.
        #[serde(default)]
        signal: Signal,
    }

    /// Arguments of `output`.
    struct Output {
        /// The process; the last ones that have ended are known still.
        pid: Pid,
        /// So many of the last lines; all that are kept if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lines: Option<u32>,
        /// Sends these lines and those to come as events (`output`). The reply comes when the program has ended, and has
        /// no lines.
        #[serde(default)]
        follow: bool,
    }

    /// Arguments of `sigwait`.
    struct Sigwait {
        /// How long to wait; for ever if absent, not at all if 0.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    }

    /// Arguments of `ps`.
    struct Ps {
        /// Those too that ended with the last daemon, because they did not outlive it.
        #[serde(default)]
        all: bool,
    }

    /// Arguments of `inspect`.
    struct Inspect {
        /// The process.
        pid: Pid,
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

    /// Arguments of `setlimit`.
    struct Setlimit {
        /// The process.
        pid: Pid,
        /// Which limit.
        limit: Limit,
        /// The new value; none lifts the limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<u64>,
        /// What happens when the process has used it up, of `generated_tokens` (`refuse` if absent) and `service_us`
        /// (`signal` if absent).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        then: Option<AtLimit>,
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
}

fn yes() -> bool {
    true
}

/// What a process outlives.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Lifetime {
    /// Nothing: it ends with its connection.
    #[default]
    Connection,
    /// Its connection: it goes on detached, until `attach`.
    Detached,
    /// The daemon as well: its contexts and calls are kept on disk at every step, and go on at the next start.
    Persistent,
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
    /// Asks the process to end: it does at once, or, if it waits for signals with `sigwait`, has some time to finish.
    #[default]
    Term,
    /// Ends the process.
    Kill,
    /// Stops generation after the step that runs.
    Stop,
    /// Goes on after STOP.
    Cont,
    /// The process has used up a limit. As TERM.
    Xcpu,
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
            Signal::Xcpu => 24,
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
    /// Time of models that it may have in its life, in microseconds, as `ps` counts it.
    ServiceUs,
    /// Tokens that it may generate in a second. What it does not use is kept, up to one second's worth.
    TokensPerSecond,
}

/// What happens when a process has used up a limit of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AtLimit {
    /// Its generations end, and further ones are refused; of `service_us` so is `compute`.
    Refuse,
    /// It is stopped as by STOP; raise the limit and send CONT.
    Stop,
    /// It gets XCPU, which ends it.
    Signal,
}
