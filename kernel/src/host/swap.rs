//! The swap area of each mounted model: a file in memory for the host tier, and one in the data folder for the disk
//! tier. They are the daemon's and outlive every worker, which inherits their descriptors and cuts them into slots;
//! which slot holds what is the kernel's to know. The daemon itself reads nothing of them, and clears slots that nobody has a
//! page in any more.
//!
//! A model that is unmounted loses both. When the daemon ends the files on disk stay, since every page in them says
//! what it is, and the next daemon's workers find there what its contexts had. Where a file cannot be made there is no such tier; the first time that this happens is told in the
//! log, and nothing else fails.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drivers::wire::{SWAP_PLACE_BYTES, SWAP_PLACES, SWAP_SLOTS_AT, Slot, SwapArea};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::core::event::ModelId;

/// The folder in the data folder.
const FOLDER: &str = "swap";

/// What the names of the files end with.
const ENDING: &str = "pages";

/// The files of one model. Its workers inherit the descriptors under their own numbers.
#[derive(Debug, Default)]
pub struct SwapFiles {
    host: Option<File>,
    disk: Option<(File, PathBuf)>,
}

impl SwapFiles {
    /// What a worker is told, none if there is nothing.
    pub fn area(&self) -> Option<SwapArea> {
        let host_fd = self.host.as_ref().map(AsRawFd::as_raw_fd);
        let disk_fd = self.disk.as_ref().map(|(file, _)| file.as_raw_fd());
        (host_fd.is_some() || disk_fd.is_some()).then_some(SwapArea { host_fd, disk_fd })
    }
}

/// The files of all models.
#[derive(Debug)]
pub struct Swaps {
    folder: PathBuf,
    /// The room for slots of all files on disk.
    disk_bytes: u64,
    models: BTreeMap<ModelId, Arc<SwapFiles>>,
    /// The log has been told that there is no host tier, and that there is no disk tier.
    told: [bool; 2],
}

impl Swaps {
    /// None yet; files will be made in this data folder, with so much room for slots.
    pub fn new(data: &Path, disk_bytes: u64) -> Self {
        Swaps { folder: data.join(FOLDER), disk_bytes, models: BTreeMap::new(), told: [false; 2] }
    }

    /// The files of a model, made if it has none yet.
    pub fn of(&mut self, model: ModelId, name: &str) -> Arc<SwapFiles> {
        if let Some(files) = self.models.get(&model) {
            return Arc::clone(files);
        }
        let host = self.told_once(0, "memory", memory_file());
        let path = self.folder.join(file_name(name));
        let disk = match self.disk_bytes {
            0 => {
                // What an earlier configuration has left, if it has left anything.
                let _ = std::fs::remove_file(&path);
                None
            }
            most => self.told_once(1, "disk", disk_file(&self.folder, &path, most)).map(|file| (file, path)),
        };
        let files = Arc::new(SwapFiles { host, disk });
        self.models.insert(model, Arc::clone(&files));
        files
    }

    /// A model is mounted no more. A worker of it that still lives keeps what it has open.
    pub fn remove(&mut self, model: ModelId) {
        let Some(files) = self.models.remove(&model) else { return };
        if let Some((_, path)) = &files.disk
            && let Err(e) = std::fs::remove_file(path)
            && e.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("the swap file {} could not be removed: {e}", path.display());
        }
    }

    /// Gives the room of a slot back to the system. A file system without holes keeps it until the slot is used again.
    pub fn clear(&self, model: ModelId, slot: Slot, bytes: u64) {
        let Some(files) = self.models.get(&model) else { return };
        let cleared = match (slot, &files.host, &files.disk) {
            (Slot::Host(number), Some(file), _) => punch(file, u64::from(number) * bytes, bytes),
            (Slot::Disk(number), _, Some((file, _))) => {
                forget_place(file, number).and(punch(file, SWAP_SLOTS_AT + u64::from(number) * bytes, bytes))
            }
            _ => Ok(()),
        };
        if let Err(e) = cleared {
            tracing::debug!("a slot that has no page any more could not be cleared: {e}");
        }
    }

    fn told_once(&mut self, tier: usize, place: &str, made: io::Result<File>) -> Option<File> {
        let told = &mut self.told[tier];
        match made {
            Ok(file) => Some(file),
            Err(_) if *told => None,
            Err(e) => {
                *told = true;
                tracing::warn!("no pages are swapped to {place}: {e}; contexts are computed again instead");
                None
            }
        }
    }
}

