//! GGUF, the file format of llama.cpp: a checked reader, a writer, and generators of models.
//!
//! Model files are hostile input, and llama.cpp trusts much of what they say: wrong counts, types and lengths make
//! it abort or read past its arrays. So [`open`] looks at every header before C++ does. It allocates within a fixed
//! budget whatever the header claims, checks every number against the file's length, and refuses what llama.cpp
//! cannot run with one sentence that names the offence. It does not read the weights, apart from the few samples
//! by which a [`Header::fingerprint`] tells two models of one shape apart.
//!
//! [`estimate`](mod@estimate) tells what a model will take of memory, from its header alone.
//!
//! The rest makes files: [`write`] puts them together, [`random`] makes up models of any size for tests and
//! benches, and [`convert`] turns a sentence encoder in the Hugging Face layout into a GGUF.

mod architecture;
pub mod convert;
mod error;
pub mod estimate;
mod header;
mod limits;
pub mod packing;
mod quantise;
pub mod random;
mod read;
mod runnable;
mod source;
mod tensor;
mod vocabulary;
pub mod write;

pub use error::GgufError;
pub use estimate::estimate;
pub use header::{Array, Header, Value};
pub use limits::HEADER_MEMORY_MAX;
pub use read::{open, read};
pub(crate) use read::{read_open, read_part};
pub use runnable::check_runnable;
pub use tensor::{TensorInfo, TensorType};
pub use vocabulary::{byte_character, plan_word_pieces_of_bert};
