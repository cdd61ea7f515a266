//! What a failed call answers: a number for programs and a sentence for people.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! errnos {
    ($($(#[doc = $doc:literal])+ $name:ident;)+) => {
        /// Why a call failed, in the words of `errno.h` where it has one.
        #[allow(clippy::upper_case_acronyms)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum Errno { $($(#[doc = $doc])+ $name,)+ }

        impl Errno {
            /// Every error number with its meaning, in the order of the manual.
            pub const ALL: &'static [(Errno, &'static str)] = &[$((Errno::$name, concat!($($doc),+)),)+];

            /// The name as it stands on the wire.
            pub fn name(self) -> &'static str {
                match self { $(Errno::$name => stringify!($name),)+ }
            }
        }
    };
}

errnos! {
    /// Not allowed for this user or process.
    EPERM;
    /// No such model, segment, store, key or file.
    ENOENT;
    /// No such process.
    ESRCH;
    /// A signal ended the call.
    EINTR;
    /// The worker died or answered nonsense while the call ran, and running it again did not help.
    EIO;
    /// More items, or more bytes, than a limit allows.
    E2BIG;
    /// The file is no model that a driver can run: wrong format, damaged, or an unsupported architecture.
    ENOEXEC;
    /// No such context, or it belongs to another process.
    EBADF;
    /// `wait` without a child to wait for.
    ECHILD;
    /// Too much is under way; the same call may succeed later.
    EAGAIN;
    /// Not enough memory on the device for what was asked.
    ENOMEM;
    /// The file may not be read.
    EACCES;
    /// The thing is in use.
    EBUSY;
    /// The name is taken.
    EEXIST;
    /// The model is mounted but its worker is not running.
    ENODEV;
    /// An argument has no meaning here, or is out of range.
    EINVAL;
    /// Too many connections, processes or contexts.
    EMFILE;
    /// The context is full, the text is longer than it can ever hold, or the disk is full.
    ENOSPC;
    /// The user's values have reached their limit.
    EDQUOT;
    /// The disk may not be written.
    EROFS;
    /// The line, message or grammar is longer than its limit.
    EMSGSIZE;
    /// This version of the kernel does not have the call, or this model cannot do it.
    ENOSYS;
    /// What came over the socket is not a request: no JSON, no `id`, no `call`, or a call before `hello`.
    EPROTO;
    /// The client and the daemon speak different versions.
    EPROTONOSUPPORT;
    /// The text has characters that the model's vocabulary cannot express.
    EILSEQ;
    /// A time limit passed.
    ETIMEDOUT;
    /// The call was withdrawn: its process, context, model or daemon is going away.
    ECANCELED;
    /// The connection to the daemon is gone.
    ECONNRESET;
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failed call: the number and the sentence.
///
/// The sentence is lower case, names the limit and the value that broke it, and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message} ({errno})")]
pub struct Fault {
    /// For programs.
    pub errno: Errno,
    /// For people.
    pub message: String,
}

impl Fault {
    /// Pairs a number with a sentence.
    pub fn new(errno: Errno, message: impl Into<String>) -> Self {
        Fault { errno, message: message.into() }
    }
}

/// A sentence of somebody else's, cut in its middle: it may quote what was given, which can be megabytes, and ends with
/// the place.
pub fn shown(sentence: &str) -> String {
    const ENDS_CHARS: usize = 200;
    let chars = sentence.chars().count();
    if chars <= 2 * ENDS_CHARS {
        return sentence.into();
    }
    let begin: String = sentence.chars().take(ENDS_CHARS).collect();
    let end: String = sentence.chars().skip(chars - ENDS_CHARS).collect();
    format!("{begin} … {end}")
}
