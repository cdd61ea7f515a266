//! The swap area: the daemon's files, cut into slots with room for one page each. The file in memory outlives workers,
//! the one on disk outlives daemons too: the worker that begins tells which pages it found there ([`table`]).

mod page;
mod table;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

use drivers::wire::{DriverFault, PageLabel, SWAP_SLOTS_AT, SavedPages, Slot, SwapArea};
use nix::fcntl::{FallocateFlags, FcntlArg, FdFlag, fallocate, fcntl};
use syscalls::Errno;
use thiserror::Error;
use zeroize::Zeroizing;

use page::{Header, check};
use table::Head;

pub use page::{HEADER_BYTES, PageKind};

/// Slots begin at multiples of this, a page of the system's memory.
const BLOCK_BYTES: u64 = 4096;

/// Why a page could not be saved or loaded.
#[derive(Debug, Error)]
pub enum SwapError {
    #[error("this worker has no swap file {0}; the daemon's log says why")]
    NoTier(&'static str),
    #[error("slot {number} of the swap file {tier} cannot be {done}: {source}")]
    Io { tier: &'static str, number: u32, done: &'static str, source: io::Error },
    #[error("a page of {bytes} bytes does not fit into a slot of {room}")]
    TooLarge { bytes: usize, room: u64 },
    #[error("the slot holds no page")]
    Empty,
    #[error("the slot holds a page of another model, or of another attention kernel")]
    OtherModel,
    #[error("the slot holds positions {0} to {1} of a sequence, or another one; {2} to {3} were asked for")]
    OtherPage(u32, u32, u32, u32),
    #[error("the page in the slot is damaged: its checksum is wrong")]
    Damaged,
}

impl From<SwapError> for DriverFault {
    fn from(error: SwapError) -> Self {
        DriverFault::new(Errno::EIO, error.to_string())
    }
}

/// The files.
pub struct Swap {
    host: Option<File>,
    disk: Option<File>,
    slot_bytes: u64,
    /// What the file on disk is to begin with, until it does.
    head: Option<Head>,
    /// Of the page that was saved last.
    generation: u64,
}

impl Swap {
    /// Takes over the descriptors that the worker has inherited.
    ///
    /// # Errors
    ///
    /// EBADF where one of them is not open.
    pub fn new(area: Option<SwapArea>) -> Result<Swap, DriverFault> {
        let area = area.unwrap_or(SwapArea { host_fd: None, disk_fd: None });
        let (host, disk) = (area.host_fd.map(inherited), area.disk_fd.map(inherited));
        Ok(Swap {
            host: host.transpose()?,
            disk: disk.transpose()?,
            slot_bytes: 0,
            head: None,
            generation: 0,
        })
    }

    /// Makes slots large enough for pages of so many bytes and of this kind, and tells what is on disk of them.
    pub fn begin(&mut self, page_bytes: u64, kind: PageKind) -> SavedPages {
        self.slot_bytes = page_bytes.next_multiple_of(BLOCK_BYTES);
        let head = Head { kind, slot_bytes: self.slot_bytes };
        let Some(disk) = self.disk.as_ref().filter(|_| page_bytes > 0) else { return SavedPages::default() };
        let (saved, begun) = head.take_over(disk).unwrap_or_else(|e| {
            // Where it cannot be read it can hardly be written, which the kernel is told at the first page.
            let dropped = Some(format!("the file cannot be read: {e}"));
            (SavedPages { pages: Vec::new(), dropped }, false)
        });
        self.head = (!begun).then_some(head);
        self.generation = saved.pages.iter().map(|page| page.generation).max().unwrap_or(0);
        saved
    }

    /// Fills in the header in front of a page that is saved.
    pub fn seal(&mut self, kind: PageKind, label: PageLabel, page: &mut [u8]) {
        self.generation += 1;
        kind.seal(label, self.generation, page);
    }

    fn file(&self, slot: Slot) -> Result<(&File, &'static str, u32), SwapError> {
        let (file, tier, number) = match slot {
            Slot::Host(number) => (&self.host, "in memory", number),
            Slot::Disk(number) => (&self.disk, "on disk", number),
        };
        Ok((file.as_ref().ok_or(SwapError::NoTier(tier))?, tier, number))
    }

    /// Where a slot begins.
    fn at(&self, slot: Slot) -> u64 {
        match slot {
            Slot::Host(number) => u64::from(number) * self.slot_bytes,
            Slot::Disk(number) => SWAP_SLOTS_AT + u64::from(number) * self.slot_bytes,
        }
    }

