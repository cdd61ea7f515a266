//! The journal: what changed of processes that outlive the daemon, step by step, in one file.
//!
//! The file begins with a magic and the version of the form. Behind that stand batches: length, checksum, entries. One
//! batch is one write, made before anything of its step is told to anybody. So whatever a program was told survives the
//! death of the daemon at any moment. The disk follows within [`SYNC_EVERY`], which is what a power failure can take; a
//! process then goes on from where the disk had it, and says the same again, because its tokens follow from its log.
//!
//! A batch that ends in the middle was never told of and is cut off. One that is damaged ends what can be used, and the
//! file is kept aside, as is one of another version. When a file has become long, the kernel gives all entries anew, and
//! they take its place in one move. A write that failed is made up for in the same way, and so is a file that could not
//! be opened to be written, because the disk is full or read-only.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel;

use super::{refuses_writes, set_aside_name};
use crate::core::image::{Entry, Images};

/// What the file begins with. The version grows when an older daemon could not read what a newer one writes, and what a
/// newer one reads of older versions stands in [`decode`].
const MAGIC: &[u8; 12] = b"llmasos-proc";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = MAGIC.len() + 4;

/// Bytes before each batch: its length and its checksum.
const BATCH_HEADER_BYTES: usize = 8;

/// The largest batch that is believed.
const BATCH_BYTES_MAX: usize = 1 << 30;

/// A file of fewer bytes is never written anew, and one of more when it has grown to twice what it was.
const REWRITE_BYTES_MIN: u64 = 8 << 20;

/// How far the disk may be behind. A shorter time costs disks that can do few writes more than it is worth.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// How often a disk that was full or broken is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// The journal, open to be written.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// None where the disk did not let it be opened to be written.
    file: Option<Synced>,
    /// Where the last batch ends that is whole.
    end: u64,
    /// How long it was when it was written anew.
    rewritten: u64,
    /// A batch is missing, and when to try again to write all that there is.
    lacks: Option<Instant>,
    /// What the path has cannot be used, and could not be copied to be kept.
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
        let mut journal =
            Journal { path: path.into(), file: None, end, rewritten: 0, lacks: None, to_set_aside: false };
        match journal.begin(&read) {
            Err(e) if refuses_writes(&e) => {
                tracing::error!("{}; it is read, and written when there is room", refused(path, &e));
                journal.lacks = Some(Instant::now() + RETRY_EVERY);
            }
            other => other?,
        }
        Ok((journal, read.images))
    }

    /// Makes the file one that can be appended to.
    fn begin(&mut self, read: &Read) -> io::Result<()> {
        if let Some(why) = &read.trouble {
            let aside = set_aside_name(&self.path);
            self.to_set_aside = true;
            tracing::warn!("the journal of processes {why}; keeping it as {}", aside.display());
            fs::copy(&self.path, &aside).inspect_err(|_| drop(fs::remove_file(&aside)))?;
            self.to_set_aside = false;
        }
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&self.path)?;
        if read.end < HEADER_BYTES {
            file.set_len(0)?;
            file.write_all(&header())?;
        }
        file.set_len(self.end)?;
        self.file = Some(Synced::new(file)?);
        Ok(())
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
            .and_then(|()| batch(entries, &mut bytes))
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
        match self.lacks {
            Some(retry) => Instant::now() >= retry,
            None => self.end > REWRITE_BYTES_MIN.max(2 * self.rewritten),
        }
    }

    /// When all entries should be written anew because some are missing, whether anything changes or not.
    pub fn retry_at(&self) -> Option<Instant> {
        self.lacks
    }

    /// Writes these entries in the place of all before them. On the disk when it returns.
    ///
    /// # Errors
    ///
    /// The disk is full or broken; the file is as it was.
    pub fn rewrite(&mut self, entries: &[Entry]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let written = self.write_new(&new, entries);
        match written {
            Ok((file, end)) => {
                self.file = Some(file);
                (self.end, self.rewritten, self.lacks, self.to_set_aside) = (end, end, None, false);
                Ok(())
            }
            Err(e) => {
                self.lacks = Some(Instant::now() + RETRY_EVERY);
                // It is in nobody's way, and the next try makes it anew.
                let _ = fs::remove_file(&new);
                Err(refused(&self.path, &e))
            }
        }
    }

    fn write_new(&self, new: &Path, entries: &[Entry]) -> io::Result<(Synced, u64)> {
        let mut bytes = header();
        if !entries.is_empty() {
            batch(entries, &mut bytes)?;
        }
        let mut file = File::create(new)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        let synced = Synced::new(file)?;
        if self.to_set_aside {
            fs::rename(&self.path, set_aside_name(&self.path))?;
        }
        fs::rename(new, &self.path)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok((synced, bytes.len() as u64))
    }
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
    failed: Arc<AtomicBool>,
}

