//! Digests of model files, and which files they are known of.
//!
//! A large file takes a while to read, so what was read once is remembered by what the system says of the file: its
//! device and inode, size, and the times of its last change; of the very file that is open and that a worker is to get,
//! whatever its name has come to mean. Nobody can set the last of these (`ctime`) but by setting
//! the machine's clock, so a file that was written to is read again. What is remembered lies in the data folder, where
//! workers cannot write; without it files are read again and nothing else happens.

use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use drivers::files::ModelFiles;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::core::registration::Digest;

/// The file in the data folder.
const FILE: &str = "digests";

/// Files that are remembered; the oldest goes for the next one.
const KNOWN_MAX: usize = 256;

/// Longer than the clock stands still by which the system says when files were written to: ten milliseconds at most, where
/// it knows no finer times.
const TICK: Duration = Duration::from_millis(15);

/// Bytes that one read takes: large enough that the system's call costs nothing beside hashing.
const READ_BYTES: usize = 1 << 20;

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileState {
    dev: u64,
    ino: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    fn of(file: &Metadata) -> Self {
        FileState {
            dev: file.dev(),
            ino: file.ino(),
            bytes: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// The files of a model, and the digest of all of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Known {
    files: Vec<FileState>,
    digest: Digest,
}

/// Digests, and what they are known of. Shared by the threads that read files.
#[derive(Debug, Default)]
pub struct Digests {
    /// Where they are kept; nowhere in tests of other things.
    path: Option<PathBuf>,
    known: Mutex<Vec<Known>>,
}

impl Digests {
    /// Those of a data folder. What cannot be read there is not known.
    pub fn open(data: &Path) -> Self {
        let path = data.join(FILE);
        let known = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Digests { path: Some(path), known: Mutex::new(known.unwrap_or_default()) }
    }

    /// The digest of a model's files, read where it is not known. `progress` hears which part was read, from 0 to 1.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or somebody writes to it meanwhile.
    pub fn of(&self, files: &ModelFiles, progress: impl FnMut(f32)) -> io::Result<Digest> {
        let states = states(files)?;
        if let Some(digest) = self.known(&states) {
            return Ok(digest);
        }
        // What is written from here on has another time than what was written last, or it could not be told from that.
        std::thread::sleep(TICK);
        let digest = read(files, &states, progress)?;
        if self::states(files)? != states {
            return Err(io::Error::other("somebody writes to it; mount it when it is complete"));
        }
        self.remember(Known { files: states, digest });
        Ok(digest)
    }

    /// Whether open files are, as they are now, known to have this digest. Reads nothing of them.
    pub fn are_still(&self, files: &ModelFiles, digest: &Digest) -> bool {
        states(files).is_ok_and(|states| self.known(&states).as_ref() == Some(digest))
    }

    fn known(&self, files: &[FileState]) -> Option<Digest> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|known| known.files == files).map(|known| known.digest)
    }

    fn remember(&self, new: Known) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.remove(0);
        }
        known.push(new);
        if let Some(path) = &self.path
            && let Err(e) = write(path, &known)
        {
            tracing::warn!("digests cannot be kept in {}: {e}; files are read again", path.display());
        }
    }
}

fn states(files: &ModelFiles) -> io::Result<Vec<FileState>> {
    Ok(files.metadata()?.iter().map(FileState::of).collect())
}

fn read(files: &ModelFiles, states: &[FileState], mut progress: impl FnMut(f32)) -> io::Result<Digest> {
    let all: u64 = states.iter().map(|state| state.bytes).sum();
    let (mut hasher, mut buffer, mut done) = (Sha256::new(), vec![0; READ_BYTES], 0u64);
    for (_, mut file) in files.parts() {
        file.rewind()?;
        loop {
            let bytes = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(bytes) => bytes,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            hasher.update(&buffer[..bytes]);
            done += bytes as u64;
            progress(done as f32 / all.max(1) as f32);
        }
    }
    Ok(Digest(hasher.finalize().into()))
}

/// Writes all of it anew, so that a daemon that is killed meanwhile leaves what was there.
fn write(path: &Path, known: &[Known]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(known)?)?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Folder(tempfile::tempdir().expect("a folder"))
        }

        fn file(&self, name: &str, text: &[u8]) -> String {
            let path = self.0.path().join(name);
            std::fs::write(&path, text).expect("writes");
            path.to_str().expect("UTF-8").to_owned()
        }

        fn digests(&self) -> Digests {
            Digests::open(self.0.path())
        }
    }

    fn open(model: &str) -> ModelFiles {
        ModelFiles::open(model).expect("opens").expect("it has a file")
    }

    /// The digest, and how often the file was read for it.
    fn digest(digests: &Digests, model: &str) -> (String, usize) {
        let mut reads = 0;
        let digest = digests.of(&open(model), |_| reads += 1).expect("readable");
        (digest.to_string(), reads)
    }

    /// Of `abc`, as FIPS 180-4 has it.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn file_is_read_once_and_again_when_it_was_written_to() {
        let folder = Folder::new();
        let (path, digests) = (folder.file("m.gguf", b"abc"), folder.digests());
        assert_eq!(digest(&digests, &path), (ABC.into(), 1));
        assert_eq!(digest(&digests, &path), (ABC.into(), 0));
        assert_eq!(digest(&folder.digests(), &path), (ABC.into(), 0), "the next daemon knows it");
        let (file, before) =
            (open(&path), std::fs::metadata(&path).expect("there").modified().expect("known"));
        let known = digests.of(&file, |_| {}).expect("readable");
        assert!(digests.are_still(&file, &known));
        // The same length, and the same time of the last change as far as anybody can set it.
        std::fs::write(&path, b"abd").expect("writes");
        File::options().write(true).open(&path).and_then(|f| f.set_modified(before)).expect("sets");
        assert!(!digests.are_still(&file, &known));
        let (changed, reads) = digest(&digests, &path);
        assert!(changed != ABC && reads == 1);
    }

    #[test]
    fn model_in_parts_has_the_digest_of_all_of_them() {
        let folder = Folder::new();
        let first = folder.file("m-00001-of-00002.gguf", b"a");
        folder.file("m-00002-of-00002.gguf", b"bc");
        assert_eq!(digest(&folder.digests(), &first), (ABC.into(), 2));
    }

    #[test]
    fn digest_is_that_of_the_open_file_whatever_its_name_has_come_to_mean() {
        let folder = Folder::new();
        let (path, digests) = (folder.file("m.gguf", b"abc"), folder.digests());
        let file = open(&path);
        std::fs::rename(folder.file("other", b"xyz"), &path).expect("renames");
        let known = digests.of(&file, |_| {}).expect("readable");
        assert_eq!(known.to_string(), ABC);
        assert!(digests.are_still(&file, &known) && !digests.are_still(&open(&path), &known));
    }

    #[test]
    fn what_is_remembered_is_bounded_private_and_may_be_damaged() {
        let folder = Folder::new();
        let digests = folder.digests();
        for number in 0..KNOWN_MAX + 3 {
            let path = folder.file(&format!("{number}"), number.to_string().as_bytes());
            digest(&digests, &path);
        }
        assert_eq!(folder.digests().known.lock().expect("no panic").len(), KNOWN_MAX);
        let kept = folder.0.path().join(FILE);
        assert_eq!(std::fs::metadata(&kept).expect("there").mode() & 0o777, 0o600);
        std::fs::write(&kept, b"[{").expect("writes");
        assert_eq!(digest(&folder.digests(), &folder.file("m", b"abc")), (ABC.into(), 1));
    }
}
