//! The store on disk, in sled.
//!
//! sled 0.34 has six habits that matter here. It checks itself for damage by panicking as often as by an error,
//! so it is opened, and its values are read once, where a panic is caught. A log that it cannot read it takes for
//! an empty one and says nothing, so a file beside the log and a key in it tell that there was one; and damage near
//! the log's end it takes for a write that was not through, and drops what was acknowledged, so a
//! [witness](super::witness) says what the log must hold. When it is
//! killed while it opens, it can leave a half-written snapshot, `snap.N.generating`, on which every later open
//! fails; those are removed first. Its cache may take a gigabyte; a few records need next to none. And what it flushes
//! survives its own death alone: large values, which have files of their own (blobs), are left to the system, and of the
//! log it has the bytes written, but not the length, nor what the disk keeps in a memory of its own. So both are synced
//! here, the blobs first, since a log that names one that is not there is damaged.
//!
//! Its lock on the log can outlive its holder for a moment: a daemon that was killed is not gone at once, and a
//! child has the descriptor between fork and exec. So opening waits a little for the lock.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::witness::Witnessed;
use super::{Store, StoreError, set_aside_name};

/// Bytes of sled's cache.
const CACHE_BYTES: u64 = 4 << 20;

/// Bytes of a segment of sled's log. sled has a buffer for the whole segment that it writes, whose memory comes as it
/// fills; with sled's own half a megabyte a daemon that writes little grows for hours.
const SEGMENT_BYTES: usize = 128 << 10;

/// What databases of earlier daemons have instead, and keep: sled opens them with no other.
const SEGMENT_BYTES_BEFORE: usize = 512 << 10;

/// The file that says that the log holds [`BEGUN_KEY`].
const BEGUN_FILE: &str = "begun";

/// The file that says what the log must hold.
const WITNESS_FILE: &str = "witness";

/// The file that says which version the form of keys and values has. Databases of the first version may have none.
const VERSION_FILE: &str = "version";

/// The version that this daemon writes. It grows when an older daemon could not read what a newer one writes, and what
/// a newer one reads of older versions is read where records and values are.
const VERSION: u32 = 1;

/// How long a lock that somebody else holds is waited for, and between two tries. No other daemon has it, but one that ends
/// may hold it for as long as the disk takes.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// The file of sled's log, and the folder of what is too large for it.
const LOG_FILE: &str = "db";
const BLOB_FOLDER: &str = "blobs";

/// A key that every database has from its beginning.
const BEGUN_KEY: &str = "begun";

/// A sled database.
pub struct Sled {
    db: sled::Db,
    /// Its log, to be synced.
    log: File,
    /// The folder of its blobs, and the number of the last one that is on the disk: later ones have greater numbers.
    blobs: PathBuf,
    synced: i64,
    /// It was begun when it was opened.
    is_new: bool,
}

/// Opens the database in a folder. A damaged one, and one of a newer version, is moved aside, and a new one begun.
///
/// # Errors
///
/// The system does not let the folder be used.
pub fn open_or_set_aside(folder: &Path) -> Result<Witnessed<Sled>, StoreError> {
    match check_version(folder).and_then(|()| open_whole(folder)) {
        Err(StoreError::Newer(version)) => {
            let aside = folder.with_extension(format!("version-{version}"));
            let aside = if aside.exists() { set_aside_name(&aside) } else { aside };
            fs::rename(folder, &aside).map_err(StoreError::System)?;
            tracing::warn!(
                "the database has version {version} and this daemon knows {VERSION}; moved it to {} and began a new one",
                aside.display()
            );
            open_whole(folder)
        }
        Err(StoreError::Damaged(why)) => {
            let aside = set_aside_name(folder);
            fs::rename(folder, &aside).map_err(StoreError::System)?;
            tracing::warn!(
                "the database is damaged ({why}); moved it to {} and began a new one",
                aside.display()
            );
            open_whole(folder)
        }
        other => other,
    }
}

/// Opens the database in a folder, if it is whole; begins one where there is none.
///
/// # Errors
///
/// It is damaged, or the system does not let the folder be used.
pub fn open_whole(folder: &Path) -> Result<Witnessed<Sled>, StoreError> {
    remove_half_snapshots(folder).map_err(StoreError::System)?;
    let opening = || {
        let config = |segment| {
            let config = sled::Config::new().path(folder).cache_capacity(CACHE_BYTES);
            config.segment_size(segment).flush_every_ms(None)
        };
        let opened = match open_when_unlocked(&config(SEGMENT_BYTES)) {
            Err(sled::Error::Unsupported(_)) => open_when_unlocked(&config(SEGMENT_BYTES_BEFORE)),
            other => other,
        };
        let mut store = Sled::opened(opened.map_err(error)?, folder).map_err(StoreError::System)?;
        store.begin(&folder.join(BEGUN_FILE))?;
        // Reads every value.
        Witnessed::open(store, folder.join(WITNESS_FILE))
    };
    match catch_unwind(AssertUnwindSafe(opening)) {
        Ok(result) => result,
        Err(panic) => Err(StoreError::Damaged(words_of(&*panic))),
    }
}

