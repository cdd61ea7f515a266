//! What kernel and worker say to each other: a length of four bytes (little endian), then a message in postcard.
//!
//! The worker is started with one end of a socket pair as its standard input. It says [`FromWorker::Ready`] or
//! [`FromWorker::Refused`] once, then answers each message of the kernel in its own time: steps in their order,
//! questions between and beside them. End of file means that the other side is gone; a worker then exits at
//! once, and the kernel counts its worker as dead.
//!
//! Both ends are built from one tree, so the encoding has no versions and no compatibility to keep. It is still
//! read with bounds: a worker runs foreign C++ on foreign files, and the kernel trusts none of its numbers.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use syscalls::call::{Attention, Message, Sampling};
use syscalls::{Errno, Token, TokenRun};

/// The largest message, in bytes: the vectors of a full `embed` of 1,024 texts at 4,096 dimensions.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// Positions in one page of KV entries. llama.cpp's attention on the CPU skips whole masked tiles of this size.
pub const PAGE_TOKENS: u32 = 64;

/// A sequence id of the worker, handed out to resident contexts, as hardware hands out address-space ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Asid(pub u16);

/// A vector of an embedding.
pub type Vector = Vec<f32>;

/// How the kernel wants a model loaded. The worker gets it as JSON in its one argument.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadRequest {
    /// The file, or `sim:` and a script.
    pub path: String,
    /// Tokens in the largest context, and in the pool if that is absent; the driver's choice if absent.
    pub context_tokens: Option<u32>,
    /// Tokens in the pool, a multiple of what the estimate says.
    pub pool_tokens: Option<u32>,
    /// Sequences at once, at most 256 for llama.cpp.
    pub sequences_max: u16,
    /// The attention kernel.
    pub attention: Attention,
    /// The device for weights and pool: `cpu`, `cuda:0`, …; the driver's choice if absent.
    pub device: Option<String>,
    /// Layers for the graphics device, the output counted as one, from the last one on; all if absent.
    pub gpu_layers: Option<u32>,
    /// Threads; one for each physical core if absent.
    pub threads: Option<u32>,
    /// A folder for what was measured and need not be measured again; nothing is kept if absent.
    pub cache_dir: Option<String>,
    /// The swap area that the worker inherits; none if absent, and then no page is saved.
    pub swap: Option<SwapArea>,
    /// What comes out of a row depends on its sequence alone, and not on the other rows of its step or on where
    /// in the pool its entries are. Costs speed.
    pub deterministic: bool,
    /// The name that the model is mounted under, which its swap file on disk has too.
    pub name: String,
}

/// A graphics device, as `llmasos-driver devices` lists them in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceFound {
    /// `cuda:0`, `metal:0`, ….
    pub name: String,
    /// What its maker calls it.
    pub description: String,
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// Those that nobody uses now.
    pub free_bytes: u64,
}

/// The files of the swap area, which the daemon keeps across workers. A page has the same room in both, numbered
/// from 0, of [`ModelDescription::page_bytes`] rounded up to 4,096.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapArea {
    /// The open file descriptor of the host tier, a file in memory.
    pub host_fd: Option<i32>,
    /// The open file descriptor of the disk tier.
    pub disk_fd: Option<i32>,
}

/// A place in the swap area for one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Slot {
    /// In the file in memory.
    Host(u32),
    /// In the file on disk.
    Disk(u32),
}

/// What a saved page must be when it is loaded: the entries of positions `from..to` of a sequence whose tokens up
/// to `to` have this digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PageLabel {
    /// The first position; a multiple of [`PAGE_TOKENS`].
    pub from: u32,
    /// Behind the last position; at most [`PAGE_TOKENS`] further.
    pub to: u32,
    /// Of the user and of all tokens at positions `0..to`.
    pub digest: u128,
}