fn memory_file() -> io::Result<File> {
    Ok(memfd_create("llmasos-swap", MFdFlags::MFD_CLOEXEC)?.into())
}

/// Opens the file of a model, for nobody else, and cuts off what a larger budget has left.
fn disk_file(folder: &Path, path: &Path, slots_bytes: u64) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let there = file.metadata()?;
    if there.is_file() && there.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    if there.len() > SWAP_SLOTS_AT.saturating_add(slots_bytes) {
        file.set_len(SWAP_SLOTS_AT + slots_bytes)?;
    }
    Ok(file)
}

fn punch(file: &File, at: u64, bytes: u64) -> io::Result<()> {
    let (Ok(at), Ok(bytes)) = (i64::try_from(at), i64::try_from(bytes)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    Ok(fallocate(file, hole, at, bytes)?)
}

/// Takes a slot out of the table before the slots, so that no worker finds a page there.
fn forget_place(file: &File, slot: u32) -> io::Result<()> {
    let at = SWAP_SLOTS_AT - (SWAP_PLACES.saturating_sub(slot.into())) * SWAP_PLACE_BYTES;
    match u64::from(slot) < SWAP_PLACES && at < file.metadata()?.len() {
        true => file.write_all_at(&[0; SWAP_PLACE_BYTES as usize], at),
        false => Ok(()),
    }
}

/// A file's name for a model's, another one for each: what could mean something to the system is spelt out.
fn file_name(model: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let mut name = String::new();
    for byte in model.bytes() {
        if plain(byte) {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02x}"));
        }
    }
    format!("{name}.{ENDING}")
}

#[cfg(test)]
mod tests {
    use super::super::descriptors::hand_over;
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn disk_path(files: &SwapFiles) -> PathBuf {
        files.disk.as_ref().map(|(_, path)| path.clone()).expect("there is a disk tier")
    }

    #[test]
    fn files_of_a_model_stay_from_worker_to_worker_and_go_when_it_is_unmounted() {
        let data = tempfile::tempdir().expect("a folder");
        let mut swaps = Swaps::new(data.path(), 1 << 30);
        let files = swaps.of(ModelId(1), "m");
        (&files.disk.as_ref().expect("there is one").0).write_all(b"page").expect("writes");
        let path = disk_path(&files);
        assert_eq!(path, data.path().join("swap/m.pages"));
        assert_eq!(path.metadata().expect("is there").mode() & 0o777, 0o600);
        assert_eq!(swaps.of(ModelId(1), "m").area(), files.area());
        assert_ne!(swaps.of(ModelId(2), "n").area(), files.area());
        swaps.remove(ModelId(1));
        assert!(!path.exists() && data.path().join("swap/n.pages").exists());
        swaps.remove(ModelId(1));
    }

    fn blocks(file: &File) -> u64 {
        file.metadata().expect("it is open").blocks()
    }

    /// Whether a file system gives the room of a hole back at once and tells so; none where it has no holes.
    fn tells_of_holes(folder: &Path) -> Option<bool> {
        let file = tempfile::tempfile_in(folder).expect("there is room");
        file.write_all_at(&[1; 3 * 65536], SWAP_SLOTS_AT).expect("writes");
        let before = blocks(&file);
        punch(&file, SWAP_SLOTS_AT + 65536, 65536).ok()?;
        Some(before.checked_sub(65536 / 512) == Some(blocks(&file)))
    }

    #[test]
    fn slot_that_is_cleared_takes_no_room_and_is_found_by_nobody() {
        let data = tempfile::tempdir().expect("a folder");
        let mut swaps = Swaps::new(data.path(), 1 << 30);
        let files = swaps.of(ModelId(1), "m");
        let (host, disk) = (files.host.as_ref().expect("one"), &files.disk.as_ref().expect("one").0);
        let (room, place) = (65536, 4096 + SWAP_PLACE_BYTES);
        host.write_all_at(&[1; 3 * 65536], 0).expect("writes");
        disk.write_all_at(&[1; 3 * 65536], SWAP_SLOTS_AT).expect("writes");
        disk.write_all_at(&[1; 3 * SWAP_PLACE_BYTES as usize], place - SWAP_PLACE_BYTES).expect("writes");
        let before = [host, disk].map(blocks);
        swaps.clear(ModelId(1), Slot::Host(1), room);
        swaps.clear(ModelId(1), Slot::Disk(1), room);
        swaps.clear(ModelId(2), Slot::Disk(1), room);
        let holes = tells_of_holes(data.path());
        if holes == Some(true) {
            assert_eq!([host, disk].map(blocks), before.map(|had| had - room / 512));
        } else {
            let why =
                "NOT CHECKED: the room of slots: the file system of temporary files does not tell of holes\n";
            std::io::stderr().write_all(why.as_bytes()).expect("somebody hears it");
        }
        let read = |file: &File, at: u64| {
            let mut bytes = [9; 3];
            [at - 1, at, at + 1].iter().zip(&mut bytes).for_each(|(at, byte)| {
                file.read_exact_at(std::slice::from_mut(byte), *at).expect("reads");
            });
            bytes
        };
        assert_eq!(read(host, room), [1, 0, 0]);
        assert!(holes.is_none() || read(disk, SWAP_SLOTS_AT + room) == [1, 0, 0]);
        assert_eq!(read(disk, place), [1, 0, 0]);
        assert_eq!(read(disk, place + SWAP_PLACE_BYTES), [0, 1, 1], "its neighbour stays");
        swaps.remove(ModelId(1));
    }

