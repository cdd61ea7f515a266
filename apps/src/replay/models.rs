//! Which model here is which one of a recording: the one of the same file, by whatever name it is mounted.

use std::collections::{BTreeMap, BTreeSet};

use syscalls::call::{Mount, Tokenize};
use syscalls::client::blocking::Client;
use syscalls::client::mount;
use syscalls::reply::Reply;
use syscalls::{Event, Fault, Tokens, shown};

use super::plan;
use crate::recording::{RecordedModel, Recording};

/// Why a recording does not fit what is here.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// No such file is mounted.
    #[error(
        "was recorded with another model than is mounted here: {name} was {path}, with fingerprint {fingerprint}; mount that file"
    )]
    OtherModel {
        /// The name that it had.
        name: String,
        /// Its file.
        path: String,
        /// Of the file.
        fingerprint: String,
    },
    /// The header does not say what the model was.
    #[error("uses model {0}, which was mounted after the recording began; mount it first and record again")]
    Unknown(String),
    /// The simulation has no such driver.
    #[error(
        "was recorded with {name}, which is {path} and no simulated model; replay it without --sim, on a daemon that has mounted that file"
    )]
    NotSimulated {
        /// The name that it had.
        name: String,
        /// Its file.
        path: String,
    },
    /// The connection failed, or the model cannot be loaded.
    #[error("cannot be replayed: {}", .0.message)]
    Fault(#[from] Fault),
}

/// Names of models: those of the recording, and what they are called here.
#[derive(Clone, Debug, Default)]
pub struct Models(BTreeMap<String, String>);

impl Models {
    /// The name here of a model of the recording.
    pub(super) fn here(&self, recorded: &str) -> String {
        self.0.get(recorded).cloned().unwrap_or_else(|| recorded.to_owned())
    }

    /// The name here of the model that a call meant; none where it named none and there were several.
    pub(super) fn meant(&self, recorded: Option<&str>) -> Option<String> {
        match recorded {
            Some(name) => self.0.get(name).cloned(),
            None if self.0.len() == 1 => self.0.values().next().cloned(),
            None => None,
        }
    }

    /// Finds the models of a recording among those that a daemon has mounted.
    ///
    /// # Errors
    ///
    /// One is not there.
    pub fn of_daemon(client: &mut Client, wanted: &[RecordedModel]) -> Result<Models, Unfit> {
        let mut names = BTreeMap::new();
        for model in wanted {
            let mut mounted = client.models()?;
            if let Some(asleep) = mounted.iter().find(|m| m.name == model.name && m.fingerprint.is_empty()) {
                // It is known which file it is when it has been loaded, and a question loads it.
                let text = "x".to_owned();
                let question =
                    Tokenize { model: Some(asleep.name.clone()), text, bos: false, special: false };
                client.call(question)?;
                mounted = client.models()?;
            }
            let same = |name: &str| {
                mounted
                    .iter()
                    .find(|m| m.fingerprint == model.fingerprint && (name.is_empty() || m.name == name))
            };
            let found = same(&model.name).or_else(|| same("")).ok_or_else(|| Unfit::OtherModel {
                name: model.name.clone(),
                path: model.path.clone(),
                fingerprint: model.fingerprint.clone(),
            })?;
            names.insert(model.name.clone(), found.name.clone());
        }
        Ok(Models(names))
    }

    /// Mounts the models of a recording in a simulation.
    ///
    /// # Errors
    ///
    /// One is no simulated model.
    pub fn of_simulation(client: &mut Client, wanted: &[RecordedModel]) -> Result<Models, Unfit> {
        for model in wanted {
            if !model.path.starts_with("sim:") {
                return Err(Unfit::NotSimulated { name: model.name.clone(), path: model.path.clone() });
            }
            let context = Some(Tokens(model.context_tokens));
            client.mount_with(Mount { context, ..mount(&model.path, &model.name) }, |_| {})?;
        }
        Models::of_daemon(client, wanted)
    }
}

/// The models that a recording needs.
///
/// # Errors
///
/// It needs one that its header does not describe.
pub fn wanted(recording: &Recording) -> Result<Vec<RecordedModel>, Unfit> {
    let mut names = BTreeSet::new();
    for event in &recording.events {
        match event {
            Event::Held { model, .. } => drop(names.insert(model.clone())),
            Event::Returned { result: Some(result), .. } => {
                if let Ok(Reply::Opened { model, .. }) = serde_json::from_value(result.clone()) {
                    names.insert(model);
                }
            }
            Event::Called { call, args, .. } => {
                let asked = plan::read(call, args).and_then(|call| plan::model_of(&call));
                // One that was not there then is not needed now.
                names.extend(asked.filter(|name| recording.header.models.iter().any(|m| m.name == *name)));
            }
            _ => {}
        }
    }
    let described = |name: String| {
        let model = recording.header.models.iter().find(|m| m.name == name);
        model.cloned().ok_or_else(|| Unfit::Unknown(shown(&name)))
    };
    names.into_iter().map(described).collect()
}