/// What was loaded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelDescription {
    /// `llama` or `sim`.
    pub driver: String,
    /// The model family, in GGUF's words.
    pub architecture: String,
    /// What the model calls itself.
    pub description: String,
    /// Weights.
    pub parameters: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Entries of the vocabulary.
    pub vocabulary: u32,
    /// Tokens that one context can hold.
    pub context_tokens: u32,
    /// Tokens that the model was trained with.
    pub context_trained: u32,
    /// Cells of the KV pool, in tokens; a multiple of [`PAGE_TOKENS`].
    pub pool_tokens: u32,
    /// The most rows times tokens of one step.
    pub batch_tokens: u32,
    /// Tokens that the device computes at a time: a step of one more takes as long as one of so many more.
    pub row_tile: u32,
    /// Sequences at once: asids run from 0 to one below.
    pub sequences: u16,
    /// Length of the vectors.
    pub embedding: u32,
    /// It can generate text.
    pub generates: bool,
    /// It can embed text.
    pub embeds: bool,
    /// It has a chat template.
    pub chat_template: bool,
    /// It can express every text.
    pub any_text: bool,
    /// Parts of a sequence can be dropped and shared. Recurrent models, for one, keep or lose a whole sequence.
    pub ranges: bool,
    /// The attention kernel that runs, never `auto`.
    pub attention: Attention,
    /// `cpu`, `cuda:0`, ….
    pub device: String,
    /// Threads.
    pub threads: u32,
    /// A digest of the weights' identity (header, sizes, name), by which stored KV pages know their model.
    pub fingerprint: u64,
    /// Bytes that a saved page takes; 0 where pages of this model cannot be saved.
    pub page_bytes: u64,
    /// Guesses in rows are checked; where not, rows have none.
    pub drafts: bool,
    /// Bytes of device memory that the weights take.
    pub weights_bytes: u64,
    /// Bytes of device memory that the whole pool takes.
    pub pool_bytes: u64,
    /// Bytes of device memory that a forward pass needs beside these.
    pub compute_bytes: u64,
}

/// One step: operations, then one forward pass over the rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Comes back in [`StepDone`].
    pub number: u64,
    /// Done first, in this order.
    pub ops: Vec<Op>,
    /// One entry for each sequence that takes part; a sequence takes part at most once.
    pub rows: Vec<Row>,
}

/// Something to do to sequences before the forward pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// Lets `to` share the entries of `from` at positions `0..length`. `to` is empty before.
    Share { from: Asid, to: Asid, length: u32 },
    /// Drops the entries of `asid` at positions `from..`.
    Drop { asid: Asid, from: u32 },
    /// Sets up how tokens are chosen for `asid`, replacing what was there.
    SamplerOpen { asid: Asid, sampler: Box<SamplerSpec> },
    /// Forgets the sampler of `asid`.
    SamplerClose { asid: Asid },
    /// Writes the entries of a page to a slot. They stay in the pool.
    Save { asid: Asid, page: PageLabel, slot: Slot },
    /// Reads a saved page to the end of `asid`, which holds the entries before it. The rows of this step leave
    /// `asid` out: whether the page was sound is known when the step is done. Several pages of one sequence may
    /// be loaded in one step; those behind one that fails fail too.
    Load { asid: Asid, page: PageLabel, slot: Slot },
    /// Copies a saved page to another slot.
    Move { from: Slot, to: Slot },
    /// Makes the pool this large, in tokens. It is empty before, and all sequences with it.
    Resize { tokens: u32 },
}

impl Op {
    /// Whether [`StepDone::pages`] says what came of it.
    pub fn is_paging(&self) -> bool {
        matches!(self, Op::Save { .. } | Op::Load { .. } | Op::Move { .. } | Op::Resize { .. })
    }
}

/// How tokens are chosen for one generation, with all that is needed to set it up again in another worker in
/// mid-generation: the choice of token number `n` depends on the logits, the seed and `n` alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamplerSpec {
    /// Filters, temperature, penalties and grammar; `seed` is set.
    pub sampling: SamplingSpec,
    /// The last tokens before the generation, for the penalties; at most `penalty_last_n`.
    pub history: Vec<Token>,
    /// Tokens generated so far, for penalties, grammar and the random numbers' counter.
    pub generated: Vec<Token>,
    /// Never choose an end-of-generation token.
    pub ignore_eos: bool,
    /// How many alternatives to report for each token; none are reported if absent.
    pub logprobs: Option<u32>,
}

