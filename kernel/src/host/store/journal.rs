//! The journal: what changed of processes that outlive the daemon, step by step, in one file.
//!
//! The file is a row of batches, whose [`form`] has a module of its own. One batch is one write, made before anything
//! of its step is told to anybody. So whatever a program was told survives the death of the daemon at any moment. The
//! disk follows within [`SYNC_EVERY`], which is what a power failure can take; a process then goes on from where the
//! disk had it, and says the same again, because its tokens follow from its log.
//!
//! A batch that ends in the middle was never told of and is cut off. One that is damaged ends what can be used, and the
//! file is kept aside under another name, as is one of another version; what can be used begins a new one. When a file
//! has become long, the kernel gives all entries anew, and they take its place in one move; where the disk has no room for
//! both, the long one goes on. A write that failed is made up for in the same way, and so is a file that could not be
//! opened to be written, because the disk is full or read-only.

mod form;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel;
use tokio::sync::watch;
use tokio::time::sleep_until;

use super::{refuses_writes, set_aside_name};
use crate::core::image::{Entry, Images};
use form::{HEADER_BYTES, Read, VERSION, batch, decode, header};

/// A file of fewer bytes is never written anew, and one of more when it has grown to twice what it was.
const REWRITE_BYTES_MIN: u64 = 8 << 20;

/// Entries of one batch where all are written anew. All of them in one could be larger than any batch that is believed: a
/// reply that is kept has up to 64 MiB, and a process up to 256 messages of one.
const ENTRIES_A_BATCH: usize = 8;

/// How far the disk may be behind. A shorter time costs disks that can do few writes more than it is worth.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// How often a disk that was full or broken is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// How long a file goes on as it is that could not be written anew, though it lacks nothing.
const PUT_OFF: Duration = Duration::from_secs(60);

/// The journal, open to be written.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// None where the disk did not let it be opened to be written.
    file: Option<Synced>,
    /// The version of its form.
    version: u32,
    /// Where the last batch ends that is whole.
    end: u64,
    /// How long it was when it was written anew.
    rewritten: u64,
    /// A batch is missing, and when to try again to write all that there is.
    lacks: Option<Instant>,
    /// It could not be written anew, lacks nothing, and when to try again.
    put_off: Option<Instant>,
    /// What the path has cannot be used, and could not be kept under another name.
    to_set_aside: bool,
}

impl Journal {
    /// Opens the journal at a path, or begins one, and gives what it comes to. Where the disk is full or read-only, it
    /// is written when it can be.
    ///
    /// # Errors
    ///
    /// The system does not let it be read.
    pub fn open(path: &Path) -> io::Result<(Journal, Images)> {
        let bytes = match fs::read(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let read = decode(&bytes);
        let end = read.end.max(HEADER_BYTES) as u64;
        let mut journal = Journal {
            path: path.into(),
            file: None,
            version: read.version,
            end,
            rewritten: 0,
            lacks: None,
            put_off: None,
            to_set_aside: false,
        };
        match journal.begin(&read, &bytes) {
            Err(e) if refuses_writes(&e) => {
                tracing::error!("{}; it is read, and written when there is room", refused(path, &e));
                journal.lacks = Some(Instant::now() + RETRY_EVERY);
            }
            other => other?,
        }
        Ok((journal, read.images))
    }

    /// Makes the file one that can be appended to.
    fn begin(&mut self, read: &Read, bytes: &[u8]) -> io::Result<()> {
        let usable = if read.end < HEADER_BYTES { header(VERSION) } else { bytes[..read.end].to_vec() };
        if let Some(why) = &read.trouble {
            let aside = set_aside_name(&self.path);
            self.to_set_aside = true;
            tracing::warn!("the journal of processes {why}; keeping it as {}", aside.display());
            self.keep_aside()?;
            // Nothing is cut off of what is kept, so that no moment of a power failure can take it.
            self.file = Some(self.put_in_place(&usable)?);
            return Ok(());
        }
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&self.path)?;
        if read.end < HEADER_BYTES {
            file.set_len(0)?;
            file.write_all(&usable)?;
            file.sync_data()?;
            sync_folder(&self.path)?;
        }
        file.set_len(self.end)?;
        self.file = Some(Synced::new(file)?);
        Ok(())
    }

    /// Gives what the path has a second name, under which it stays. On the disk when it returns.
    fn keep_aside(&mut self) -> io::Result<()> {
        let aside = set_aside_name(&self.path);
        // A file system without links takes a copy.
        if fs::hard_link(&self.path, &aside).is_err() {
            let copied = fs::copy(&self.path, &aside).and_then(|_| File::open(&aside)?.sync_all());
            copied.inspect_err(|_| drop(fs::remove_file(&aside)))?;
        }
        sync_folder(&self.path)?;
        self.to_set_aside = false;
        Ok(())
    }

    /// Has these bytes in the place of what the path has, in one move. On the disk when it returns.
    fn put_in_place(&self, bytes: &[u8]) -> io::Result<Synced> {
        let new = self.path.with_extension("new");
        let put = || -> io::Result<Synced> {
            let mut file = File::create(&new)?;
            file.write_all(bytes)?;
            file.sync_data()?;
            let synced = Synced::new(file)?;
            fs::rename(&new, &self.path)?;
            sync_folder(&self.path)?;
            Ok(synced)
        };
        // What is left of it is in nobody's way, and the next try makes it anew.
        put().inspect_err(|_| drop(fs::remove_file(&new)))
    }

