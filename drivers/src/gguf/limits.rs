//! The bounds of what a header may claim. Real models stay far below each of them.

/// Tensors of a file. The largest mixtures of experts have a few thousand.
pub const TENSORS_MAX: u64 = 65_536;

/// Entries of metadata.
pub const METADATA_MAX: u64 = 65_536;

/// Bytes of one string. Chat templates and charsmaps come to some hundred kilobytes.
pub const STRING_BYTES_MAX: u64 = 16 << 20;

/// Bytes of a metadata key, as the format's specification bounds it.
pub const KEY_BYTES_MAX: u64 = 65_535;

/// Bytes of a tensor's name: ggml keeps names in 64 bytes with a zero at the end.
pub const TENSOR_NAME_BYTES_MAX: u64 = 63;

/// Elements of one array. The largest vocabularies have a quarter of a million tokens and half a million merges.
pub const ARRAY_ELEMENTS_MAX: u64 = 16 << 20;

/// Dimensions of a tensor, as in ggml.
pub const DIMENSIONS_MAX: u32 = 4;

/// Bytes of main memory that a header may take, counting the overhead of each string. A vocabulary of 262,144
/// tokens with as many merges takes about 40 MiB.
pub const HEADER_MEMORY_MAX: usize = 128 << 20;

/// The alignment of tensor data where the metadata does not say.
pub const ALIGNMENT_DEFAULT: u32 = 32;

/// The largest alignment: a huge page.
pub const ALIGNMENT_MAX: u32 = 2 << 20;

/// Layers of a model: llama.cpp aborts above.
pub const LAYERS_MAX: u64 = 512;

/// Experts of a layer: llama.cpp aborts above.
pub const EXPERTS_MAX: u64 = 1024;

/// Width of a layer.
pub const EMBEDDING_MAX: u64 = 1 << 20;

/// Heads of a layer.
pub const HEADS_MAX: u64 = 65_536;
