//! A swap area that is small, full, absent or damaged: contexts are computed again, it is counted and logged, and
//! nobody fails or says anything else. With a real model, whose pages are in real files.

use std::os::unix::fs::{FileExt, symlink};
use std::path::PathBuf;
use std::sync::OnceLock;

use drivers::gguf::TensorType;
use drivers::gguf::random::Shape;
use harness::bench::random::Random;
use harness::said::{Said, assert_same_bits, say};
use harness::{Daemon, process};
use syscalls::call::{Attention, Mount};
use syscalls::client::blocking::Client;
use syscalls::client::mount;
use syscalls::reply::Stats;
use syscalls::{ContextId, Tokens};

const MODEL: &str = "m";

/// Conversations, which take turns.
const PROGRAMS: u64 = 4;

/// Tokens that each adds in a turn, and that are generated then.
const TURN: (u32, u32) = (150, 6);

/// Turns of each.
const TURNS: u32 = 3;

/// Cells for all of them, or for one and a half.
const ROOMY: u32 = 2048;
const TIGHT: u32 = 768;

/// Mounts so that output does not depend on what is computed again, down to the last bit.
fn mount_model(daemon: &Daemon, cells: u32) {
    let path = daemon.dir().join("random.gguf");
    let preset = Shape::preset("tiny").expect("the preset exists");
    // In floats, a page takes many times as long to compute as to load.
    let shape = Shape { kind: TensorType::F32, layers: 3, context: ROOMY, ..preset };
    shape.write(&path).expect("a model can be written");
    let mount = Mount {
        context: Some(Tokens(cells)),
        attention: Attention::Flash,
        threads: Some(1),
        deterministic: true,
        ..mount(path.to_str().expect("UTF-8"), MODEL)
    };
    daemon.client().mount_with(mount, |_| {}).expect("mounts");
}

/// A conversation of each program.
struct Conversations(Vec<(Client, ContextId, Random, Vec<Said>)>);

impl Conversations {
    fn begin(daemon: &Daemon) -> Conversations {
        let begin = |seed| {
            let mut client = daemon.client();
            let context = client.open(Some(MODEL)).expect("opens").context;
            (client, context, Random(seed), Vec::new())
        };
        Conversations((0..PROGRAMS).map(begin).collect())
    }

    /// A turn of each, one after another.
    fn turn(&mut self) {
        for (client, context, random, said) in &mut self.0 {
            client.append_tokens(*context, random.tokens(TURN.0)).expect("appends");
            said.push(say(client, *context, TURN.1));
        }
    }

    fn said(self) -> Vec<Vec<Said>> {
        self.0.into_iter().map(|(.., said)| said).collect()
    }
}

/// What each says where there is room for all.
fn expected() -> &'static Vec<Vec<Said>> {
    static EXPECTED: OnceLock<Vec<Vec<Said>>> = OnceLock::new();
    EXPECTED.get_or_init(|| {
        let daemon = Daemon::start();
        mount_model(&daemon, ROOMY);
        let mut conversations = Conversations::begin(&daemon);
        (0..TURNS).for_each(|_| conversations.turn());
        let stats = stats(&daemon);
        assert_eq!((stats.swap_out_bytes, stats.tokens_recomputed), (0, 0), "{stats:?}");
        conversations.said()
    })
}

fn stats(daemon: &Daemon) -> Stats {
    daemon.client().stat(None, None).expect("counts")
}

/// The disk tier of the model.
fn pages(daemon: &Daemon) -> PathBuf {
    daemon.data().join("swap").join(format!("{MODEL}.pages"))
}

/// Runs all conversations in little memory, with `between` before the last turn of each; checks what they say and
/// that no worker died, and gives the counters.
fn take_turns(daemon: &Daemon, between: impl FnOnce(&Daemon)) -> Stats {
    mount_model(daemon, TIGHT);
    let mut conversations = Conversations::begin(daemon);
    (1..TURNS).for_each(|_| conversations.turn());
    between(daemon);
    conversations.turn();
    for (number, (expected, said)) in expected().iter().zip(conversations.said()).enumerate() {
        assert_same_bits(expected, &said, &format!("conversation {number}"));
    }
    let stats = stats(daemon);
    assert_eq!(stats.worker_restarts, 0, "{stats:?}");
    stats
}

