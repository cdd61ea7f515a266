//! What stands before the slots in the file on disk: whose pages these are, and a copy of each slot's header.
//!
//! The next daemon's worker learns from the table what there is, with one read, and believes none of it: what a slot
//! has is checked when it is loaded. A slot is written before its place in the table, so after a kill in between the
//! table says what was there before, and the load finds another page. A file of another version, model, layout or page
//! size is emptied: all in it can be computed again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use drivers::wire::{SWAP_PLACE_BYTES, SWAP_PLACES, SWAP_SLOTS_AT, SavedPage, SavedPages};

use super::page::{HEADER_BYTES, Header, PageKind};

/// What the file begins with, and the version of its form.
const MAGIC: [u8; 12] = *b"llmasos-pags";
const VERSION: u32 = 1;

/// Bytes that say whose pages these are, at the beginning of the first block.
const HEAD_BYTES: usize = 40;

/// Where the table begins, behind a block for the head.
const TABLE_AT: u64 = 4096;

/// A place has a copy of a header. With the default budget all slots have one, for pages of 64 KiB and more; what is in
/// others is found by no worker that begins. Room that is not used takes none on disks that have holes.
const _: () = assert!(SWAP_SLOTS_AT == TABLE_AT + SWAP_PLACES * HEADER_BYTES as u64);
const _: () = assert!(SWAP_PLACE_BYTES == HEADER_BYTES as u64);

/// What a file must say for its pages to be of use.
#[derive(Clone, Copy)]
pub struct Head {
    pub kind: PageKind,
    pub slot_bytes: u64,
}

impl Head {
    fn bytes(self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..12].copy_from_slice(&MAGIC);
        head[12..16].copy_from_slice(&VERSION.to_le_bytes());
        head[16..24].copy_from_slice(&self.slot_bytes.to_le_bytes());
        head[24..32].copy_from_slice(&self.kind.fingerprint.to_le_bytes());
        head[32..36].copy_from_slice(&self.kind.layout().to_le_bytes());
        let sum = crc32fast::hash(&head[..36]);
        head[36..].copy_from_slice(&sum.to_le_bytes());
        head
    }

    /// Why the pages of a file that begins so are of no use, if they are not.
    fn refuses(self, found: &[u8; HEAD_BYTES]) -> Option<String> {
        let own = self.bytes();
        let word = |at: usize| [found[at], found[at + 1], found[at + 2], found[at + 3]];
        let version = u32::from_le_bytes(word(12));
        let why = match () {
            () if *found == own => return None,
            () if found[..12] != MAGIC => "the file has none, or those of a version before them".into(),
            () if version != VERSION => {
                format!("the file has version {version} and this worker knows {VERSION}")
            }
            () if crc32fast::hash(&found[..36]).to_le_bytes() != found[36..] => {
                "the beginning of the file is damaged".into()
            }
            () if found[24..32] != own[24..32] => "they are of another model file".into(),
            () => "they have another size or layout: the attention kernel, the mount or llama.cpp changed"
                .into(),
        };
        Some(why)
    }

    /// Writes the head of a file.
    ///
    /// # Errors
    ///
    /// The disk is full, for one.
    pub fn write(self, file: &File) -> io::Result<()> {
        file.write_all_at(&self.bytes(), 0)
    }

    /// What is in a file that other workers have written, and whether its head is there. A file that is of no use is
    /// emptied.
    ///
    /// # Errors
    ///
    /// It cannot be read or emptied.
    pub fn take_over(self, file: &File) -> io::Result<(SavedPages, bool)> {
        let length = file.metadata()?.len();
        if length == 0 {
            return Ok((SavedPages::default(), false));
        }
        let mut head = [0; HEAD_BYTES];
        let read = file.read_exact_at(&mut head, 0);
        if let Err(e) = read
            && e.kind() != io::ErrorKind::UnexpectedEof
        {
            return Err(e);
        }
        if let Some(why) = self.refuses(&head) {
            file.set_len(0)?;
            return Ok((SavedPages { pages: Vec::new(), dropped: Some(why) }, false));
        }
        let slots = length.saturating_sub(SWAP_SLOTS_AT).div_ceil(self.slot_bytes.max(1)).min(SWAP_PLACES);
        let mut table = vec![0; slots as usize * HEADER_BYTES];
        file.read_exact_at(&mut table, TABLE_AT)?;
        let places = table.chunks_exact(HEADER_BYTES).enumerate();
        let pages = places.filter_map(|(slot, place)| self.saved(slot as u32, place)).collect();
        Ok((SavedPages { pages, dropped: None }, true))
    }

    /// The page that a place tells of.
    fn saved(self, slot: u32, place: &[u8]) -> Option<SavedPage> {
        let header = Header::read(place).ok().filter(|header| header.is_of(self.kind))?;
        Some(SavedPage { slot, page: header.label, generation: header.generation })
    }
}

/// Notes in the table what a slot has.
///
/// # Errors
///
/// The disk is full, for one.
pub fn note(file: &File, slot: u32, page: &[u8]) -> io::Result<()> {
    if u64::from(slot) >= SWAP_PLACES {
        return Ok(());
    }
    file.write_all_at(&page[..HEADER_BYTES], TABLE_AT + u64::from(slot) * HEADER_BYTES as u64)
}
