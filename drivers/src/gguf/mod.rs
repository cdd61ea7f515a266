//! GGUF, the file format of llama.cpp: a checked reader.
//!
//! Model files are hostile input, and llama.cpp trusts much of what they say: wrong counts, types and lengths make
//! it abort or read past its arrays. So [`open`] looks at every header before C++ does. It allocates within a fixed
//! budget whatever the header claims, checks every number against the file's length, and refuses what llama.cpp
//! cannot run with one sentence that names the offence. It does not read the weights, apart from the few samples
//! by which a [`Header::fingerprint`] tells two models of one shape apart.

mod architecture;
mod error;
mod header;
mod limits;
mod read;
mod runnable;
mod tensor;

pub use error::GgufError;
pub use header::{Array, Header, Value};
pub use limits::HEADER_MEMORY_MAX;
pub use read::{open, read};
pub use runnable::check_runnable;
pub use tensor::{TensorInfo, TensorType};
