//! What calls answer, and how a frame (a reply or an event) is written to a line.
//!
//! A reply is `{"id":7,"ok":{"opened":{…}}}` or `{"id":7,"error":{"errno":"ENOMEM","message":"…"}}`; an event is
//! `{"id":7,"event":"tokens",…}`. A fault that belongs to no request has the id 0.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::call::{Attention, Class};
use crate::errno::Fault;
use crate::event::{Event, TokenLogprob};
use crate::id::{CallId, ContextId, Pid, Token, Tokens};

/// The id of a fault that belongs to no request.
pub const NO_CALL: CallId = CallId(0);

/// One line from the daemon.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// The last word on a request.
    Reply(CallId, Result<Reply, Fault>),
    /// Something on the way there.
    Event(CallId, Event),
}

/// Any frame as it is read.
#[derive(Deserialize)]
struct FrameLine {
    id: CallId,
    #[serde(default)]
    ok: Option<Reply>,
    #[serde(default)]
    error: Option<Fault>,
    #[serde(flatten)]
    event: Option<Event>,
}

// The same three as they are written, borrowed: a frame is written once for each token.

#[derive(Serialize)]
struct ReplyLine<'a> {
    id: CallId,
    ok: &'a Reply,
}

#[derive(Serialize)]
struct FaultLine<'a> {
    id: CallId,
    error: &'a Fault,
}

#[derive(Serialize)]
struct EventLine<'a> {
    id: CallId,
    #[serde(flatten)]
    event: &'a Event,
}

impl Frame {
    /// The request that it belongs to.
    pub fn id(&self) -> CallId {
        match self {
            Frame::Reply(id, _) | Frame::Event(id, _) => *id,
        }
    }

    /// Appends the frame to a buffer as one line, newline included.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        let written = match self {
            Frame::Reply(id, Ok(reply)) => {
                serde_json::to_writer(&mut *out, &ReplyLine { id: *id, ok: reply })
            }
            Frame::Reply(id, Err(fault)) => {
                serde_json::to_writer(&mut *out, &FaultLine { id: *id, error: fault })
            }
            Frame::Event(id, event) => serde_json::to_writer(&mut *out, &EventLine { id: *id, event }),
        };
        written.expect("replies hold nothing that JSON lacks");
        out.push(b'\n');
    }

    /// Reads a frame from one line.
    ///
    /// # Errors
    ///
    /// What is wrong with the line, for a client that meets another version of the daemon.
    pub fn from_line(line: &[u8]) -> Result<Frame, String> {
        let line: FrameLine = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        match (line.ok, line.error, line.event) {
            (Some(reply), None, None) => Ok(Frame::Reply(line.id, Ok(reply))),
            (None, Some(fault), _) => Ok(Frame::Reply(line.id, Err(fault))),
            (None, None, Some(event)) => Ok(Frame::Event(line.id, event)),
            _ => Err("neither a reply nor an event".into()),
        }
    }
}

/// What a call answers, named as in the manual.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is done; there is nothing to say.
    Done {},
    /// Answer to `hello`.
    Hello(HelloReply),
    /// Answer to `spawn`.
    Spawned {
        /// The child.
        pid: Pid,
    },
    /// Answer to `wait`.
    Waited {
        /// The child that ended.
        pid: Pid,
        /// 0 for success, 128 + n for the end by signal n.
        status: u8,
    },
    /// Answer to `ps`.
    Processes(Vec<ProcessInfo>),
    /// Answer to `groups`.
    Groups(Vec<GroupInfo>),
    /// Answer to `stat`.
    Stat(Stats),
    /// Answer to `open` and `restore`.
    Opened {
        /// The new context.
        context: ContextId,
        /// The model that it is on.
        model: String,
        /// How many tokens it has.
        length: Tokens,
        /// How many it can have.
        tokens_max: Tokens,
    },
    /// Answer to `fork`.
    Forked {
        /// The copies.
        contexts: Vec<ContextId>,
    },
    /// Answer to `append`.
    Appended {
        /// How many tokens the context has now.
        length: Tokens,
        /// How many of them this call added.
        added: Tokens,
    },
    /// Answer to `generate`.
    Generated(GeneratedReply),
    /// Answer to `tokens` and `tokenize`.
    Tokens(Vec<Token>),
    /// Answer to `detokenize`.
    Text(String),
    /// Answer to `embed`: one vector of length 1 for each text.
    Embedded(Vec<Vec<f32>>),
    /// Answer to `score`: the sum of natural log-probabilities of each continuation's tokens.
    Scored(Vec<f64>),
    /// Answer to `receive`.
    Message {
        /// The sender.
        from: Pid,
        /// The message.
        data: serde_json::Value,
    },
    /// Answer to `store_get`.
    Value(Option<serde_json::Value>),
    /// Answer to `store_list`.
    Keys(Vec<String>),
    /// Answer to `store_search`: keys with their similarity, best first.
    Found(Vec<(String, f32)>),
    /// Answer to `mount`.
    Mounted(ModelInfo),
    /// Answer to `models`.
    Models(Vec<ModelInfo>),
    /// Answer to `segments`.
    Segments(Vec<SegmentInfo>),
    /// Answer to `train`.
    Trained(serde_json::Value),
    /// Answer to `compress`.
    Compressed(serde_json::Value),
    /// Answer to `evaluate`.
    Evaluated(serde_json::Value),
    /// Answer to `sysinfo`.
    Sysinfo(SysinfoReply),
}

