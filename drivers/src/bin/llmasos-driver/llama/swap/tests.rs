use std::os::fd::IntoRawFd;

use drivers::wire::PageOwner;
use syscalls::call::Attention;

use super::page::tests::{KIND, LABEL, sealed};
use super::*;

/// A whole page.
const WHOLE: PageLabel = PageLabel { from: 64, to: 128, ..LABEL };

fn swap(page_bytes: u64) -> Swap {
    let file = tempfile::tempfile().expect("a file");
    let mut swap = Swap { host: Some(file), disk: None, slot_bytes: 0, head: None, generation: 0 };
    swap.begin(page_bytes, KIND);
    swap
}

/// A worker begins with a file on disk.
fn on_disk(file: &File, page_bytes: u64, kind: PageKind) -> (Swap, SavedPages) {
    let disk = Some(file.try_clone().expect("a descriptor"));
    let mut swap = Swap { host: None, disk, slot_bytes: 0, head: None, generation: 0 };
    let saved = swap.begin(page_bytes, kind);
    (swap, saved)
}

#[test]
fn page_is_read_as_it_was_written_and_other_slots_are_empty() {
    let mut swap = swap(5000);
    let page = sealed(LABEL, 4800);
    swap.write(Slot::Host(3), &page).expect("it fits");
    swap.copy(Slot::Host(3), Slot::Host(1)).expect("it is sound");
    for number in [3, 1] {
        let read = swap.read(Slot::Host(number)).expect("it is there");
        assert_eq!(KIND.open(LABEL, &read).expect("it is sound"), &page[HEADER_BYTES..]);
    }
    assert!(matches!(swap.read(Slot::Host(2)), Err(SwapError::Empty)));
    assert!(matches!(swap.read(Slot::Host(4)), Err(SwapError::Empty)));
    assert!(matches!(swap.read(Slot::Disk(3)), Err(SwapError::NoTier("on disk"))));
    assert!(matches!(swap.write(Slot::Host(0), &sealed(LABEL, 9000)), Err(SwapError::TooLarge { .. })));
}

#[test]
fn slot_that_claims_more_than_its_room_is_damaged() {
    let mut swap = swap(4096);
    let mut page = sealed(LABEL, 100);
    page[44..52].copy_from_slice(&u64::MAX.to_le_bytes());
    swap.write(Slot::Host(0), &page).expect("it fits");
    assert!(matches!(swap.read(Slot::Host(0)), Err(SwapError::Damaged)));
}

#[test]
fn slot_that_is_used_again_has_nothing_of_the_page_before() {
    for (old, new) in [(12_000, 3000), (12_000, 64), (5000, 4999), (8192, 4096), (12_000, 12_000)] {
        let file = tempfile::tempfile().expect("a file");
        let (mut swap, _) = on_disk(&file, 13_000, KIND);
        swap.write(Slot::Disk(0), &sealed(LABEL, old)).expect("it fits");
        swap.write(Slot::Disk(1), &sealed(LABEL, old)).expect("it fits");
        // Another user's page, all of other bytes.
        let mut page = vec![0xAA; HEADER_BYTES + new];
        swap.seal(KIND, PageLabel { owner: PageOwner::User(8), ..LABEL }, &mut page);
        swap.write(Slot::Disk(0), &page).expect("it fits");
        let mut slot = vec![0; swap.slot_bytes as usize];
        file.read_exact_at(&mut slot, SWAP_SLOTS_AT).expect("it is there");
        assert_eq!(slot[..page.len()], page, "{old} {new}");
        assert!(slot[page.len()..].iter().all(|byte| *byte == 0), "{old} {new}");
        let neighbour = swap.read(Slot::Disk(1)).expect("it is there");
        assert_eq!(*neighbour, sealed(LABEL, old), "its neighbour is as it was");
    }
}