    /// Writes a sealed page. Nothing of what the slot had before stays.
    ///
    /// # Errors
    ///
    /// The disk is full, for one; the slot then holds no page.
    pub fn write(&mut self, slot: Slot, page: &[u8]) -> Result<(), SwapError> {
        let (file, tier, number) = self.file(slot)?;
        if page.len() as u64 > self.slot_bytes {
            return Err(SwapError::TooLarge { bytes: page.len(), room: self.slot_bytes });
        }
        let failed = |source| SwapError::Io { tier, number, done: "written", source };
        let at = self.at(slot);
        let on_disk = matches!(slot, Slot::Disk(_));
        if let Some(head) = self.head.filter(|_| on_disk) {
            head.write(file).map_err(failed)?;
        }
        file.write_all_at(page, at).map_err(failed)?;
        clear_behind(file, at, page.len() as u64, self.slot_bytes).map_err(|source| SwapError::Io {
            tier,
            number,
            done: "cleared",
            source,
        })?;
        if on_disk {
            table::note(file, number, page).map_err(failed)?;
            self.head = None;
        }
        Ok(())
    }

    /// Reads what a slot holds, as far as its header says that it goes.
    ///
    /// # Errors
    ///
    /// It holds nothing, or cannot be read.
    pub fn read(&self, slot: Slot) -> Result<Zeroizing<Vec<u8>>, SwapError> {
        let (file, tier, number) = self.file(slot)?;
        let at = self.at(slot);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::UnexpectedEof => SwapError::Empty,
            _ => SwapError::Io { tier, number, done: "read", source },
        };
        let mut page = Zeroizing::new(vec![0; self.slot_bytes as usize]);
        page.truncate(HEADER_BYTES);
        file.read_exact_at(&mut page, at).map_err(failed)?;
        let entries = Header::read(&page)?.entries;
        if entries > self.slot_bytes - HEADER_BYTES as u64 {
            return Err(SwapError::Damaged);
        }
        page.resize(HEADER_BYTES + entries as usize, 0);
        file.read_exact_at(&mut page[HEADER_BYTES..], at + HEADER_BYTES as u64).map_err(failed)?;
        Ok(page)
    }

    /// Copies a page to another slot, if it is sound.
    ///
    /// # Errors
    ///
    /// As reading and writing.
    pub fn copy(&mut self, from: Slot, to: Slot) -> Result<(), SwapError> {
        let page = self.read(from)?;
        check(&page)?;
        self.write(to, &page)
    }
}

/// Clears a slot behind a page that does not fill it: an earlier one may have, of another user perhaps. What can be given
/// back to the system is, and reads as zeros; the rest, or all of it where the file system has no holes, is overwritten.
fn clear_behind(file: &File, slot: u64, used: u64, room: u64) -> io::Result<()> {
    let (from, end) = (slot + used, (slot + room).min(file.metadata()?.len()));
    let block = from.next_multiple_of(BLOCK_BYTES).min(end);
    write_zeros(file, from, block)?;
    let (Ok(at), Ok(bytes)) = (i64::try_from(block), i64::try_from(end.saturating_sub(block))) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    if bytes == 0 {
        return Ok(());
    }
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(file, hole, at, bytes).or_else(|_| write_zeros(file, block, end))
}

fn write_zeros(file: &File, from: u64, end: u64) -> io::Result<()> {
    let zeros = [0; BLOCK_BYTES as usize];
    let mut at = from;
    while at < end {
        let bytes = (end - at).min(BLOCK_BYTES) as usize;
        file.write_all_at(&zeros[..bytes], at)?;
        at += bytes as u64;
    }
    Ok(())
}

/// Takes over a descriptor, and keeps it from children.
fn inherited(fd: RawFd) -> Result<File, DriverFault> {
    let not_open = |why: nix::Error| {
        let message =
            format!("file descriptor {fd}, which the kernel names for swapping, cannot be used: {why}");
        DriverFault::new(Errno::EBADF, message)
    };
    if fd <= 2 {
        return Err(not_open(nix::Error::EBADF));
    }
    // SAFETY: asking a number that is no descriptor fails and does nothing else.
    let known = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    fcntl(known.as_fd(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(not_open)?;
    // SAFETY: it is open, and the kernel opened it for this; nothing else here owns it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

#[cfg(test)]
mod tests;
