use std::fs;

use syscalls::Pid;

use super::*;

fn began(pid: u32) -> Entry {
    Entry::Began { pid: Pid(pid), uid: 7, name: format!("process {pid}") }
}

/// A journal with three batches, and its folder.
fn filled() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("processes");
    let (mut journal, images) = Journal::open(&path).expect("opens");
    assert_eq!(images, Images::default());
    for pid in 2..5 {
        journal.append(&[began(pid), began(pid + 10), Entry::Gone { pid: Pid(pid + 10) }]).expect("room");
    }
    (folder, path)
}

fn pids(path: &Path) -> Vec<u32> {
    let (_, images) = Journal::open(path).expect("opens");
    images.running.keys().map(|pid| pid.0).collect()
}

#[test]
fn batches_written_are_there_after_a_restart_and_more_can_come() {
    let (_folder, path) = filled();
    assert_eq!(pids(&path), [2, 3, 4]);
    let (mut journal, _) = Journal::open(&path).expect("opens");
    journal.append(&[Entry::Gone { pid: Pid(3) }]).expect("room");
    assert_eq!(pids(&path), [2, 4]);
    journal.rewrite(&[began(9)]).expect("room");
    journal.append(&[began(10)]).expect("room");
    assert_eq!(pids(&path), [9, 10]);
}

#[test]
fn journal_written_anew_has_its_entries_in_batches_of_a_few() {
    let (_folder, path) = filled();
    let (mut journal, _) = Journal::open(&path).expect("opens");
    let entries: Vec<Entry> = (2..22).map(began).collect();
    journal.rewrite(&entries).expect("room");
    assert_eq!(pids(&path), (2..22).collect::<Vec<u32>>());
    let whole = fs::read(&path).expect("reads");
    fs::write(&path, &whole[..whole.len() - 1]).expect("writes");
    assert_eq!(pids(&path), (2..18).collect::<Vec<u32>>(), "all but the last batch");
}

#[test]
fn batch_cut_anywhere_is_left_out_and_those_before_it_stay() {
    let (folder, path) = filled();
    let whole = fs::read(&path).expect("reads");
    let mut seen = std::collections::BTreeSet::new();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).expect("writes");
        let found = pids(&path);
        assert!([2, 3, 4].starts_with(&found), "{found:?} of {length} bytes");
        seen.insert(found.len());
        let (mut journal, _) = Journal::open(&path).expect("opens");
        journal.append(&[began(8)]).expect("room");
        assert_eq!(pids(&path).last(), Some(&8), "it goes on behind {length} bytes");
    }
    assert_eq!(seen.len(), 3, "of none, one and two batches");
    assert_eq!(fs::read_dir(folder.path()).expect("reads").count(), 1, "nothing was damaged");
}

#[test]
fn bit_flipped_ends_what_is_used_and_the_file_is_kept() {
    let (folder, path) = filled();
    let whole = fs::read(&path).expect("reads");
    let mut bytes = whole.clone();
    bytes[whole.len() / 2] ^= 4;
    fs::write(&path, &bytes).expect("writes");
    assert_eq!(pids(&path), [2]);
    let aside = folder.path().join("processes.damaged-1");
    assert_eq!(fs::read(aside).expect("it is kept"), bytes);
    assert_eq!(pids(&path), [2], "and what is used is sound");
}

/// A file of a version with three batches, as large as they have to be.
fn small(version: u32) -> Vec<u8> {
    let mut bytes = header(version);
    for pid in 2..5 {
        batch(&[began(pid)], version, &mut bytes).expect("small");
    }
    bytes
}

#[test]
fn bit_flipped_anywhere_loses_nothing_silently() {
    for version in [1, VERSION] {
        let whole = small(version);
        assert_eq!(decode(&whole).images.running.len(), 3);
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let read = decode(&bytes);
            assert!(read.trouble.is_some(), "bit {bit} of version {version}: {:?}", read.images.running);
        }
    }
}

