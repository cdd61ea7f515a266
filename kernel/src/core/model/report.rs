//! What `models` says.

use drivers::wire::ModelDescription;
use syscalls::call::Attention;
use syscalls::reply::{ModelInfo, ModelState};

use super::super::Kernel;
use super::{Model, State};

impl Model {
    /// What `models` says of it, but for its shares of devices.
    fn info(&self) -> ModelInfo {
        let (state, trouble) = match &self.state {
            State::Loading => (ModelState::Loading, None),
            State::Ready => (ModelState::Ready, None),
            State::Restarting => (ModelState::Restarting, None),
            State::Offline(trouble) => (ModelState::Offline, Some(trouble.clone())),
            State::Unloaded => (ModelState::Unloaded, None),
        };
        let d = self.description.as_deref();
        let text = |of: fn(&ModelDescription) -> &String| d.map(|d| of(d).clone()).unwrap_or_default();
        let (frames_total, frames_free) = self.frames();
        ModelInfo {
            name: self.name.clone(),
            path: self.mount.path.clone(),
            state,
            trouble,
            driver: text(|d| &d.driver),
            architecture: text(|d| &d.architecture),
            fingerprint: d.map(|d| format!("{:016x}", d.fingerprint)).unwrap_or_default(),
            description: text(|d| &d.description),
            parameters: d.map_or(0, |d| d.parameters),
            bytes: d.map_or(0, |d| d.bytes),
            vocabulary: self.vocabulary(),
            context_tokens: self.context_tokens_max(),
            context_trained: d.map_or(0, |d| d.context_trained),
            embedding: d.map_or(0, |d| d.embedding),
            generates: d.map_or(self.estimate.as_ref().is_some_and(|e| e.generates), |d| d.generates),
            embeds: d.is_some_and(|d| d.embeds),
            chat_template: d.is_some_and(|d| d.chat_template),
            any_text: d.is_some_and(|d| d.any_text),
            frames_total,
            frames_free,
            attention: d.map_or(Attention::Auto, |d| d.attention),
            device: text(|d| &d.device),
            worker_os_pid: self.worker_os_pid,
            threads: d.map_or(0, |d| d.threads),
            layers: self.estimate.as_ref().map_or(0, |e| e.layers_max()),
            gpu_layers: self.placement.map_or(0, |p| p.gpu_layers),
            memory: Vec::new(),
            digest: self.digest.map(|digest| format!("sha256:{digest}")),
        }
    }
}

impl Kernel {
    /// What `models` says of a model.
    pub(in crate::core) fn model_info(&self, model: &Model) -> ModelInfo {
        ModelInfo { memory: self.model_shares(model), ..model.info() }
    }
}