/// Checks that a database that is there is none of a newer daemon. A file that says nothing certain proves nothing: the
/// witness tells whether the rest is whole.
pub(super) fn check_version(folder: &Path) -> Result<(), StoreError> {
    let bytes = match fs::read(folder.join(VERSION_FILE)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(StoreError::System)?,
    };
    let text = String::from_utf8_lossy(&bytes);
    let version = text.split_once(' ').and_then(|(version, _)| version.parse().ok());
    match version.filter(|version| text == version_line(*version)) {
        Some(version) if version > VERSION => Err(StoreError::Newer(version)),
        Some(_) | None => Ok(()),
    }
}

/// What the file of the version says, with a checksum: one flipped bit is no newer version.
pub(super) fn version_line(version: u32) -> String {
    format!("{version} {:08x}\n", crc32fast::hash(&version.to_le_bytes()))
}

fn open_when_unlocked(config: &sled::Config) -> sled::Result<sled::Db> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match config.open() {
            Err(sled::Error::Io(e)) if is_locked(&e) && Instant::now() < deadline => {
                std::thread::sleep(LOCK_RETRY);
            }
            other => return other,
        }
    }
}

/// Whether somebody else has the log open; sled tells it in words alone.
fn is_locked(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

fn remove_half_snapshots(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        if text.starts_with("snap.") && text.ends_with(".generating") {
            tracing::info!("removing {text}, which the database left when it was killed");
            fs::remove_file(folder.join(&name))?;
        }
    }
    Ok(())
}

/// What is on the disk is damaged only where sled itself says so, in an error or under one of these kinds. What the
/// system refuses, for want of room, of rights, of memory or of descriptors, says nothing about what is on the disk: a
/// database that was moved aside for it would be lost for nothing.
fn error(error: sled::Error) -> StoreError {
    use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    match error {
        sled::Error::Io(e) if e.raw_os_error().is_some() || is_locked(&e) => StoreError::System(e),
        sled::Error::Io(e) if !matches!(e.kind(), InvalidData | InvalidInput | Other | UnexpectedEof) => {
            StoreError::System(e)
        }
        other => StoreError::Damaged(other.to_string()),
    }
}

/// The numbers of the blobs in a folder.
fn numbers_in(blobs: &Path) -> io::Result<Vec<i64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(blobs)? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i64>().ok()));
    }
    Ok(numbers)
}

/// What a panic said.
pub(super) fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    words.unwrap_or("it panicked").into()
}

impl Sled {
    /// What sled has opened.
    fn opened(db: sled::Db, folder: &Path) -> io::Result<Sled> {
        let (log, blobs) = (File::open(folder.join(LOG_FILE))?, folder.join(BLOB_FOLDER));
        let synced = numbers_in(&blobs)?.into_iter().max().unwrap_or(-1);
        Ok(Sled { db, log, blobs, synced, is_new: false })
    }

    /// Has those blobs on the disk that were written since the last time.
    fn sync_blobs(&mut self) -> io::Result<()> {
        let numbers = numbers_in(&self.blobs)?.into_iter().filter(|number| *number > self.synced);
        let Some(last) = numbers.clone().max() else { return Ok(()) };
        for number in numbers {
            match File::open(self.blobs.join(number.to_string())) {
                // sled has removed it meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other?.sync_all()?,
            }
        }
        File::open(&self.blobs)?.sync_all()?;
        self.synced = last;
        Ok(())
    }

    /// Whether it was begun when it was opened.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Makes sure that the log is the one that was begun, and begins it if none was.
    fn begin(&mut self, file: &Path) -> Result<(), StoreError> {
        if self.db.contains_key(BEGUN_KEY).map_err(error)? {
            return Ok(());
        }
        if file.exists() {
            return Err(StoreError::Damaged("its log cannot be read and looks empty".into()));
        }
        self.is_new = true;
        self.db.insert(BEGUN_KEY, &[]).map_err(error)?;
        self.flush()?;
        fs::write(file.with_file_name(VERSION_FILE), version_line(VERSION)).map_err(StoreError::System)?;
        // The key is durable before the file says so; a database killed in between is begun again, empty as it is.
        File::create(file).and_then(|f| f.sync_all()).map_err(StoreError::System)
    }
}

impl Store for Sled {
    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.db.insert(key, value).map(drop).map_err(error)
    }

    fn delete(&mut self, key: &str) -> Result<(), StoreError> {
        self.db.remove(key).map(drop).map_err(error)
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get(key).map_err(error)?.map(|value| value.to_vec()))
    }

    fn walk(&self, prefix: &str, each: &mut dyn FnMut(&str, &[u8])) -> Result<(), StoreError> {
        for entry in self.db.scan_prefix(prefix) {
            let (key, value) = entry.map_err(error)?;
            let key =
                std::str::from_utf8(&key).map_err(|_| StoreError::Damaged("a key is not UTF-8".into()))?;
            if key != BEGUN_KEY {
                each(key, &value);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.sync_blobs().map_err(StoreError::System)?;
        self.db.flush().map_err(error)?;
        self.log.sync_data().map_err(StoreError::System)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_of_large_values_are_synced_with_the_change_that_made_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let opened = sled::Config::new().path(folder.path()).segment_size(SEGMENT_BYTES).open();
        let mut store = Sled::opened(opened.expect("opens"), folder.path()).expect("it is on disk");
        let mut before = store.synced;
        for n in 0..3 {
            store.put(&format!("large/{n}"), &vec![n; 1 << 20]).expect("there is room");
            store.flush().expect("there is room");
            assert!(store.synced > before, "{} after {before}", store.synced);
            before = store.synced;
        }
    }
}
