//! What can be wrong with a GGUF file, one sentence each.

use syscalls::{Errno, shown};

use crate::files::errno_of;
use crate::wire::DriverFault;

/// Why a file is no model that can run.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// Another format, or none.
    #[error("it is not a GGUF file: it begins with {found} instead of \"GGUF\"; give a .gguf file")]
    Magic { found: String },

    /// Written for machines of the other byte order.
    #[error("it is a big-endian GGUF; convert it with llama.cpp's gguf_convert_endian.py")]
    BigEndian,

    /// Too old or too new.
    #[error("it is GGUF version {version}; versions 2 and 3 can be read: convert the model again")]
    Version { version: u32 },

    /// The header goes on past the end.
    #[error(
        "the file ends at byte {bytes} inside its header, in {}: it is truncated; download it again",
        shown(.place)
    )]
    HeaderTruncated { place: String, bytes: u64 },

    /// The weights go on past the end.
    #[error(
        "the file ends at byte {bytes} but tensor `{}` needs bytes {from}..{to}: it is truncated; download it again",
        shown(.tensor)
    )]
    DataTruncated { tensor: String, from: u64, to: u64, bytes: u64 },

    /// Above a limit of this reader.
    #[error("{} is {value}; the limit is {limit}: the file is damaged or hostile", shown(.what))]
    TooLarge { what: String, value: u64, limit: u64 },

    /// The whole header is above the budget.
    #[error("its header needs more than {limit} bytes of memory: the file is damaged or hostile")]
    OverBudget { limit: usize },

    /// A value that the format does not have.
    #[error("{} is {value}, which GGUF does not have: the file is damaged, or newer than this reader", shown(.what))]
    Unknown { what: String, value: u64 },

    /// Text that is no UTF-8.
    #[error("{} is not UTF-8: the file is damaged", shown(.what))]
    NotText { what: String },

    /// The same name twice.
    #[error("{what} `{}` stands in it twice: the file is damaged", shown(.name))]
    Duplicate { what: &'static str, name: String },

    /// A tensor that cannot be.
    #[error("tensor `{}` {}: the file is damaged", shown(.tensor), shown(.offence))]
    Tensor { tensor: String, offence: String },

    /// The file is sound, but no model that runs.
    #[error("{}", shown(.0))]
    NotRunnable(String),

    /// The file could not be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] std::io::Error),
}

impl GgufError {
    /// The number for programs.
    pub fn errno(&self) -> Errno {
        match self {
            GgufError::Io(error) => errno_of(error),
            _ => Errno::ENOEXEC,
        }
    }

    /// The fault that a mount of this file answers.
    pub fn into_fault(self, path: &std::path::Path) -> DriverFault {
        DriverFault::new(self.errno(), format!("{}: {self}", path.display()))
    }
}