/// Answer to `hello`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HelloReply {
    /// The version that both speak from now on.
    pub version: u32,
    /// The daemon's release.
    pub daemon: String,
    /// The caller's process.
    pub pid: Pid,
    /// The caller's user, from the socket's peer credentials.
    pub uid: u32,
    /// The longest line, in bytes, that the daemon reads.
    pub line_bytes_max: u32,
}

/// Answer to `generate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GeneratedReply {
    /// Why it ended.
    pub finish: Finish,
    /// The whole text, without the stop string.
    pub text: String,
    /// All tokens, with an end-of-generation token or a stop string's.
    pub tokens: Vec<Token>,
    /// One entry a token, if the call asked for `logprobs` and did not stream.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<TokenLogprob>,
    /// How many tokens the context has now.
    pub length: Tokens,
    /// The seed that was used; the one to give to get the same tokens again.
    pub seed: u64,
    /// What it took.
    pub usage: Usage,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model chose an end-of-generation token.
    Eos,
    /// A stop string came.
    Stop,
    /// `max_tokens` were generated.
    Length,
    /// The context is full.
    ContextFull,
    /// INT, TERM or KILL ended it.
    Interrupted,
}

/// What a generation took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Tokens of the context that were evaluated for this call before the first one came out.
    pub prompt_tokens_evaluated: u32,
    /// Tokens of the context whose pages were there already.
    pub prompt_tokens_shared: u32,
    /// Tokens that came out.
    pub tokens_generated: u32,
    /// From the call to the first token, in microseconds.
    pub first_token_us: u64,
    /// From the call to the last token, in microseconds.
    pub total_us: u64,
}

/// One process, as `ps` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessInfo {
    /// Its number.
    pub pid: Pid,
    /// Who started it.
    pub parent: Pid,
    /// Its user.
    pub uid: u32,
    /// The operating system's process behind it, 0 where there is none.
    pub os_pid: u32,
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: ProcessState,
    /// What it waits for, where it is blocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// Its class.
    pub class: Class,
    /// Its nice value.
    pub nice: i8,
    /// Its contexts.
    pub contexts: u32,
    /// Tokens in its contexts.
    pub context_tokens: u64,
    /// Frames in device memory that it maps.
    pub frames: u32,
    /// How much it is in the way where memory is short: its frames, times 1 for realtime, 2 for interactive, 4 for
    /// normal and 8 for batch, and times what its nice value divides its share of time by (1 for nice 0).
    #[serde(default)]
    pub oom_score: u32,
    /// Tokens evaluated for it.
    pub prompt_tokens_evaluated: u64,
    /// Tokens generated for it.
    pub tokens_generated: u64,
    /// Model time that it has had, in microseconds.
    pub service_us: u64,
    /// Its group.
    #[serde(default)]
    pub group: String,
    /// How long it usually rests between generations, in microseconds, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_idle_us: Option<u64>,
    /// Since its start, in milliseconds.
    pub age_ms: u64,
    /// The exit status of a zombie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
}

