//! Files that take the place of older ones when all of them are written: where a disk is full in the middle, the model that
//! was there is there still.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::ExportError;

/// Files that lie beside their places until they are whole.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// Each by the name that it has until then, and by its own.
    files: Vec<(PathBuf, PathBuf)>,
}

impl Beside {
    /// Has a file written under another name, and sees to it that it is on the disk.
    pub(super) fn write(
        &mut self,
        to: &Path,
        write: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), ExportError> {
        let mut partial = to.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        self.files.push((partial.clone(), to.to_owned()));
        let written = write(&partial).and_then(|()| File::open(&partial)?.sync_all());
        written.map_err(|error| ExportError::Io { path: to.to_owned(), error })
    }

    /// Puts all in their places.
    pub(super) fn finish(self) -> Result<(), ExportError> {
        for (partial, to) in &self.files {
            fs::rename(partial, to).map_err(|error| ExportError::Io { path: to.to_owned(), error })?;
        }
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        for (partial, _) in &self.files {
            // What is in its place has this name no more, and why the others are not matters more than that they stay.
            let _ = fs::remove_file(partial);
        }
    }
}
