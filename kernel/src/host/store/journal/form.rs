//! The form of a journal's file, and what is believed of one that is read.
//!
//! The file begins with a magic and a version. Behind that stand batches: the length of the entries, their checksum, the
//! checksum of these two, and the entries. What stands behind the last whole batch says what became of the file:
//!
//! | behind it | means |
//! |---|---|
//! | nothing | all is there |
//! | less than the head of a batch, or a sound head and not all of its entries | a batch was being written, of which nobody was told |
//! | anything else | damage, and perhaps batches that were told of |
//!
//! In version 1 heads have no checksum. So a head whose entries go beyond the end is damage there if its entries are
//! whole, but for the length, or batches are found behind it.

use std::io;

use crate::core::image::{Entry, Images};

/// What the file begins with. The version grows when an older daemon could not read what a newer one writes.
const MAGIC: &[u8; 12] = b"llmasos-proc";
pub(super) const VERSION: u32 = 2;

/// The oldest version that is read.
const VERSION_OLDEST: u32 = 1;

/// Bytes of magic and version.
pub(super) const HEADER_BYTES: usize = MAGIC.len() + 4;

/// The largest batch that is believed.
const BATCH_BYTES_MAX: usize = 1 << 30;

/// What a file begins with.
pub(super) fn header(version: u32) -> Vec<u8> {
    [MAGIC.as_slice(), &version.to_le_bytes()].concat()
}

/// Appends a batch.
///
/// # Errors
///
/// It is larger than what is believed.
pub(super) fn batch(entries: &[Entry], version: u32, out: &mut Vec<u8>) -> io::Result<()> {
    let body = postcard::to_stdvec(entries).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).ok().filter(|n| *n as usize <= BATCH_BYTES_MAX);
    let length = length.ok_or_else(|| {
        io::Error::other(format!("a batch of {} bytes; the limit is {BATCH_BYTES_MAX}", body.len()))
    })?;
    let head = [length.to_le_bytes(), crc32fast::hash(&body).to_le_bytes()].concat();
    out.extend_from_slice(&head);
    if has_head_sum(version) {
        out.extend_from_slice(&crc32fast::hash(&head).to_le_bytes());
    }
    out.extend_from_slice(&body);
    Ok(())
}

fn has_head_sum(version: u32) -> bool {
    version >= 2
}

/// What a file comes to.
pub(super) struct Read {
    pub images: Images,
    /// Its version; the newest where it has none that is known.
    pub version: u32,
    /// Where the last batch ends that can be used.
    pub end: usize,
    /// What is wrong with the rest, if it should be looked at.
    pub trouble: Option<String>,
}

/// Reads a file.
pub(super) fn decode(bytes: &[u8]) -> Read {
    let mut read = Read { images: Images::default(), version: VERSION, end: 0, trouble: None };
    let Some((head, _)) = bytes.split_at_checked(HEADER_BYTES) else {
        // Shorter than its header: it had just been begun.
        return read;
    };
    let (magic, version) = head.split_at(MAGIC.len());
    let version = version.try_into().map_or(0, u32::from_le_bytes);
    if magic != MAGIC || !(VERSION_OLDEST..=VERSION).contains(&version) {
        let what = match magic == MAGIC {
            true => format!("has version {version} and this daemon knows {VERSION}"),
            false => "is none".into(),
        };
        read.trouble = Some(what);
        return read;
    }
    (read.version, read.end) = (version, HEADER_BYTES);
    loop {
        match next(&bytes[read.end..], version) {
            Next::Batch { entries, bytes } => {
                entries.into_iter().for_each(|entry| read.images.apply(entry));
                read.end += bytes;
            }
            Next::End => return read,
            Next::Damaged(why) => {
                read.trouble = Some(format!("is damaged at byte {}, of {}: {why}", read.end, bytes.len()));
                return read;
            }
        }
    }
}

/// What stands at a place where a batch may begin.
enum Next {
    Batch {
        entries: Vec<Entry>,
        bytes: usize,
    },
    /// Nothing, or a batch that was being written.
    End,
    Damaged(String),
}

/// The length and checksum of the entries of a batch, and where these begin.
struct Head {
    length: usize,
    sum: u32,
    bytes: usize,
}

impl Head {
    /// None where there are too few bytes for one.
    ///
    /// # Errors
    ///
    /// It cannot have been written so.
    fn of(bytes: &[u8], version: u32) -> Option<Result<Head, String>> {
        let ([length, sum], rest) = numbers::<2>(bytes)?;
        let mut head = Head { length: length as usize, sum, bytes: 8 };
        if has_head_sum(version) {
            let ([own], _) = numbers::<1>(rest)?;
            if crc32fast::hash(&bytes[..head.bytes]) != own {
                return Some(Err("the checksum of its head is another".into()));
            }
            head.bytes += 4;
        }
        if head.length > BATCH_BYTES_MAX {
            return Some(Err(format!("a batch of {} bytes; the limit is {BATCH_BYTES_MAX}", head.length)));
        }
        Some(Ok(head))
    }

    /// None where they are not all there.
    ///
    /// # Errors
    ///
    /// They are not what was written.
    fn entries(&self, bytes: &[u8]) -> Option<Result<Vec<Entry>, String>> {
        let body = bytes.get(self.bytes..)?.get(..self.length)?;
        Some(match crc32fast::hash(body) == self.sum {
            true => postcard::from_bytes(body).map_err(|e| e.to_string()),
            false => Err("its checksum is another".into()),
        })
    }
}

/// The numbers that bytes begin with, and the rest.
fn numbers<const N: usize>(bytes: &[u8]) -> Option<([u32; N], &[u8])> {
    let (head, rest) = bytes.split_at_checked(4 * N)?;
    let (words, _) = head.as_chunks::<4>();
    Some((words.iter().copied().map(u32::from_le_bytes).collect::<Vec<_>>().try_into().ok()?, rest))
}

fn next(bytes: &[u8], version: u32) -> Next {
    let head = match Head::of(bytes, version) {
        None => return Next::End,
        Some(Err(why)) => return Next::Damaged(why),
        Some(Ok(head)) => head,
    };
    match head.entries(bytes) {
        Some(Ok(entries)) => Next::Batch { entries, bytes: head.bytes + head.length },
        Some(Err(why)) => Next::Damaged(why),
        None if !has_head_sum(version) && hides_batches(&head, bytes) => {
            Next::Damaged("its length is another".into())
        }
        None => Next::End,
    }
}

/// Whether a head of version 1 whose entries go beyond the end has a wrong length.
fn hides_batches(head: &Head, bytes: &[u8]) -> bool {
    let whole =
        |head: &Head, bytes: &[u8]| matches!(head.entries(bytes), Some(Ok(entries)) if !entries.is_empty());
    let body = bytes.get(head.bytes..).unwrap_or_default();
    let own = !body.is_empty() && crc32fast::hash(body) == head.sum;
    own || (1..bytes.len()).any(|at| {
        let behind = &bytes[at..];
        matches!(Head::of(behind, 1), Some(Ok(head)) if whole(&head, behind))
    })
}