/// One group of processes, with all that are in groups inside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GroupInfo {
    /// The names from the outside, with slashes; `/` for all processes.
    pub name: String,
    /// Its share of the device's time beside its siblings.
    pub weight: u32,
    /// Its processes.
    pub processes: u64,
    /// Their contexts.
    pub contexts: u64,
    /// The most that they may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contexts_max: Option<u64>,
    /// Tokens in these.
    pub context_tokens: u64,
    /// The most that there may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_tokens_max: Option<u64>,
    /// Frames that they map.
    pub frames: u64,
    /// The most that they may map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames_max: Option<u64>,
    /// The number from which on they get no further ones while others wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames_soft: Option<u64>,
    /// The most tokens that they may generate in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_second_max: Option<u64>,
    /// How much of the time work waited for memory.
    pub memory: PressureInfo,
    /// How much of the time work that was in memory had no part in the step that ran.
    pub steps: PressureInfo,
}

/// Shares of time in percent, as averages over about the last 10, 60 and 300 seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PressureInfo {
    /// At least one generation waited.
    pub some: [f32; 3],
    /// Generations waited, and none ran.
    pub full: [f32; 3],
}

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// None of its calls needs the model.
    Idle,
    /// It has work for the next step.
    Ready,
    /// It has work in the step that runs.
    Running,
    /// It waits for something other than the model's time.
    Blocked,
    /// STOP holds it.
    Stopped,
    /// It has ended and its parent has not waited for it.
    Zombie,
}

/// Counters since the daemon's start, and levels of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stats {
    /// Prompt tokens that a forward pass computed.
    pub prompt_tokens_evaluated: u64,
    /// Prompt tokens that were there already.
    pub prompt_tokens_shared: u64,
    /// Tokens that came out.
    pub tokens_generated: u64,
    /// Tokens computed again after their pages were lost or taken.
    pub tokens_recomputed: u64,
    /// Forward passes.
    pub steps: u64,
    /// Time in forward passes, in microseconds.
    pub step_us: u64,
    /// Frames in device memory.
    pub frames_total: u64,
    /// Frames that no page occupies.
    pub frames_free: u64,
    /// Frames that hold what closed contexts have left, for the next one with the same beginning. They are free
    /// for whoever needs them.
    #[serde(default)]
    pub frames_cached: u64,
    /// Pages in host memory.
    pub pages_host: u64,
    /// Pages on disk.
    pub pages_disk: u64,
    /// Bytes paged out since the start.
    pub swap_out_bytes: u64,
    /// Bytes paged in since the start.
    pub swap_in_bytes: u64,
    /// Tokens that were guessed from what stands before and checked.
    #[serde(default)]
    pub tokens_drafted: u64,
    /// Guesses that were right.
    #[serde(default)]
    pub tokens_accepted: u64,
    /// Pages that were taken from a context and brought back, by loading or computing them.
    #[serde(default)]
    pub refaults: u64,
    /// Saved pages that could not be loaded, and were computed again.
    #[serde(default)]
    pub pages_corrupted: u64,
    /// Workers that were started again.
    pub worker_restarts: u64,
    /// Processes of now, zombies included.
    pub processes: u64,
    /// Contexts of now.
    pub contexts: u64,
    /// Calls since the start.
    pub calls: u64,
    /// Since the daemon's start, in milliseconds.
    pub uptime_ms: u64,
}

/// One mounted model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelInfo {
    /// The name that it is mounted under.
    pub name: String,
    /// Its file.
    pub path: String,
    /// Whether it can be used.
    pub state: ModelState,
    /// Why it cannot, where it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// `llama`, `sim`.
    pub driver: String,
    /// The model family: `llama`, `qwen2`, `bert`, ….
    pub architecture: String,
    /// A line for people: what the model calls itself.
    pub description: String,
    /// Weights.
    pub parameters: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Entries of its vocabulary.
    pub vocabulary: u32,
    /// Tokens that one context can hold here.
    pub context_tokens: u32,
    /// Tokens that it was trained with.
    pub context_trained: u32,
    /// Length of its vectors.
    pub embedding: u32,
    /// It can generate text.
    pub generates: bool,
    /// It can embed text.
    pub embeds: bool,
    /// It has a chat template, so it follows instructions.
    pub chat_template: bool,
    /// It can express every text, byte by byte if need be.
    pub any_text: bool,
    /// Frames of its pool.
    pub frames_total: u32,
    /// Frames of its pool that are free.
    pub frames_free: u32,
    /// The attention kernel that runs.
    pub attention: Attention,
    /// Where it runs: `cpu`, `cuda:0`, ….
    pub device: String,
    /// The worker's process, 0 where none runs.
    pub worker_os_pid: u32,
    /// Threads of the worker.
    pub threads: u32,
    /// Layers that it has, the output counted as one.
    #[serde(default)]
    pub layers: u32,
    /// Those of them that are on a graphics device.
    #[serde(default)]
    pub gpu_layers: u32,
    /// What it takes of each device; nothing while it is not loaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memory: Vec<DeviceShare>,
}