#[test]
fn batch_cut_anywhere_is_no_damage_in_any_version() {
    for version in [1, VERSION] {
        let whole = small(version);
        for length in 0..whole.len() {
            let read = decode(&whole[..length]);
            assert_eq!(read.trouble, None, "{length} bytes of version {version}");
        }
    }
}

#[test]
fn batch_larger_than_any_is_damage() {
    let mut bytes = small(VERSION);
    let head = [u32::MAX.to_le_bytes(), [0; 4]].concat();
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(&crc32fast::hash(&head).to_le_bytes());
    let trouble = decode(&bytes).trouble.expect("nobody writes so much");
    assert!(trouble.contains("4294967295 bytes; the limit is"), "{trouble}");
}

#[test]
fn file_that_is_kept_is_the_damaged_one_itself_and_no_copy_that_the_disk_may_lack() {
    use std::os::unix::fs::MetadataExt;
    let (folder, path) = filled();
    let mut bytes = fs::read(&path).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&path, &bytes).expect("writes");
    let inode = |path: &Path| fs::metadata(path).expect("it is there").ino();
    let damaged = inode(&path);
    assert_eq!(pids(&path), [2]);
    assert_eq!(inode(&folder.path().join("processes.damaged-1")), damaged);
    assert_ne!(inode(&path), damaged, "nothing of it was cut off");
}

#[test]
fn file_of_a_newer_version_is_kept_and_another_one_begun() {
    let (folder, path) = filled();
    let mut bytes = fs::read(&path).expect("reads");
    bytes[HEADER_BYTES - 4] += 1;
    fs::write(&path, &bytes).expect("writes");
    assert!(pids(&path).is_empty());
    assert_eq!(fs::read(folder.path().join("processes.damaged-1")).expect("it is kept"), bytes);
    fs::write(&path, "precious words of somebody else").expect("writes");
    assert!(pids(&path).is_empty());
    assert!(folder.path().join("processes.damaged-2").exists());
}

#[test]
fn write_that_fails_is_made_up_for_when_there_is_room() {
    let (folder, path) = filled();
    let (mut journal, _) = Journal::open(&path).expect("opens");
    journal.file = Some(Synced::new(File::open(&path).expect("opens to be read alone")).expect("a thread"));
    let before = Instant::now();
    assert!(journal.append(&[began(5)]).is_err());
    assert!(journal.retry_at().is_some_and(|at| at >= before + RETRY_EVERY), "not at once");
    journal.lacks = Some(Instant::now());
    assert!(journal.is_long(), "it wants everything anew");
    journal.append(&[began(6)]).expect("is left out, because it builds on what is missing");
    let path_of_new = folder.path().join("processes.new");
    fs::create_dir(&path_of_new).expect("is in the way");
    assert!(journal.rewrite(&[began(5), began(6)]).is_err());
    assert_eq!(pids(&path), [2, 3, 4], "the file is as it was");
    fs::remove_dir(&path_of_new).expect("is there");
    journal.rewrite(&[began(5), began(6)]).expect("room");
    assert!(!journal.is_long());
    journal.append(&[began(7)]).expect("room");
    assert_eq!(pids(&path), [5, 6, 7]);
}

#[test]
fn journal_that_grows_is_written_anew_at_twice_its_length() {
    let (_folder, path) = filled();
    let (mut journal, _) = Journal::open(&path).expect("opens");
    let big = vec![Entry::Began { pid: Pid(2), uid: 0, name: "x".repeat(1 << 20) }];
    (0..8).for_each(|_| journal.append(&big).expect("room"));
    assert!(journal.is_long());
    let mut many: Vec<Entry> = Vec::new();
    (0..9).for_each(|_| many.extend(big.clone()));
    journal.rewrite(&many).expect("room");
    assert!(!journal.is_long());
    (0..8).for_each(|_| journal.append(&big).expect("room"));
    assert!(!journal.is_long(), "it has not doubled");
    (0..2).for_each(|_| journal.append(&big).expect("room"));
    assert!(journal.is_long());
}

