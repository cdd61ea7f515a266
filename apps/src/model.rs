//! Which of the mounted models does a job: follow instructions, continue text, or embed it.

use std::fmt;

use syscalls::Fault;
use syscalls::call::nearest;
use syscalls::client::blocking::Client;
use syscalls::reply::{ModelInfo, ModelState};

/// Why no mounted model does the job.
#[derive(Debug, Clone, PartialEq)]
pub enum Unfit {
    /// Nothing is mounted.
    Nothing,
    /// No model has the name that was given.
    Unknown {
        /// The name.
        name: String,
        /// A name that is much like it.
        near: Option<String>,
    },
    /// The model, or every model, continues text and follows no instructions.
    Completes(String),
    /// The model, or every model, only embeds text.
    Encodes(String),
    /// The model cannot be used now, and why.
    Offline {
        /// Its name.
        name: String,
        /// What is wrong.
        trouble: String,
    },
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Nothing => f.write_str("no model is mounted"),
            Unfit::Unknown { name, near: Some(near) } => {
                write!(f, "no model `{name}` is mounted; did you mean `{near}`?")
            }
            Unfit::Unknown { name, near: None } => {
                write!(f, "no model `{name}` is mounted; `llmasos models` lists them")
            }
            Unfit::Completes(name) => write!(f, "model `{name}` follows no instructions"),
            Unfit::Encodes(name) => write!(f, "model `{name}` embeds text and generates none"),
            Unfit::Offline { name, trouble } => write!(f, "model `{name}` is offline: {trouble}"),
        }
    }
}

/// The kind of model that follows instructions, and how to get one; what a job needs.
pub const INSTRUCTED: &str = "an instruction-tuned model with a chat template, such as Qwen2.5-Instruct of 0.5B or \
     larger; download one as a GGUF file, for example from huggingface.co, and mount it with \
     `llmasos mount FILE.gguf --name NAME`";

/// The mounted models.
#[derive(Debug)]
pub struct Mounted {
    models: Vec<ModelInfo>,
    /// What `open` takes where no model is named.
    default: Option<String>,
}

impl Mounted {
    /// Asks the daemon.
    ///
    /// # Errors
    ///
    /// Those of the connection.
    pub fn list(client: &mut Client) -> Result<Mounted, Fault> {
        let models = client.models()?;
        let mut mounted = Mounted { models, default: None };
        if mounted.models.iter().filter(|m| m.generates).count() > 1 {
            // The daemon's configuration knows which one it prefers; without a preference it refuses.
            if let Ok(opened) = client.open(None) {
                client.close(opened.context)?;
                mounted.default = Some(opened.model);
            }
        }
        Ok(mounted)
    }

    /// The model for instructions: the one that is named, else the default, else the largest.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn instructed(&self, name: Option<&str>) -> Result<ModelInfo, Unfit> {
        let model = self.generating(name)?;
        if model.chat_template { Ok(model) } else { Err(Unfit::Completes(model.name)) }
    }

    /// The model to continue text with: one that follows instructions if there is any.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn generating(&self, name: Option<&str>) -> Result<ModelInfo, Unfit> {
        if let Some(name) = name {
            return self.named(name).and_then(fit_to_generate);
        }
        let usable = self.models.iter().filter(|m| m.generates && m.state != ModelState::Offline);
        let is_default = |m: &ModelInfo| self.default.as_ref() == Some(&m.name);
        let best = usable.max_by_key(|m| (m.chat_template, is_default(m), m.parameters));
        match (best, self.models.first()) {
            (Some(best), _) => Ok(best.clone()),
            (None, Some(first)) => fit_to_generate(first.clone()),
            (None, None) => Err(Unfit::Nothing),
        }
    }

    /// An encoder, if one is mounted.
    pub fn encoder(&self) -> Option<&ModelInfo> {
        self.models
            .iter()
            .find(|m| m.embeds && !m.generates && matches!(m.state, ModelState::Ready | ModelState::Unloaded))
    }

    fn named(&self, name: &str) -> Result<ModelInfo, Unfit> {
        self.models.iter().find(|m| m.name == name).cloned().ok_or_else(|| {
            let names: Vec<&str> = self.models.iter().map(|m| m.name.as_str()).collect();
            Unfit::Unknown { name: name.into(), near: nearest(name, &names).map(Into::into) }
        })
    }
}

fn fit_to_generate(model: ModelInfo) -> Result<ModelInfo, Unfit> {
    if model.state == ModelState::Offline {
        let trouble = model.trouble.unwrap_or_else(|| "its worker does not run".into());
        return Err(Unfit::Offline { name: model.name, trouble });
    }
    if model.generates { Ok(model) } else { Err(Unfit::Encodes(model.name)) }
}

#[cfg(test)]
mod tests {
    use syscalls::call::Attention;

    use super::*;

    fn model(name: &str, parameters: u64, chat_template: bool, generates: bool) -> ModelInfo {
        ModelInfo {
            name: name.into(),
            path: String::new(),
            state: ModelState::Ready,
            trouble: None,
            driver: "sim".into(),
            architecture: "sim".into(),
            fingerprint: String::new(),
            description: String::new(),
            parameters,
            bytes: 0,
            vocabulary: 0,
            context_tokens: 0,
            context_trained: 0,
            embedding: 0,
            generates,
            embeds: true,
            chat_template,
            any_text: true,
            frames_total: 0,
            frames_free: 0,
            attention: Attention::Plain,
            device: "cpu".into(),
            worker_os_pid: 0,
            threads: 1,
            layers: 0,
            gpu_layers: 0,
            memory: vec![],
            digest: None,
        }
    }

    fn mounted(models: &[ModelInfo], default: Option<&str>) -> Mounted {
        Mounted { models: models.to_vec(), default: default.map(Into::into) }
    }

    #[test]
    fn model_that_follows_instructions_is_preferred() {
        let models = [
            model("story", 9, false, true),
            model("chat", 1, true, true),
            model("big", 5, true, true),
            model("bert", 99, false, false),
        ];
        let chosen = |default, name| mounted(&models, default).instructed(name).map(|m| m.name);
        assert_eq!(chosen(None, None), Ok("big".into()));
        assert_eq!(chosen(Some("chat"), None), Ok("chat".into()));
        assert_eq!(chosen(Some("story"), None), Ok("big".into()));
        assert_eq!(chosen(None, Some("story")), Err(Unfit::Completes("story".into())));
        assert_eq!(chosen(None, Some("bert")), Err(Unfit::Encodes("bert".into())));
        assert_eq!(mounted(&models, None).encoder().map(|m| m.name.as_str()), Some("bert"));
    }

    #[test]
    fn model_misspelt_suggests_the_right_one() {
        let models = [model("story", 9, false, true)];
        let unfit = mounted(&models, None).generating(Some("storry")).expect_err("no such model");
        assert_eq!(unfit.to_string(), "no model `storry` is mounted; did you mean `story`?");
        assert_eq!(mounted(&[], None).generating(None), Err(Unfit::Nothing));
    }

    #[test]
    fn model_offline_is_no_choice() {
        let mut broken = model("big", 9, true, true);
        broken.state = ModelState::Offline;
        let models = [broken.clone(), model("chat", 1, true, true)];
        assert_eq!(mounted(&models, None).instructed(None).map(|m| m.name), Ok("chat".into()));
        let unfit = mounted(&[broken], None).instructed(None).expect_err("offline");
        assert_eq!(unfit.to_string(), "model `big` is offline: its worker does not run");
    }
}