/// What a model takes of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceShare {
    /// The device.
    pub device: String,
    /// The model; the empty string for a worker that is going away.
    pub model: String,
    /// Bytes of weights.
    pub weights_bytes: u64,
    /// Bytes of KV entries.
    pub pool_bytes: u64,
    /// Bytes of the buffers that it computes with.
    pub compute_bytes: u64,
}

/// A device that models are loaded to, and who takes what of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceInfo {
    /// `cpu` for main memory, `cuda:0`, ….
    pub name: String,
    /// Bytes that models may take.
    pub memory_bytes: u64,
    /// Bytes that nobody takes.
    pub free_bytes: u64,
    /// Who takes the others.
    pub shares: Vec<DeviceShare>,
}

/// One shared segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SegmentInfo {
    /// Its name.
    pub name: String,
    /// The model that it is on.
    pub model: String,
    /// Its owner.
    pub uid: u32,
    /// Its permission bits.
    pub mode: u32,
    /// Its tokens.
    pub length: Tokens,
}

/// Whether a model can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelState {
    /// The worker is loading it.
    Loading,
    /// Ready.
    Ready,
    /// The worker died and is being started again.
    Restarting,
    /// The worker could not be kept running; unmount and mount it again.
    Offline,
    /// It gave its memory to another model. It is loaded again when it is used.
    Unloaded,
}

/// Answer to `sysinfo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SysinfoReply {
    /// The daemon's release.
    pub daemon: String,
    /// The daemon's process.
    pub os_pid: u32,
    /// The socket that it listens on.
    pub socket: String,
    /// Where it keeps its state.
    pub data: String,
    /// Name of the processor.
    pub cpu: String,
    /// Processors that it may use.
    pub cpus: u32,
    /// Bytes of main memory.
    pub memory_bytes: u64,
    /// The scheduling policy.
    pub policy: String,
    /// Since the daemon's start, in milliseconds.
    pub uptime_ms: u64,
    /// The devices that models are loaded to, main memory first.
    #[serde(default)]
    pub devices: Vec<DeviceInfo>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errno::Errno;

    fn line_of(frame: &Frame) -> String {
        let mut line = Vec::new();
        frame.write_line(&mut line);
        String::from_utf8(line).expect("JSON is UTF-8")
    }

    #[test]
    fn frame_written_and_read_is_the_same() {
        let frames = [
            Frame::Reply(CallId(1), Ok(Reply::Done {})),
            Frame::Reply(CallId(2), Ok(Reply::Value(None))),
            Frame::Reply(CallId(3), Ok(Reply::Embedded(vec![vec![0.1, -1e-8]]))),
            Frame::Reply(CallId(4), Err(Fault::new(Errno::ENOMEM, "no frame is free"))),
            Frame::Event(CallId(5), Event::Replaying { tokens: 9 }),
            Frame::Event(
                CallId(6),
                Event::Tokens { text: "a\nb".into(), tokens: vec![Token(7)], logprobs: vec![] },
            ),
        ];
        for frame in frames {
            let line = line_of(&frame);
            assert_eq!(line.find('\n'), Some(line.len() - 1), "one line: {line}");
            assert_eq!(Frame::from_line(line.as_bytes()), Ok(frame), "{line}");
        }
    }

    #[test]
    fn frames_have_the_documented_form() {
        let done = line_of(&Frame::Reply(CallId(7), Ok(Reply::Done {})));
        assert_eq!(done, "{\"id\":7,\"ok\":{\"done\":{}}}\n");
        let event =
            line_of(&Frame::Event(CallId(7), Event::Progress { fraction: 0.5, what: "loads".into() }));
        assert_eq!(event, "{\"id\":7,\"event\":\"progress\",\"fraction\":0.5,\"what\":\"loads\"}\n");
    }

    #[test]
    fn line_that_is_no_frame_is_refused() {
        for line in ["{}", "{\"id\":1}", "[]", "{\"id\":1,\"event\":\"dance\"}"] {
            assert!(Frame::from_line(line.as_bytes()).is_err(), "{line}");
        }
    }
}