#[test]
fn host_tier_of_no_bytes_leaves_the_disk() {
    let daemon = Daemon::start_configured("(swap_host_bytes: 0)");
    let stats = take_turns(&daemon, |_| {});
    assert_eq!(stats.pages_host, 0, "{stats:?}");
    assert!(stats.pages_disk > 0 && stats.swap_in_bytes > 0, "{stats:?}");
    assert_eq!(stats.pages_corrupted, 0, "{stats:?}");
}

#[test]
fn swap_area_of_no_bytes_lets_everything_be_computed_again() {
    let daemon = Daemon::start_configured("(swap_host_bytes: 0, swap_disk_bytes: 0)");
    let stats = take_turns(&daemon, |_| {});
    assert_eq!((stats.pages_host, stats.pages_disk, stats.swap_out_bytes), (0, 0, 0), "{stats:?}");
    assert!(stats.tokens_recomputed > 0, "{stats:?}");
}

#[test]
fn disk_that_is_full_from_the_start_makes_the_tier_empty() {
    let daemon = Daemon::start_configured("(swap_host_bytes: 0)");
    let file = pages(&daemon);
    std::fs::create_dir_all(file.parent().expect("it is in a folder")).expect("makes a folder");
    symlink("/dev/full", &file).expect("the file is not there yet");
    let stats = take_turns(&daemon, |_| {});
    assert_eq!((stats.pages_disk, stats.swap_out_bytes), (0, 0), "{stats:?}");
    assert!(stats.tokens_recomputed > 0, "{stats:?}");
    let log = daemon.log();
    assert!(log.contains("the disk tier of model m stays at 0 pages"), "{log}");
    assert!(log.contains("No space left on device"), "{log}");
}

#[test]
fn disk_that_fills_up_makes_the_tier_stay_as_it_is() {
    let daemon = Daemon::start_configured("(swap_host_bytes: 0)");
    let stats = take_turns(&daemon, |daemon| {
        let has = stats(daemon).pages_disk;
        assert!(has > 0, "the turns so far have filled memory");
        let bytes = std::fs::metadata(pages(daemon)).expect("the file is there").len();
        let worker = daemon.client().models().expect("lists")[0].worker_os_pid;
        // To a writer, a file that may not grow is as if the disk were full.
        process::limit(worker, libc::RLIMIT_FSIZE, bytes);
    });
    assert!(stats.pages_disk > 0 && stats.swap_in_bytes > 0, "what there is is used: {stats:?}");
    let log = daemon.log();
    assert!(log.contains("the disk tier of model m stays at"), "{log}");
    assert!(log.contains("File too large"), "{log}");
}

#[test]
fn disk_that_is_really_full_makes_the_tier_stay_as_it_is() {
    // Room for the databases and a few pages.
    let Some(daemon) = Daemon::start_on_disk(3 << 20, "(swap_host_bytes: 0)") else { return };
    let stats = take_turns(&daemon, |daemon| daemon.disk().fill());
    assert!(stats.tokens_recomputed > 0, "{stats:?}");
    let log = daemon.log();
    assert!(log.contains("the disk tier of model m stays at"), "{log}");
    assert!(log.contains("No space left on device"), "{log}");
}

#[test]
fn pages_damaged_on_disk_are_computed_again_counted_and_logged() {
    let daemon = Daemon::start_configured("(swap_host_bytes: 0)");
    let stats = take_turns(&daemon, |daemon| {
        assert!(stats(daemon).pages_disk > 0, "the turns so far have filled memory");
        let file = std::fs::File::options().read(true).write(true).open(pages(daemon)).expect("it is there");
        let mut bytes = vec![0; file.metadata().expect("it is open").len() as usize];
        file.read_exact_at(&mut bytes, 0).expect("reads");
        // One bit in each block of the disk, in the midst of headers and of entries alike.
        bytes.chunks_mut(512).for_each(|block| block[block.len() / 2] ^= 0x10);
        file.write_all_at(&bytes, 0).expect("writes");
    });
    assert!(stats.pages_corrupted > 0, "{stats:?}");
    assert!(stats.tokens_recomputed > 0, "{stats:?}");
    let log = daemon.log();
    assert!(log.contains("a saved page of model m is computed again"), "{log}");
    assert!(log.contains("its checksum is wrong"), "{log}");
}
