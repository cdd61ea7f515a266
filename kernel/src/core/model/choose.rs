//! Which model a call means.

use syscalls::{Errno, Fault};

use super::super::Kernel;
use super::Model;

impl Kernel {
    /// The model of a name.
    ///
    /// # Errors
    ///
    /// ENOENT, with the names that there are.
    pub(in crate::core) fn model_named(&self, name: &str) -> Result<&Model, Fault> {
        self.models.values().find(|m| m.name == name).ok_or_else(|| {
            let message = format!("no model is mounted as {}; {}", shown(name), self.names_there_are());
            Fault::new(Errno::ENOENT, message)
        })
    }

    /// The model that a call means: the one it names, else the configured one, else the only one that will do.
    ///
    /// # Errors
    ///
    /// ENOENT where there is none, EINVAL where it is not clear which.
    pub(in crate::core) fn choose_model(
        &self,
        name: Option<&str>,
        will_do: impl Fn(&Model) -> bool,
    ) -> Result<&Model, Fault> {
        if let Some(name) = name {
            return self.model_named(name);
        }
        let configured = self.config.default_model.as_deref();
        let fit: Vec<&Model> = self.models.values().filter(|m| will_do(m)).collect();
        if let Some(model) = fit.iter().find(|m| Some(m.name.as_str()) == configured) {
            return Ok(model);
        }
        match fit.as_slice() {
            [model] => Ok(model),
            [] if self.models.is_empty() => {
                Err(Fault::new(Errno::ENOENT, "no model is mounted; mount one with `mount FILE`"))
            }
            [] => Err(Fault::new(
                Errno::ENOENT,
                format!("no mounted model can do that; {}", self.names_there_are()),
            )),
            _ => Err(Fault::new(
                Errno::EINVAL,
                format!("several models are mounted, so name one; {}", self.names_there_are()),
            )),
        }
    }

    fn names_there_are(&self) -> String {
        match self.models.len() {
            0 => "none is mounted, mount one with `mount FILE`".into(),
            _ => {
                let names: Vec<&str> = self.models.values().map(|m| m.name.as_str()).collect();
                format!("mounted are {}", names.join(", "))
            }
        }
    }
}

/// A name from outside, short enough for a message.
pub(in crate::core) fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}