#[test]
fn journal_that_cannot_be_written_anew_goes_on_as_long_as_it_is() {
    let (folder, path) = filled();
    let (mut journal, _) = Journal::open(&path).expect("opens");
    let in_the_way = folder.path().join("processes.new");
    fs::create_dir(&in_the_way).expect("there is room");
    assert!(journal.rewrite(&[began(9)]).is_err());
    assert!(journal.retry_at().is_none() && !journal.is_long(), "not at once");
    journal.append(&[began(5)]).expect("room");
    assert_eq!(pids(&path), [2, 3, 4, 5]);
    journal.put_off = Some(Instant::now());
    assert!(journal.is_long(), "it is tried again");
    fs::remove_dir(&in_the_way).expect("is there");
    journal.rewrite(&[began(9)]).expect("room");
    assert_eq!((pids(&path), journal.is_long()), (vec![9], false));
}

/// What a daemon of version 1 left when it was killed: a persistent process with a message and a child, in the middle of
/// a generation, and one that does not outlive it.
const JOURNAL_1: &[u8] = include_bytes!("../fixtures/processes-1");

#[test]
fn journal_of_version_1_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("processes");
    fs::write(&path, JOURNAL_1).expect("writes");
    let (_, images) = Journal::open(&path).expect("opens");
    assert_eq!(fs::read_dir(folder.path()).expect("reads").count(), 1, "nothing was set aside");
    let names: Vec<&str> = images.processes.values().map(|image| image.name.as_str()).collect();
    assert_eq!(names, ["story", "child"]);
    let story = images.processes.values().next().expect("it is there");
    assert_eq!((story.mailbox.len(), story.uid), (1, 7));
    let context = images.contexts.values().next().expect("it is there");
    assert!(context.log.len() > 20, "{} tokens", context.log.len());
    let head = serde_json::to_value(context).expect("it has a form");
    assert!(head["generation"].is_object(), "{head}");
    assert!(images.running.values().any(|(_, name)| name == "passing"));
    let (mut journal, _) = Journal::open(&path).expect("opens");
    journal.append(&[began(99)]).expect("room");
    assert!(pids(&path).contains(&99), "it goes on in its own version");
    assert!(journal.is_long(), "and is written anew in the newest one");
    journal.rewrite(&[began(9)]).expect("room");
    assert!(!journal.is_long() && fs::read(&path).expect("reads").starts_with(&header(VERSION)));
}

#[test]
fn disk_that_did_not_take_what_was_written_is_made_up_for_whether_anything_changes_or_not() {
    let (_folder, path) = filled();
    let (mut journal, _) = Journal::open(&path).expect("opens");
    // Takes every write, and has no disk behind it that could follow.
    let nowhere = File::options().write(true).open("/dev/null").expect("Linux has it");
    journal.file = Some(Synced::new(nowhere).expect("a thread"));
    journal.append(&[began(5)]).expect("it is taken");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let lacking = async { tokio::time::timeout(Duration::from_secs(60), journal.lacking()).await };
    runtime.block_on(lacking).expect("it is told without another change");
    assert!(journal.append(&[began(5)]).is_err());
    assert!(journal.retry_at().is_some());
    journal.rewrite(&[began(5)]).expect("room");
    assert_eq!((journal.retry_at(), pids(&path)), (None, vec![5]));
}

#[test]
fn damaged_file_that_cannot_be_copied_is_kept_when_it_is_written_anew() {
    let (folder, path) = filled();
    let mut bytes = fs::read(&path).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&path, &bytes).expect("writes");
    let (mut journal, images) = Journal::open(&path).expect("opens");
    // As it is left by an `open` whose copy found no room.
    fs::remove_file(folder.path().join("processes.damaged-1")).expect("is there");
    fs::write(&path, &bytes).expect("writes");
    journal.to_set_aside = true;
    assert_eq!(images.running.len(), 1);
    journal.rewrite(&[began(2)]).expect("room");
    assert_eq!(fs::read(folder.path().join("processes.damaged-1")).expect("it is kept"), bytes);
    assert_eq!(pids(&path), [2]);
}