/// [`Sampling`] with its choices made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamplingSpec {
    pub repeat_penalty: f32,
    pub frequency_penalty: f32,
    pub presence_penalty: f32,
    pub penalty_last_n: u32,
    pub top_k: u32,
    pub top_p: f32,
    pub min_p: f32,
    pub temperature: f32,
    pub seed: u64,
    pub grammar: Option<Grammar>,
}

impl SamplingSpec {
    /// Settles the seed and the kind of grammar.
    pub fn new(sampling: &Sampling, seed: u64) -> Self {
        let grammar = match (&sampling.grammar, &sampling.json_schema) {
            (Some(gbnf), _) => Some(Grammar::Gbnf(gbnf.clone())),
            (None, Some(schema)) => Some(Grammar::JsonSchema(schema.to_string())),
            (None, None) => None,
        };
        SamplingSpec {
            repeat_penalty: sampling.repeat_penalty,
            frequency_penalty: sampling.frequency_penalty,
            presence_penalty: sampling.presence_penalty,
            penalty_last_n: sampling.penalty_last_n,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            temperature: sampling.temperature,
            seed,
            grammar,
        }
    }
}

/// What generated text must follow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Grammar {
    /// llama.cpp's grammar notation, with the start symbol `root`.
    Gbnf(String),
    /// A JSON schema, as JSON.
    JsonSchema(String),
}

/// The share of one sequence in a forward pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The sequence.
    pub asid: Asid,
    /// The position of the first token: as many entries as the sequence has.
    pub position: u32,
    /// At least one token.
    pub tokens: TokenRun,
    /// Choose the next token after the last one; the sequence has a sampler.
    pub sample: bool,
    /// Guesses of the tokens that are chosen next; none without `sample`. Tokens are chosen one after another
    /// as long as each is the next guess, and one more.
    pub draft: Vec<Token>,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepDone {
    /// The step's number.
    pub number: u64,
    /// One entry for each row, in their order.
    pub rows: Vec<RowDone>,
    /// Time in operations, forward pass and samplers, in microseconds.
    pub elapsed_us: u64,
    /// One entry for each paging operation of the step, in their order: the time that it took in microseconds, or
    /// why it failed. One that failed changed nothing, and the operations and rows behind it were done.
    pub pages: Vec<Result<u64, DriverFault>>,
}

/// What came of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RowDone {
    /// Its entries are in the pool; no token was wanted.
    Computed,
    /// Its entries are in the pool, and these tokens come next, at least one. Entries of all but the last of them
    /// are in the pool too: those were guessed.
    Sampled(Chosen),
    /// The step was withdrawn before the row was through. Nothing of it is in the pool.
    Withdrawn,
    /// Nothing of it is in the pool. The sequence is as it was before.
    Failed(DriverFault),
}

/// The tokens that came of a row: one, but for guesses.
pub type Chosen = SmallVec<[Sampled; 1]>;

/// A chosen token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// The token.
    pub token: Token,
    /// Its bytes, not always UTF-8; empty for an end-of-generation token.
    pub piece: Vec<u8>,
    /// It ends the generation.
    pub end: bool,
    /// Its logarithmic probability before filters and the best alternatives, if asked for.
    pub logprob: Option<SampledLogprob>,
}

/// How likely the chosen token was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampledLogprob {
    /// Natural logarithm.
    pub logprob: f32,
    /// The best alternatives with their bytes, best first.
    pub top: Vec<(Token, Vec<u8>, f32)>,
}

/// Text to turn into tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenizeRequest {
    /// The text.
    pub text: String,
    /// Put the beginning-of-text token first, where the model wants one.
    pub bos: bool,
    /// Read names of special tokens as these tokens.
    pub special: bool,
}

/// A conversation, and what the context holds of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// All messages, the assistant's earlier answers included.
    pub messages: Vec<Message>,
    /// The tokens of the context.
    pub held: Vec<Token>,
}

