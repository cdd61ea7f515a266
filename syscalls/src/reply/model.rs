//! What is told of models and of what they take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::call::Attention;

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
    /// Of its file, in hexadecimal digits; the empty string until it has been loaded.
    #[serde(default)]
    pub fingerprint: String,
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
    /// The digest of its file, `sha256:` and 64 hexadecimal digits, of its parts one after another where it has several;
    /// absent until the file has been read, and where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
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