    /// Adds a batch.
    ///
    /// # Errors
    ///
    /// The disk is full or broken. Nothing is added until [`Journal::rewrite`] has succeeded.
    pub fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let Some(synced) = self.file.as_ref().filter(|_| self.lacks.is_none()) else { return Ok(()) };
        let mut bytes = Vec::new();
        let written = (synced.ask())
            .and_then(|()| batch(entries, self.version, &mut bytes))
            .and_then(|()| synced.file.write_all_at(&bytes, self.end));
        match written {
            Ok(()) => {
                self.end += bytes.len() as u64;
                synced.soon();
                Ok(())
            }
            Err(e) => {
                self.lacks = Some(Instant::now() + RETRY_EVERY);
                // What was written of it ends in the middle, which the next start knows what to do with.
                let _ = synced.file.set_len(self.end);
                Err(refused(&self.path, &e))
            }
        }
    }

    /// Whether all entries should be written anew.
    pub fn is_long(&self) -> bool {
        match self.lacks.or(self.put_off) {
            Some(retry) => Instant::now() >= retry,
            None => self.version < VERSION || self.end > REWRITE_BYTES_MIN.max(2 * self.rewritten),
        }
    }

    /// When to try again to write what is missing, if something is.
    pub fn retry_at(&self) -> Option<Instant> {
        self.lacks
    }

    /// Waits until all entries should be written anew because some are missing, whether anything changes or not.
    pub async fn lacking(&self) {
        match (self.lacks, &self.file) {
            (Some(retry), _) => sleep_until(retry.into()).await,
            (None, Some(synced)) => synced.refused().await,
            (None, None) => std::future::pending().await,
        }
    }

    /// Writes these entries in the place of all before them. On the disk when it returns.
    ///
    /// # Errors
    ///
    /// The disk is full or broken; the file is as it was. If it lacks nothing, it goes on.
    pub fn rewrite(&mut self, entries: &[Entry]) -> io::Result<()> {
        match self.write_new(entries) {
            Ok((file, end)) => {
                self.file = Some(file);
                (self.version, self.end, self.rewritten) = (VERSION, end, end);
                (self.lacks, self.put_off) = (None, None);
                Ok(())
            }
            Err(e) => {
                let (now, is_whole) = (Instant::now(), self.is_whole());
                match is_whole {
                    true => self.put_off = Some(now + PUT_OFF),
                    false => self.lacks = Some(now + RETRY_EVERY),
                }
                Err(refused(&self.path, &e))
            }
        }
    }

    /// Whether the file has all that it was given.
    fn is_whole(&self) -> bool {
        self.lacks.is_none() && self.file.as_ref().is_some_and(|synced| synced.ask().is_ok())
    }

    fn write_new(&mut self, entries: &[Entry]) -> io::Result<(Synced, u64)> {
        let mut bytes = header(VERSION);
        for entries in entries.chunks(ENTRIES_A_BATCH) {
            batch(entries, VERSION, &mut bytes)?;
        }
        if self.to_set_aside {
            self.keep_aside()?;
        }
        Ok((self.put_in_place(&bytes)?, bytes.len() as u64))
    }
}

/// Returns when the names in the folder of a file are on the disk.
fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn refused(path: &Path, why: &io::Error) -> io::Error {
    io::Error::new(why.kind(), format!("{} cannot be written: {why}", path.display()))
}

/// A file that the disk follows, by a thread that ends with this.
#[derive(Debug)]
struct Synced {
    file: File,
    dirty: channel::Sender<()>,
    /// The disk did not take what was written. It may never, so the file counts as one that lacks something.
    failed: watch::Receiver<bool>,
}

impl Synced {
    fn new(file: File) -> io::Result<Synced> {
        let (dirty, wanted) = channel::bounded::<()>(1);
        let (fails, failed) = watch::channel(false);
        let followed = file.try_clone()?;
        thread::Builder::new().name("journal".into()).spawn(move || {
            let (_never, pause) = channel::bounded::<()>(0);
            while wanted.recv().is_ok() {
                if let Err(e) = followed.sync_data() {
                    tracing::warn!("the journal of processes is not on the disk: {e}; writing it anew");
                    fails.send_replace(true);
                }
                // One that waits to be heard of keeps until then.
                let _ = pause.recv_timeout(SYNC_EVERY);
            }
        })?;
        Ok(Synced { file, dirty, failed })
    }

    /// Asks whether the disk has followed so far.
    fn ask(&self) -> io::Result<()> {
        match *self.failed.borrow() {
            true => Err(io::Error::other("the disk did not take what was written before")),
            false => Ok(()),
        }
    }

    /// Waits until the disk has not taken what was written.
    async fn refused(&self) {
        let mut failed = self.failed.clone();
        // Who tells it ends with this, and not before.
        if failed.wait_for(|failed| *failed).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn soon(&self) {
        // Where one waits already, that one will do.
        let _ = self.dirty.try_send(());
    }
}

#[cfg(test)]
mod tests;
