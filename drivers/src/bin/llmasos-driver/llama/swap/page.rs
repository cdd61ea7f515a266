//! A page as it stands in a slot: a header that says which entries of which model it holds and how they are laid out,
//! and a checksum over all of it.
//!
//! llama.cpp checks the shapes of layers alone, and a file may be torn by a crash, full, or written by a worker of
//! another model. So nothing of a slot reaches llama.cpp before its header says what the kernel says and the checksum
//! is right.

use drivers::wire::{PageLabel, PageOwner};
use syscalls::call::Attention;

use super::SwapError;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 128;

/// What a slot begins with; the last two bytes are the version.
const MAGIC: [u8; 8] = *b"llmpag\x00\x02";

/// The form in which llama.cpp tells the state of a sequence, as its header has it (`LLAMA_STATE_SEQ_VERSION`, which the
/// crate does not export). Whoever takes another llama.cpp looks it up there.
const STATE_VERSION: u32 = 4;

/// Where the checksum stands: behind all that the header says.
const CHECKSUM_AT: usize = HEADER_BYTES - 4;

/// Owners, as the header has them.
const USER: u32 = 0;
const SEGMENT: u32 = 1;

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
    /// How entries are laid out: by the attention kernel, the mount, and the form in which llama.cpp tells its state.
    pub(super) fn layout(self) -> u32 {
        // Of the fused kernel and the blocked one values lie alike, and are others to the last bit.
        let attention = match self.attention {
            Attention::Auto | Attention::Plain => 0,
            Attention::Flash => 1,
            Attention::Blocked => 4,
        };
        attention | u32::from(self.deterministic) << 1 | STATE_VERSION << 8
    }

    /// Fills in the header in front of a page's entries.
    ///
    /// # Panics
    ///
    /// If there is no room for it in front.
    pub fn seal(self, label: PageLabel, generation: u64, page: &mut [u8]) {
        let entries = (page.len() - HEADER_BYTES) as u64;
        let (kind, number) = match label.owner {
            PageOwner::User(uid) => (USER, uid),
            PageOwner::Segment(number) => (SEGMENT, number),
        };
        let parts: [&[u8]; 10] = [
            &MAGIC,
            &self.fingerprint.to_le_bytes(),
            &self.layout().to_le_bytes(),
            &label.from.to_le_bytes(),
            &label.to.to_le_bytes(),
            &label.digest.to_le_bytes(),
            &entries.to_le_bytes(),
            &kind.to_le_bytes(),
            &number.to_le_bytes(),
            &generation.to_le_bytes(),
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
        if !header.is_of(self) {
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
pub(super) struct Header {
    fingerprint: u64,
    layout: u32,
    pub label: PageLabel,
    /// Bytes of the entries.
    pub entries: u64,
    /// Grows with every page that is saved.
    pub generation: u64,
}

impl Header {
    pub fn read(page: &[u8]) -> Result<Header, SwapError> {
        let mut rest = page;
        let magic: [u8; 8] = take(&mut rest)?;
        if magic != MAGIC {
            return Err(SwapError::Empty);
        }
        let (fingerprint, layout) =
            (u64::from_le_bytes(take(&mut rest)?), u32::from_le_bytes(take(&mut rest)?));
        let (from, to) = (u32::from_le_bytes(take(&mut rest)?), u32::from_le_bytes(take(&mut rest)?));
        let digest = u128::from_le_bytes(take(&mut rest)?);
        let entries = u64::from_le_bytes(take(&mut rest)?);
        let (kind, number) = (u32::from_le_bytes(take(&mut rest)?), u32::from_le_bytes(take(&mut rest)?));
        let owner = match kind {
            USER => PageOwner::User(number),
            SEGMENT => PageOwner::Segment(number),
            _ => return Err(SwapError::Damaged),
        };
        let generation = u64::from_le_bytes(take(&mut rest)?);
        Ok(Header { fingerprint, layout, label: PageLabel { from, to, digest, owner }, entries, generation })
    }

    /// Whether a worker with pages of this kind can load it.
    pub fn is_of(&self, kind: PageKind) -> bool {
        (self.fingerprint, self.layout) == (kind.fingerprint, kind.layout())
    }
}

pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], SwapError> {
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

/// Checks that a page is as it was sealed.
///
/// # Errors
///
/// It is damaged, or none.
pub(super) fn check(page: &[u8]) -> Result<(), SwapError> {
    let said = page.get(CHECKSUM_AT..HEADER_BYTES).ok_or(SwapError::Empty)?;
    if said == checksum(page).to_le_bytes() { Ok(()) } else { Err(SwapError::Damaged) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub const KIND: PageKind = PageKind { fingerprint: 7, attention: Attention::Plain, deterministic: false };
    pub const LABEL: PageLabel = PageLabel { from: 64, to: 100, digest: 9, owner: PageOwner::User(7) };

    pub fn sealed(label: PageLabel, entries: usize) -> Vec<u8> {
        let mut page = vec![0; HEADER_BYTES + entries];
        page[HEADER_BYTES..].iter_mut().enumerate().for_each(|(at, byte)| *byte = at as u8);
        KIND.seal(label, 1, &mut page);
        page
    }

    #[test]
    fn version_of_states_was_looked_up_for_the_llama_cpp_that_is_built() {
        let workspace = include_str!("../../../../../../Cargo.toml");
        let looked_up = "llama-cpp-sys-2 = { version = \"=0.1.161\"";
        assert!(workspace.contains(looked_up), "look `LLAMA_STATE_SEQ_VERSION` up in its llama.h");
    }

    #[test]
    fn page_with_any_byte_changed_is_refused() {
        let page = sealed(LABEL, 300);
        assert_eq!(KIND.open(LABEL, &page).expect("it is sound"), &page[HEADER_BYTES..]);
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
    fn page_of_another_place_owner_or_model_is_refused() {
        let page = sealed(LABEL, 300);
        let open = |kind: PageKind, label: PageLabel| kind.open(label, &page).err();
        assert!(open(KIND, LABEL).is_none());
        assert!(matches!(
            open(KIND, PageLabel { from: 0, ..LABEL }),
            Some(SwapError::OtherPage(64, 100, 0, 100))
        ));
        assert!(matches!(open(KIND, PageLabel { to: 101, ..LABEL }), Some(SwapError::OtherPage(..))));
        assert!(matches!(open(KIND, PageLabel { digest: 8, ..LABEL }), Some(SwapError::OtherPage(..))));
        for owner in [PageOwner::User(8), PageOwner::Segment(7)] {
            assert!(matches!(open(KIND, PageLabel { owner, ..LABEL }), Some(SwapError::OtherPage(..))));
        }
        assert!(matches!(open(PageKind { fingerprint: 8, ..KIND }, LABEL), Some(SwapError::OtherModel)));
        for attention in [Attention::Flash, Attention::Blocked] {
            assert!(matches!(open(PageKind { attention, ..KIND }, LABEL), Some(SwapError::OtherModel)));
        }
        assert!(matches!(open(PageKind { deterministic: true, ..KIND }, LABEL), Some(SwapError::OtherModel)));
    }
}