impl ChatRequest {
    /// The system messages that the conversation begins with.
    pub fn instructions(&self) -> &[Message] {
        let system = self.messages.iter().take_while(|message| message.role == "system");
        &self.messages[..system.count()]
    }
}

/// How to bring the context to the whole conversation with the assistant's turn opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatDelta {
    /// So many of its tokens stay.
    pub keep: u32,
    /// These come behind them.
    pub append: Vec<Token>,
    /// So many tokens at the beginning of the whole are the system messages that it begins with.
    pub instructions: u32,
}

/// A failure that the driver explains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} ({errno})")]
pub struct DriverFault {
    /// For programs.
    pub errno: Errno,
    /// For people.
    pub message: String,
}

impl DriverFault {
    /// Pairs a number with a sentence.
    pub fn new(errno: Errno, message: impl Into<String>) -> Self {
        DriverFault { errno, message: message.into() }
    }
}

/// A question that does not need the KV pool, answered beside the steps, or, for `Embed`, between them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Question {
    Tokenize(TokenizeRequest),
    Detokenize(Vec<Token>),
    Chat(ChatRequest),
    /// Texts as they are: the worker adds what the model wants around each.
    Embed(Vec<String>),
}

/// The answer to a [`Question`], of its kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    Tokens(Vec<Token>),
    Bytes(Vec<u8>),
    Chat(ChatDelta),
    Vectors(Vec<Vector>),
}

/// From the kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Run this. At most one step is under way at a time.
    Step(Step),
    /// Answer this; the number comes back.
    Ask(u64, Question),
    /// Stop the step of this number if it runs: the rows that are not through are answered `Withdrawn`. Without
    /// meaning for a step that is done, and for a driver that cannot stop a pass.
    Withdraw(u64),
}

/// From the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The model is loaded. Said once, first.
    Ready(Box<ModelDescription>),
    /// The model cannot be loaded; the worker exits. Said once, first.
    Refused(DriverFault),
    /// Loading goes on: a fraction between 0 and 1.
    Loading(f32),
    /// The step was run.
    Done(StepDone),
    /// The step with this number failed as a whole.
    StepFailed(u64, DriverFault),
    /// The answer to the question with this number.
    Answer(u64, Result<Answer, DriverFault>),
}

/// Appends a message with its length to a buffer.
///
/// # Errors
///
/// `InvalidData` where the message is larger than [`MESSAGE_BYTES_MAX`]; the buffer is as before.
pub fn encode<T: Serialize>(message: &T, out: &mut Vec<u8>) -> io::Result<()> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    let body = postcard::to_stdvec(message).map_err(io::Error::other)?;
    if body.len() > MESSAGE_BYTES_MAX {
        out.truncate(start);
        return Err(too_long(body.len()));
    }
    out[start..].copy_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&body);
    Ok(())
}

/// Takes the first whole message off a buffer, with the number of bytes that it took; none if there is no whole
/// one yet.
///
/// # Errors
///
/// `InvalidData` for a length above [`MESSAGE_BYTES_MAX`] or bytes that are no message of this type.
pub fn decode<T: DeserializeOwned>(buffer: &[u8]) -> io::Result<Option<(T, usize)>> {
    let Some((head, rest)) = buffer.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*head) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(too_long(length));
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let message = postcard::from_bytes(body).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok(Some((message, 4 + length)))
}

/// Writes one message.
///
/// # Errors
///
/// As [`encode`], and those of the stream.
pub fn send<T: Serialize>(stream: &mut impl Write, message: &T) -> io::Result<()> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes)?;
    stream.write_all(&bytes)
}

/// Reads one message, or none at the end of the stream.
///
/// # Errors
///
/// As [`decode`], and those of the stream; `UnexpectedEof` where it ends inside a message.
pub fn receive<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<Option<T>> {
    let mut head = [0; 4];
    match stream.read_exact(&mut head) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_le_bytes(head) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(too_long(length));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    postcard::from_bytes(&body).map(Some).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

fn too_long(bytes: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a message of {bytes} bytes between kernel and worker; the limit is {MESSAGE_BYTES_MAX}"),
    )
}
