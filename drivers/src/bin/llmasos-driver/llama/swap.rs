//! The swap area: the daemon's files, which it keeps across workers, cut into slots with room for one page each.
//!
//! A slot begins with a header that says which entries of which model it holds, and how they are laid out, with a
//! checksum over all of it. llama.cpp checks the shapes of layers alone, and a file may be torn by a crash, full,
//! or written by a worker of another model. So nothing of a slot reaches llama.cpp before its header says what the
//! kernel says and the checksum is right.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

use drivers::wire::{DriverFault, PageLabel, Slot, SwapArea};
use nix::fcntl::{FallocateFlags, FcntlArg, FdFlag, fallocate, fcntl};
use syscalls::Errno;
use syscalls::call::Attention;
use thiserror::Error;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;

/// Slots begin at multiples of this, a page of the system's memory.
const BLOCK_BYTES: u64 = 4096;

/// What a slot begins with; the last two bytes are the version.
const MAGIC: [u8; 8] = *b"llmpag\x00\x01";

/// Where the checksum stands: behind all that the header says.
const CHECKSUM_AT: usize = 60;

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

/// What all pages of a worker have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageKind {
    /// Of the model's file.
    pub fingerprint: u64,
    /// It decides how values are laid out.
    pub attention: Attention,
    /// Passes have fixed shapes, so the entries are others to the last bit.
    pub deterministic: bool,
}

impl PageKind {
    fn layout(self) -> u32 {
        u32::from(self.attention == Attention::Flash) | u32::from(self.deterministic) << 1
    }

    /// Fills in the header in front of a page's entries.
    ///
    /// # Panics
    ///
    /// If there is no room for it in front.
    pub fn seal(self, label: PageLabel, page: &mut [u8]) {
        let entries = (page.len() - HEADER_BYTES) as u64;
        let parts: [&[u8]; 7] = [
            &MAGIC,
            &self.fingerprint.to_le_bytes(),
            &self.layout().to_le_bytes(),
            &label.from.to_le_bytes(),
            &label.to.to_le_bytes(),
            &label.digest.to_le_bytes(),
            &entries.to_le_bytes(),
        ];
        let said = parts.concat();
        page[..HEADER_BYTES].fill(0);
        page[..said.len()].copy_from_slice(&said);
        let checksum = checksum(page);
        page[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    }

    /// The entries of a page, if it is sound and the one that is meant.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn open(self, label: PageLabel, page: &[u8]) -> Result<&[u8], SwapError> {
        let header = Header::read(page)?;
        if (header.fingerprint, header.layout) != (self.fingerprint, self.layout()) {
            return Err(SwapError::OtherModel);
        }
        if header.label != label {
            let held = header.label;
            return Err(SwapError::OtherPage(held.from, held.to, label.from, label.to));
        }
        check(page)?;
        Ok(&page[HEADER_BYTES..])
    }
}

/// What a slot says of itself, believed only when the checksum is right.
struct Header {
    fingerprint: u64,
    layout: u32,
    label: PageLabel,
    entries: u64,
}

impl Header {
    fn read(page: &[u8]) -> Result<Header, SwapError> {
        let mut rest = page;
        let magic: [u8; 8] = take(&mut rest)?;
        if magic != MAGIC {
            return Err(SwapError::Empty);
        }
        Ok(Header {
            fingerprint: u64::from_le_bytes(take(&mut rest)?),
            layout: u32::from_le_bytes(take(&mut rest)?),
            label: PageLabel {
                from: u32::from_le_bytes(take(&mut rest)?),
                to: u32::from_le_bytes(take(&mut rest)?),
                digest: u128::from_le_bytes(take(&mut rest)?),
            },
            entries: u64::from_le_bytes(take(&mut rest)?),
        })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], SwapError> {
    let (bytes, behind) = rest.split_first_chunk().ok_or(SwapError::Empty)?;
    *rest = behind;
    Ok(*bytes)
}

/// Of everything but itself.
fn checksum(page: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&page[..CHECKSUM_AT]);
    hasher.update(&page[HEADER_BYTES..]);
    hasher.finalize()
}

