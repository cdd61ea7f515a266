//! What kernel and worker say to each other: a length of four bytes (little endian), then a message in postcard.
//!
//! The worker is started with one end of a socket pair as its standard input. It says [`FromWorker::Ready`] or
//! [`FromWorker::Refused`] once, then answers each message of the kernel in its own time: steps in their order,
//! questions between and beside them. End of file means that the other side is gone; a worker then exits at
//! once, and the kernel counts its worker as dead.
//!
//! Both ends are built from one tree, so the encoding has no versions and no compatibility to keep. It is still
//! read with bounds: a worker runs foreign C++ on foreign files, and the kernel trusts none of its numbers.

mod load;
mod question;
mod sampler;
mod saved;
mod step;

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use syscalls::Errno;

pub use load::{DeviceFound, LoadRequest, ModelDescription, SwapArea};
pub use question::{Answer, ChatDelta, ChatRequest, Question, TokenizeRequest, Vector};
pub use sampler::{Grammar, SamplerSpec, SamplingSpec};
pub use saved::{SWAP_PLACE_BYTES, SWAP_PLACES, SWAP_SLOTS_AT, SavedPage, SavedPages};
pub use step::{
    Asid, Chosen, Op, PAGE_TOKENS, PageLabel, PageOwner, Row, RowDone, Sampled, SampledLogprob, Slot, Step,
    StepDone,
};

/// The largest message, in bytes: the vectors of a full `embed` of 1,024 texts at 4,096 dimensions.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;

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

    /// Whether it says that the machine has not enough of something at the moment.
    pub fn is_shortage(&self) -> bool {
        matches!(self.errno, Errno::EAGAIN | Errno::EMFILE | Errno::ENOMEM)
    }
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
