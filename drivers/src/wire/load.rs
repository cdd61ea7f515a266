//! How a model is to be loaded, and what was loaded.

use serde::{Deserialize, Serialize};
use syscalls::call::Attention;

use super::SavedPages;

/// How the kernel wants a model loaded. The worker gets it as JSON in its one argument.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadRequest {
    /// The file, or `sim:` and a script.
    pub path: String,
    /// The descriptors of its files, which the worker inherits, open for reading; it opens them by name where there are
    /// none.
    #[serde(default)]
    pub files: Vec<i32>,
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

impl LoadRequest {
    /// The descriptors that the worker inherits, beside its socket.
    pub fn descriptors(&self) -> impl Iterator<Item = i32> {
        let swap = self.swap.into_iter().flat_map(|area| [area.host_fd, area.disk_fd]).flatten();
        swap.chain(self.files.iter().copied())
    }
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

/// The files of the swap area, which the daemon keeps across workers, and the one on disk across daemons. A page has
/// the same room in both, numbered from 0, of [`ModelDescription::page_bytes`] rounded up to 4,096.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapArea {
    /// The open file descriptor of the host tier, a file in memory.
    pub host_fd: Option<i32>,
    /// The open file descriptor of the disk tier.
    pub disk_fd: Option<i32>,
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
    /// What the disk tier had when the worker began.
    pub saved: SavedPages,
    /// Bytes of device memory that the weights take.
    pub weights_bytes: u64,
    /// Bytes of device memory that the whole pool takes.
    pub pool_bytes: u64,
    /// Bytes of device memory that a forward pass needs beside these.
    pub compute_bytes: u64,
}