    #[test]
    fn file_on_disk_is_found_again_by_the_next_daemon() {
        let data = tempfile::tempdir().expect("a folder");
        let first = Swaps::new(data.path(), 1 << 30).of(ModelId(4), "m");
        (&first.disk.as_ref().expect("there is one").0).write_all(b"page").expect("writes");
        let again = Swaps::new(data.path(), 1 << 30).of(ModelId(1), "m");
        let mut held = String::new();
        (&again.disk.as_ref().expect("there is one").0).read_to_string(&mut held).expect("reads");
        assert_eq!(held, "page");
    }

    #[test]
    fn file_that_others_may_read_or_that_is_larger_than_the_budget_is_put_right() {
        let data = tempfile::tempdir().expect("a folder");
        let path = disk_path(&Swaps::new(data.path(), 4096).of(ModelId(1), "m"));
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("own file");
        std::fs::File::options().write(true).open(&path).and_then(|f| f.set_len(1 << 30)).expect("grows");
        Swaps::new(data.path(), 4096).of(ModelId(1), "m");
        let there = path.metadata().expect("is there");
        assert_eq!((there.mode() & 0o777, there.len()), (0o600, SWAP_SLOTS_AT + 4096));
        assert!(Swaps::new(data.path(), 0).of(ModelId(1), "m").disk.is_none() && !path.exists());
    }

    #[test]
    fn data_folder_that_takes_no_file_leaves_the_host_tier() {
        let data = tempfile::tempdir().expect("a folder");
        std::fs::write(data.path().join("swap"), "in the way").expect("writes");
        let mut swaps = Swaps::new(data.path(), 1 << 30);
        let area = swaps.of(ModelId(1), "m").area().expect("there is a host tier");
        assert!(area.host_fd.is_some() && area.disk_fd.is_none());
        assert_eq!(swaps.told, [false, true]);
        swaps.remove(ModelId(1));
        assert_eq!(SwapFiles::default().area(), None);
    }

    #[test]
    fn names_of_models_are_names_of_files_and_stay_different() {
        assert_eq!(file_name("qwen-0_5b"), "qwen-0_5b.pages");
        let names = ["../x", "a/b", "a%2fb", ".", "", "ä", "a b"].map(file_name);
        assert!(names.iter().all(|name| !name.contains('/') && !name.starts_with('.') || name == ".pages"));
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
    }

    #[test]
    fn child_writes_to_the_files_and_another_program_does_not_have_them() {
        use std::os::unix::process::CommandExt;
        let data = tempfile::tempdir().expect("a folder");
        let files = Swaps::new(data.path(), 1 << 30).of(ModelId(1), "m");
        let area = files.area().expect("there are files");
        let fds = [area.host_fd, area.disk_fd].map(|fd| fd.expect("there are both"));
        let script = format!("echo in memory >&{}; echo on disk >&{}", fds[0], fds[1]);
        let run = |handed: bool| {
            let mut command = std::process::Command::new("bash");
            command.args(["-c", &script]).stderr(std::process::Stdio::null());
            if handed {
                // SAFETY: between fork and exec the closure makes system calls alone.
                unsafe { command.pre_exec(move || hand_over(&fds)) };
            }
            command.status().expect("bash runs").success()
        };
        assert!(!run(false), "descriptors of the daemon stay its own");
        assert!(run(true));
        let written = |mut file: &File| {
            let mut text = String::new();
            file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut text)).expect("reads");
            text
        };
        assert_eq!(written(files.host.as_ref().expect("there is one")), "in memory\n");
        assert_eq!(written(&files.disk.as_ref().expect("there is one").0), "on disk\n");
    }
}
