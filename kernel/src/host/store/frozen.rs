//! A database that can be read and not written, because its disk is full or read-only.
//!
//! sled writes when it opens, half a megabyte at least, so on such a disk it does not open at all. Then it is opened on
//! a copy of its files in memory, checked there as always, read once, and the copy is dropped. Reads are served from
//! what was read, and changes are refused with what the disk said, until [`Opener::open`] finds that the disk lets the
//! database itself be opened.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::sled::{Sled, check_version, open_or_set_aside, open_whole};
use super::witness::Witnessed;
use super::{Store, StoreError, refuses_writes};

/// The system's file system in memory. Where it is missing, the folder for temporary files has to do.
const MEMORY_FOLDER: &str = "/dev/shm";

type Contents = BTreeMap<String, Vec<u8>>;

/// A database, open as well as its disk allows.
pub enum Opened {
    /// As it is on the disk.
    Whole(Witnessed<Sled>),
    /// What it had, and why it cannot be written.
    Frozen { contents: Arc<Contents>, why: Why },
}

/// What a disk said, for as often as it is asked again.
#[derive(Clone, Debug)]
pub struct Why(io::ErrorKind, String);

impl From<&io::Error> for Why {
    fn from(error: &io::Error) -> Self {
        Why(error.kind(), error.to_string())
    }
}

impl From<&Why> for StoreError {
    fn from(why: &Why) -> Self {
        StoreError::System(io::Error::new(why.0, why.1.clone()))
    }
}

/// Opens the database of one folder, again and again.
pub struct Opener {
    folder: PathBuf,
    /// What it had when it was frozen. Nothing can change it while it is, so it is read once.
    frozen: Option<Arc<Contents>>,
}

impl Opener {
    /// For the database in a folder.
    pub fn new(folder: &Path) -> Opener {
        Opener { folder: folder.into(), frozen: None }
    }

    /// Opens it. A damaged one is moved aside, and a new one begun.
    ///
    /// # Errors
    ///
    /// The system does not let the folder be used, not even to read from it.
    pub fn open(&mut self) -> Result<Opened, StoreError> {
        let refusal = match open_or_set_aside(&self.folder) {
            Ok(store) => {
                self.frozen = None;
                return Ok(Opened::Whole(store));
            }
            Err(StoreError::System(e)) if refuses_writes(&e) => e,
            Err(other) => return Err(other),
        };
        let contents = match &self.frozen {
            Some(contents) => Arc::clone(contents),
            // Why it cannot be copied matters less than why it cannot be opened.
            None => Arc::new(self.read_copy(&refusal).map_err(|_| StoreError::System(copied(&refusal)))?),
        };
        self.frozen = Some(Arc::clone(&contents));
        Ok(Opened::Frozen { contents, why: Why::from(&refusal) })
    }

    fn read_copy(&self, refusal: &io::Error) -> Result<Contents, StoreError> {
        let folder = self.folder.display();
        tracing::error!(
            "{folder} cannot be written: {refusal}; what it has is read from a copy in memory, and nothing is kept \
             until there is room"
        );
        if !self.folder.exists() {
            return Ok(Contents::new());
        }
        let copies = Path::new(MEMORY_FOLDER);
        let copies = if copies.is_dir() { copies.to_owned() } else { std::env::temp_dir() };
        let scratch = tempfile::Builder::new().prefix("llmasos-").tempdir_in(copies);
        let scratch = scratch.map_err(StoreError::System)?;
        let copy = scratch.path().join("copy");
        copy_folder(&self.folder, &copy).map_err(StoreError::System)?;
        match check_version(&copy).and_then(|()| open_whole(&copy)).and_then(|store| store.scan()) {
            Ok(all) => Ok(all.into_iter().collect()),
            Err(StoreError::Damaged(why)) => {
                // It stays where it is, and is moved aside when the disk lets it.
                tracing::error!("{folder} is damaged, too ({why}); nothing in it can be used");
                Ok(Contents::new())
            }
            Err(other) => Err(other),
        }
    }
}

/// The same error once more.
fn copied(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type()?.is_dir() {
            true => copy_folder(&path, &copy)?,
            false => drop(fs::copy(&path, &copy)?),
        }
    }
    Ok(())
}

impl Opened {
    /// Whether it can be written.
    pub fn is_whole(&self) -> bool {
        matches!(self, Opened::Whole(_))
    }

    /// Whether it was begun when it was opened: there was none, or it was moved aside.
    pub fn is_new(&self) -> bool {
        matches!(self, Opened::Whole(store) if store.store().is_new())
    }
}

impl Store for Opened {
    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        match self {
            Opened::Whole(store) => store.put(key, value),
            Opened::Frozen { why, .. } => Err((&*why).into()),
        }
    }

    fn delete(&mut self, key: &str) -> Result<(), StoreError> {
        match self {
            Opened::Whole(store) => store.delete(key),
            Opened::Frozen { why, .. } => Err((&*why).into()),
        }
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Opened::Whole(store) => store.get(key),
            Opened::Frozen { contents, .. } => Store::get(&**contents, key),
        }
    }

    fn walk(&self, prefix: &str, each: &mut dyn FnMut(&str, &[u8])) -> Result<(), StoreError> {
        match self {
            Opened::Whole(store) => store.walk(prefix, each),
            Opened::Frozen { contents, .. } => contents.walk(prefix, each),
        }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        match self {
            Opened::Whole(store) => store.flush(),
            Opened::Frozen { why, .. } => Err((&*why).into()),
        }
    }
}