fn check(page: &[u8]) -> Result<(), SwapError> {
    let said = page.get(CHECKSUM_AT..HEADER_BYTES).ok_or(SwapError::Empty)?;
    if said == checksum(page).to_le_bytes() { Ok(()) } else { Err(SwapError::Damaged) }
}

/// The files.
pub struct Swap {
    host: Option<File>,
    disk: Option<File>,
    slot_bytes: u64,
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
        Ok(Swap { host: host.transpose()?, disk: disk.transpose()?, slot_bytes: 0 })
    }

    /// Makes slots large enough for pages of so many bytes.
    pub fn set_page_bytes(&mut self, bytes: u64) {
        self.slot_bytes = bytes.next_multiple_of(BLOCK_BYTES);
    }

    fn file(&self, slot: Slot) -> Result<(&File, &'static str, u32), SwapError> {
        let (file, tier, number) = match slot {
            Slot::Host(number) => (&self.host, "in memory", number),
            Slot::Disk(number) => (&self.disk, "on disk", number),
        };
        Ok((file.as_ref().ok_or(SwapError::NoTier(tier))?, tier, number))
    }

    /// Writes a sealed page.
    ///
    /// # Errors
    ///
    /// The disk is full, for one; the slot then holds no page.
    pub fn write(&self, slot: Slot, page: &[u8]) -> Result<(), SwapError> {
        let (file, tier, number) = self.file(slot)?;
        if page.len() as u64 > self.slot_bytes {
            return Err(SwapError::TooLarge { bytes: page.len(), room: self.slot_bytes });
        }
        let at = u64::from(number) * self.slot_bytes;
        file.write_all_at(page, at).map_err(|source| SwapError::Io {
            tier,
            number,
            done: "written",
            source,
        })?;
        clear_behind(file, at, page.len() as u64, self.slot_bytes).map_err(|source| SwapError::Io {
            tier,
            number,
            done: "cleared",
            source,
        })
    }

    /// Reads what a slot holds, as far as its header says that it goes.
    ///
    /// # Errors
    ///
    /// It holds nothing, or cannot be read.
    pub fn read(&self, slot: Slot) -> Result<Vec<u8>, SwapError> {
        let (file, tier, number) = self.file(slot)?;
        let at = u64::from(number) * self.slot_bytes;
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::UnexpectedEof => SwapError::Empty,
            _ => SwapError::Io { tier, number, done: "read", source },
        };
        let mut page = vec![0; HEADER_BYTES];
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
    pub fn copy(&self, from: Slot, to: Slot) -> Result<(), SwapError> {
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
mod tests {
    use std::os::fd::IntoRawFd;

    use super::*;

    const KIND: PageKind = PageKind { fingerprint: 7, attention: Attention::Plain, deterministic: false };
    const LABEL: PageLabel = PageLabel { from: 64, to: 100, digest: 9 };

    fn sealed(entries: usize) -> Vec<u8> {
        let mut page = vec![0; HEADER_BYTES + entries];
        page[HEADER_BYTES..].iter_mut().enumerate().for_each(|(at, byte)| *byte = at as u8);
        KIND.seal(LABEL, &mut page);
        page
    }

    fn swap(page_bytes: u64) -> Swap {
        let file = tempfile::tempfile().expect("a file");
        let mut swap = Swap { host: Some(file), disk: None, slot_bytes: 0 };
        swap.set_page_bytes(page_bytes);
        swap
    }

    #[test]
    fn page_is_read_as_it_was_written_and_other_slots_are_empty() {
        let swap = swap(5000);
        let page = sealed(4900);
        swap.write(Slot::Host(3), &page).expect("it fits");
        swap.copy(Slot::Host(3), Slot::Host(1)).expect("it is sound");
        for number in [3, 1] {
            let read = swap.read(Slot::Host(number)).expect("it is there");
            assert_eq!(KIND.open(LABEL, &read).expect("it is sound"), &page[HEADER_BYTES..]);
        }
        assert!(matches!(swap.read(Slot::Host(2)), Err(SwapError::Empty)));
        assert!(matches!(swap.read(Slot::Host(4)), Err(SwapError::Empty)));
        assert!(matches!(swap.read(Slot::Disk(3)), Err(SwapError::NoTier("on disk"))));
        assert!(matches!(swap.write(Slot::Host(0), &sealed(9000)), Err(SwapError::TooLarge { .. })));
    }

    #[test]
    fn slot_that_is_used_again_has_nothing_of_the_page_before() {
        for (old, new) in [(12_000, 3000), (12_000, 64), (5000, 4999), (8192, 4096), (12_000, 12_000)] {
            let swap = swap(13_000);
            swap.write(Slot::Host(0), &sealed(old)).expect("it fits");
            swap.write(Slot::Host(1), &sealed(old)).expect("it fits");
            // Another user's page, all of other bytes.
            let mut page = vec![0xAA; HEADER_BYTES + new];
            KIND.seal(PageLabel { digest: 10, ..LABEL }, &mut page);
            swap.write(Slot::Host(0), &page).expect("it fits");
            let file = swap.host.as_ref().expect("there is one");
            let mut slot = vec![0; swap.slot_bytes as usize];
            file.read_exact_at(&mut slot, 0).expect("it is there");
            assert_eq!(slot[..page.len()], page, "{old} {new}");
            assert!(slot[page.len()..].iter().all(|byte| *byte == 0), "{old} {new}");
            let neighbour = swap.read(Slot::Host(1)).expect("it is there");
            assert_eq!(neighbour, sealed(old), "its neighbour is as it was");
        }
    }

    #[test]
    fn page_with_any_byte_changed_is_refused() {
        let page = sealed(300);
        for at in 0..page.len() {
            let mut other = page.clone();
            other[at] ^= 0x10;
            assert!(KIND.open(LABEL, &other).is_err(), "byte {at}");
        }
        for length in 0..page.len() {
            assert!(KIND.open(LABEL, &page[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn page_of_another_place_or_model_is_refused() {
        let page = sealed(300);
        let open = |kind: PageKind, label: PageLabel| kind.open(label, &page).err();
        assert!(open(KIND, LABEL).is_none());
        assert!(matches!(
            open(KIND, PageLabel { from: 0, ..LABEL }),
            Some(SwapError::OtherPage(64, 100, 0, 100))
        ));
        assert!(matches!(open(KIND, PageLabel { to: 101, ..LABEL }), Some(SwapError::OtherPage(..))));
        assert!(matches!(open(KIND, PageLabel { digest: 8, ..LABEL }), Some(SwapError::OtherPage(..))));
        assert!(matches!(open(PageKind { fingerprint: 8, ..KIND }, LABEL), Some(SwapError::OtherModel)));
        let flash = PageKind { attention: Attention::Flash, ..KIND };
        assert!(matches!(open(flash, LABEL), Some(SwapError::OtherModel)));
        assert!(matches!(open(PageKind { deterministic: true, ..KIND }, LABEL), Some(SwapError::OtherModel)));
    }

    #[test]
    fn slot_that_claims_more_than_its_room_is_damaged() {
        let swap = swap(4096);
        let mut page = sealed(100);
        page[44..52].copy_from_slice(&u64::MAX.to_le_bytes());
        swap.write(Slot::Host(0), &page).expect("it fits");
        assert!(matches!(swap.read(Slot::Host(0)), Err(SwapError::Damaged)));
    }

    #[test]
    fn descriptor_that_is_not_open_is_refused() {
        let refused = |host_fd| Swap::new(Some(SwapArea { host_fd: Some(host_fd), disk_fd: None })).err();
        for fd in [-1, 0, 2, i32::MAX] {
            assert_eq!(refused(fd).map(|fault| fault.errno), Some(Errno::EBADF), "{fd}");
        }
        let open = tempfile::tempfile().expect("a file").into_raw_fd();
        assert!(refused(open).is_none());
    }
}
