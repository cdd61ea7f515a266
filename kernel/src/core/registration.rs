//! Which file a model is: the digest of what was mounted under a name, kept until the name is unmounted.
//!
//! The host reads a file before it is loaded for the first time and says its digest; the kernel remembers it when the
//! model is ready, in the store too. A file that is another one at the next start, or when a worker is started again, is
//! refused, and its model goes offline: whoever wrote to the file must not become what its users rely on unseen. `mount`
//! with `accept_changed` takes the new file for the old one. Models without a file have no digest.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use syscalls::{Errno, Fault};

use super::Kernel;
use super::effect::{Effect, Record};
use super::event::ModelId;

/// Bytes of a digest that a sentence shows: enough to compare by eye.
const SHOWN_BYTES: usize = 6;

/// The SHA-256 of a model's file; of its parts one after another, where it has several.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Its beginning, for people.
    pub fn beginning(&self) -> String {
        hex(&self.0[..SHOWN_BYTES]) + "…"
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| serde::de::Error::custom("a digest has 64 hexadecimal digits"))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse(text: &str) -> Option<Digest> {
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(Digest(bytes))
}

/// What was mounted under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The model's name.
    pub name: String,
    /// Its file. Another file under the same name is another registration.
    pub path: String,
    pub digest: Digest,
}

impl Registration {
    /// The key of the registration of a name in the store.
    pub fn key_of(name: &str) -> String {
        format!("digest/{name}")
    }
}

/// Why a file is refused that is not the one that was mounted, and what to do.
pub fn changed(name: &str, path: &str, was: &Digest, is: &Digest) -> String {
    format!(
        "the file of {name} has changed: its SHA-256 was {} when it was mounted and is {} now; accept it with `mount --accept-changed {path} --name {name}`, or with umount and mount",
        was.beginning(),
        is.beginning()
    )
}

impl Kernel {
    /// Checks that the file of a model is the one that was mounted under its name.
    ///
    /// # Errors
    ///
    /// EIO where it is another one.
    pub(super) fn check_registered(
        &self,
        name: &str,
        path: &str,
        digest: Option<Digest>,
    ) -> Result<(), Fault> {
        match (self.registered.get(name), digest) {
            (Some(known), Some(digest)) if known.path == path && known.digest != digest => {
                Err(Fault::new(Errno::EIO, changed(name, path, &known.digest, &digest)))
            }
            _ => Ok(()),
        }
    }

    /// Remembers the file of a model that has been loaded for the first time.
    pub(super) fn register(&mut self, id: ModelId) {
        let Some(model) = self.models.get(&id) else { return };
        let (name, path) = (model.name.clone(), model.mount.path.clone());
        let Some(digest) = model.digest else { return self.unregister(&name) };
        let registration = Registration { name: name.clone(), path, digest };
        if self.registered.get(&name) != Some(&registration) {
            self.out.push(Effect::Persist(Record::Registered(registration.clone())));
            self.registered.insert(name, registration);
        }
    }

    /// Forgets what was mounted under a name.
    pub(super) fn unregister(&mut self, name: &str) {
        if self.registered.remove(name).is_some() {
            self.out.push(Effect::Forget(Registration::key_of(name)));
        }
    }

    /// Takes over what was registered when the daemon ended. A name that is not mounted any more has no file.
    pub(super) fn restore_registered(&mut self, registrations: Vec<Registration>) {
        for registration in registrations {
            if self.models.values().any(|m| m.name == registration.name) {
                self.registered.insert(registration.name.clone(), registration);
            } else {
                self.out.push(Effect::Forget(Registration::key_of(&registration.name)));
            }
        }
    }

    /// Every registration is of a model, and a model that is ready is the file that its name stands for.
    pub(super) fn check_registrations(&self) {
        for name in self.registered.keys() {
            assert!(self.models.values().any(|m| m.name == *name), "{name} is registered and not mounted");
        }
        for model in self.models.values().filter(|m| m.is_ready()) {
            let known = self.registered.get(&model.name).map(|r| (r.path.as_str(), r.digest));
            assert_eq!(
                known,
                model.digest.map(|d| (model.mount.path.as_str(), d)),
                "{} is another",
                model.name
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_read_as_it_was_written_and_nothing_else_is_one() {
        let digest = Digest(std::array::from_fn(|at| at as u8 * 7));
        assert_eq!(parse(&digest.to_string()), Some(digest));
        assert_eq!(digest.beginning(), "00070e151c23…");
        for other in ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
