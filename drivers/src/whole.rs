//! Files that take the place of older ones when all of them are written: where a disk is full in the middle, what was there
//! is there still.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Files that lie beside their places until they are whole.
#[derive(Debug, Default)]
pub struct Beside {
    /// Each by the name that it has until then, and by its own.
    files: Vec<(PathBuf, PathBuf)>,
}

impl Beside {
    /// Has a file written under another name, and sees to it that it is on the disk. Where a link leads is replaced and not
    /// the link, by a file that the same users may read. What is no file, such as a pipe, is written to.
    ///
    /// # Errors
    ///
    /// Those of the file.
    pub fn write(&mut self, to: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        let place = to.canonicalize().unwrap_or_else(|_| to.to_owned());
        let older = fs::metadata(&place).ok();
        if let Some(older) = &older {
            if !older.is_file() {
                return write(&place);
            }
            // One that must not be written to stays.
            File::options().write(true).open(&place)?;
        }
        let mut partial = place.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        self.files.push((partial.clone(), place));
        write(&partial)?;
        let file = File::open(&partial)?;
        if let Some(older) = older {
            file.set_permissions(older.permissions())?;
        }
        file.sync_all()
    }

    /// Puts all in their places.
    ///
    /// # Errors
    ///
    /// The first that cannot be put there, with its place.
    pub fn finish(self) -> Result<(), (PathBuf, io::Error)> {
        for (partial, to) in &self.files {
            fs::rename(partial, to).map_err(|error| (to.clone(), error))?;
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

/// Has one file written so.
///
/// # Errors
///
/// Those of the file.
pub fn replace(to: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut beside = Beside::default();
    beside.write(to, write)?;
    beside.finish().map_err(|(_, error)| error)
}