impl Synced {
    fn new(file: File) -> io::Result<Synced> {
        let (dirty, wanted) = channel::bounded::<()>(1);
        let failed = Arc::new(AtomicBool::new(false));
        let (followed, fails) = (file.try_clone()?, Arc::clone(&failed));
        thread::Builder::new().name("journal".into()).spawn(move || {
            let (_never, pause) = channel::bounded::<()>(0);
            while wanted.recv().is_ok() {
                if let Err(e) = followed.sync_data() {
                    tracing::warn!("the journal of processes is not on the disk: {e}; writing it anew");
                    fails.store(true, Ordering::Release);
                }
                // One that waits to be heard of keeps until then.
                let _ = pause.recv_timeout(SYNC_EVERY);
            }
        })?;
        Ok(Synced { file, dirty, failed })
    }

    /// Asks whether the disk has followed so far.
    fn ask(&self) -> io::Result<()> {
        match self.failed.load(Ordering::Acquire) {
            true => Err(io::Error::other("the disk did not take what was written before")),
            false => Ok(()),
        }
    }

    fn soon(&self) {
        // Where one waits already, that one will do.
        let _ = self.dirty.try_send(());
    }
}

fn header() -> Vec<u8> {
    [MAGIC.as_slice(), &VERSION.to_le_bytes()].concat()
}

/// Appends a batch with its length and checksum.
fn batch(entries: &[Entry], out: &mut Vec<u8>) -> io::Result<()> {
    let body = postcard::to_stdvec(entries).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).ok().filter(|n| *n as usize <= BATCH_BYTES_MAX);
    let length = length.ok_or_else(|| {
        io::Error::other(format!("a batch of {} bytes; the limit is {BATCH_BYTES_MAX}", body.len()))
    })?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    out.extend_from_slice(&body);
    Ok(())
}

/// What a file comes to.
struct Read {
    images: Images,
    /// Where the last batch ends that can be used.
    end: usize,
    /// What is wrong with the rest, if it should be looked at.
    trouble: Option<String>,
}

fn decode(bytes: &[u8]) -> Read {
    let mut read = Read { images: Images::default(), end: 0, trouble: None };
    let Some((head, _)) = bytes.split_at_checked(HEADER_BYTES) else {
        // Shorter than its header: it had just been begun.
        return read;
    };
    let (magic, version) = head.split_at(MAGIC.len());
    let version = version.try_into().map_or(0, u32::from_le_bytes);
    if magic != MAGIC || version != VERSION {
        let what = match magic == MAGIC {
            true => format!("has version {version} and this daemon knows {VERSION}"),
            false => "is none".into(),
        };
        read.trouble = Some(what);
        return read;
    }
    read.end = HEADER_BYTES;
    while let Some((length, sum)) = batch_header(&bytes[read.end..]) {
        let Some(body) = bytes.get(read.end + BATCH_HEADER_BYTES..).and_then(|rest| rest.get(..length))
        else {
            break;
        };
        let entries = match crc32fast::hash(body) == sum {
            true => postcard::from_bytes::<Vec<Entry>>(body).map_err(|e| e.to_string()),
            false => Err("its checksum is another".into()),
        };
        match entries {
            Ok(entries) => entries.into_iter().for_each(|entry| read.images.apply(entry)),
            Err(why) => {
                read.trouble = Some(format!("is damaged at byte {}, of {}: {why}", read.end, bytes.len()));
                break;
            }
        }
        read.end += BATCH_HEADER_BYTES + length;
    }
    read
}

fn batch_header(bytes: &[u8]) -> Option<(usize, u32)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, _) = rest.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*length) as usize, u32::from_le_bytes(*sum)))
}

#[cfg(test)]
mod tests;