#[test]
fn pages_on_disk_are_told_to_the_next_worker_with_growing_generations() {
    let file = tempfile::tempfile().expect("a file");
    let (mut swap, saved) = on_disk(&file, 5000, KIND);
    assert_eq!(saved, SavedPages::default());
    let other = PageLabel { from: 0, to: 64, digest: 3, ..WHOLE };
    for (slot, label) in [(2, WHOLE), (0, other), (1, LABEL)] {
        let mut page = sealed(label, 700);
        swap.seal(KIND, label, &mut page);
        swap.write(Slot::Disk(slot), &page).expect("it fits");
    }
    let (mut swap, saved) = on_disk(&file, 5000, KIND);
    let told: Vec<_> = saved.pages.iter().map(|p| (p.slot, p.page, p.generation)).collect();
    assert_eq!((told, saved.dropped), (vec![(0, other, 2), (1, LABEL, 3), (2, WHOLE, 1)], None));
    let whole: Vec<u32> = saved.pages.iter().filter(|p| p.is_whole()).map(|p| p.slot).collect();
    assert_eq!(whole, [0, 2], "the end of a log is told so that its slot can be cleared");
    let mut page = sealed(WHOLE, 700);
    swap.seal(KIND, WHOLE, &mut page);
    swap.write(Slot::Disk(5), &page).expect("it fits");
    let (_, saved) = on_disk(&file, 5000, KIND);
    assert_eq!(saved.pages.last().map(|p| (p.slot, p.generation)), Some((5, 4)));
}

#[test]
fn file_of_another_kind_is_emptied_and_said() {
    let flash = PageKind { attention: Attention::Flash, ..KIND };
    let other = PageKind { fingerprint: 8, ..KIND };
    for (page_bytes, kind, why) in
        [(5000, other, "another model file"), (5000, flash, "layout"), (9000, KIND, "another size")]
    {
        let file = tempfile::tempfile().expect("a file");
        let (mut swap, _) = on_disk(&file, 5000, KIND);
        swap.write(Slot::Disk(0), &sealed(WHOLE, 700)).expect("it fits");
        let (mut swap, saved) = on_disk(&file, page_bytes, kind);
        let dropped = saved.dropped.expect("it is said");
        assert!(saved.pages.is_empty() && dropped.contains(why), "{dropped}");
        assert_eq!(file.metadata().expect("it is open").len(), 0);
        swap.write(Slot::Disk(0), &sealed(WHOLE, 700)).expect("it is begun anew");
        assert_eq!(on_disk(&file, page_bytes, kind).1.dropped, None);
    }
}

#[test]
fn file_of_another_version_or_of_none_is_emptied_and_said() {
    let file = || {
        let file = tempfile::tempfile().expect("a file");
        let (mut swap, _) = on_disk(&file, 5000, KIND);
        swap.write(Slot::Disk(0), &sealed(WHOLE, 700)).expect("it fits");
        file
    };
    for (at, byte, why) in [
        (12, 9, "has version 9 and this worker knows 1"),
        (0, b'x', "of a version before"),
        (36, 1, "damaged"),
    ] {
        let file = file();
        file.write_all_at(&[byte], at).expect("writes");
        let dropped = on_disk(&file, 5000, KIND).1.dropped.expect("it is said");
        assert!(dropped.contains(why), "{dropped}");
    }
    // What workers wrote that knew no table: slots from the beginning of the file on.
    let file = tempfile::tempfile().expect("a file");
    file.write_all_at(b"llmpag\x00\x01", 0).expect("writes");
    assert!(on_disk(&file, 5000, KIND).1.dropped.is_some_and(|why| why.contains("of a version before")));
}

#[test]
fn file_cut_off_or_damaged_anywhere_lets_the_worker_begin() {
    let file = tempfile::tempfile().expect("a file");
    let (mut swap, _) = on_disk(&file, 5000, KIND);
    (0..3).for_each(|slot| swap.write(Slot::Disk(slot), &sealed(WHOLE, 700)).expect("it fits"));
    let whole = file.metadata().expect("it is open").len();
    for length in [whole - 1, whole - 9000, SWAP_SLOTS_AT, SWAP_SLOTS_AT - 1, 5000, 100, 39, 1] {
        let torn = tempfile::tempfile().expect("a file");
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0).expect("it is so long");
        torn.write_all_at(&bytes, 0).expect("writes");
        let (swap, saved) = on_disk(&torn, 5000, KIND);
        for page in saved.pages {
            let read = swap.read(Slot::Disk(page.slot));
            let sound = read.as_ref().is_ok_and(|read| KIND.open(page.page, read).is_ok());
            assert!(sound || page.slot == 2 || length < whole - 1, "{length}");
        }
    }
    for at in (4096..4096 + 3 * HEADER_BYTES as u64).step_by(7) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("it is there");
        file.write_all_at(&[byte[0] ^ 0x11], at).expect("writes");
        for page in on_disk(&file, 5000, KIND).1.pages {
            let read = swap.read(Slot::Disk(page.slot)).expect("the slots are sound");
            // What is told of a slot that it does not have is not loaded.
            assert!(page.page == WHOLE || KIND.open(page.page, &read).is_err());
        }
        file.write_all_at(&byte, at).expect("writes");
    }
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
