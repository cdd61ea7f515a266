//! Contexts that are resumed after the daemon was killed or asked to end: with a real model, whose pages are in a real
//! file. What was computed is loaded, what is damaged is computed again, and what is said is the same.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use drivers::gguf::random::Shape;
use drivers::wire::SWAP_SLOTS_AT;
use harness::bench::random::Random;
use harness::said::{ROUNDING_QUANTISED, Said, assert_same_bits, assert_same_but_for_ties, measured};
use harness::{Daemon, starter, wait_for, wait_until};
use syscalls::call::{Attach, Attention, Exit, Generate, Hello, Lifetime, Mount};
use syscalls::client::blocking::Client;
use syscalls::client::{hello, mount};
use syscalls::reply::{GeneratedReply, ModelState, Stats};
use syscalls::{ContextId, Pid, Reply, Token};

/// Tokens of a page, of the prompt, and of each answer.
const PAGE: u32 = 64;
const PROMPT: u32 = 400;
const ANSWER: u32 = 24;

const MODEL: &str = "m";
/// Bytes of a page of the starter model: a key and a value of 160 half floats for each token in each of its five layers.
const PAGE_BYTES: u64 = PAGE as u64 * 5 * 2 * 160 * 2;

fn mount_starter(daemon: &Daemon, deterministic: bool) {
    // Two daemons measure for themselves which attention kernel is the fastest, and need not find the same.
    let attention = Attention::Flash;
    let mount =
        Mount { deterministic, attention, threads: Some(1), ..mount(starter().to_str().unwrap(), MODEL) };
    daemon.client().mount_with(mount, |_| {}).unwrap();
}

/// A persistent process with a prompt and a first answer.
fn begin(daemon: &Daemon, seed: u64) -> (Pid, ContextId, Said) {
    let hello = Hello { lifetime: Lifetime::Persistent, ..hello("story") };
    let mut client = Client::connect_with(&daemon.socket(), hello).unwrap();
    let context = client.open(Some(MODEL)).unwrap().context;
    let letters = Random(seed).tokens(PROMPT).into_iter().map(|t| Token(32 + t.0 % 90)).collect();
    client.append_tokens(context, letters).unwrap();
    let said = client.generate(measured(context, ANSWER), |_| {}).unwrap().into();
    let pid = client.pid();
    client.detach(None).unwrap();
    (pid, context, said)
}

/// The next answer of such a process, from another connection.
fn go_on(daemon: &Daemon, pid: Pid, context: ContextId) -> Said {
    let mut client = daemon.client();
    let Reply::Attached(_) = client.call(Attach { pid, force: true }).unwrap() else { panic!() };
    let call: Generate = measured(context, ANSWER);
    let Reply::Generated(reply) = client.call_as(pid, call).unwrap() else { panic!() };
    let reply: GeneratedReply = reply;
    client.call_as(pid, Exit { status: 0 }).unwrap();
    reply.into()
}

fn stats(daemon: &Daemon) -> Stats {
    daemon.client().stat(None, None).unwrap()
}

fn evaluated(stats: &Stats) -> u64 {
    stats.prompt_tokens_evaluated + stats.tokens_recomputed
}

fn wait_until_ready(daemon: &Daemon) {
    wait_for("the model", || {
        let models = daemon.client().models().unwrap();
        models.iter().any(|m| m.state == ModelState::Ready).then_some(())
    });
}

fn pages_file(daemon: &Daemon) -> PathBuf {
    daemon.data().join(format!("swap/{MODEL}.pages"))
}

/// A daemon with a persistent process whose whole pages are on disk, what it has said, and what it says elsewhere, then and
/// next.
fn begun(deterministic: bool) -> (Daemon, Pid, ContextId, Said, [Said; 2]) {
    let undisturbed = Daemon::start();
    mount_starter(&undisturbed, deterministic);
    let (pid, context, first) = begin(&undisturbed, 1);
    let next = go_on(&undisturbed, pid, context);
    drop(undisturbed);
    let daemon = Daemon::start();
    mount_starter(&daemon, deterministic);
    let (pid, context, said) = begin(&daemon, 1);
    assert!(!deterministic || said == first, "{said:?} here, {first:?} elsewhere");
    let whole = u64::from((PROMPT + ANSWER - 1) / PAGE);
    // Slots count as soon as they are given, and bytes when the worker has written them.
    let bytes = whole * PAGE_BYTES;
    wait_until("the pages on disk", || {
        let stats = stats(&daemon);
        stats.pages_disk >= whole && stats.swap_out_bytes >= bytes
    });
    (daemon, pid, context, said, [first, next])
}

#[test]
fn context_is_loaded_and_not_computed_after_a_kill_and_after_an_orderly_end() {
    for kill in [true, false] {
        let (mut daemon, pid, context, _, [_, next]) = begun(true);
        if kill {
            daemon.kill9();
        } else {
            assert_eq!(daemon.terminate().code(), Some(0));
        }
        let there = fs::metadata(pages_file(&daemon)).unwrap();
        assert_eq!(there.mode() & 0o777, 0o600, "nobody else reads it");
        daemon.restart();
        wait_until_ready(&daemon);
        let said = go_on(&daemon, pid, context);
        assert_same_bits(&[next], &[said], if kill { "after a kill" } else { "after an end" });
        let stats = stats(&daemon);
        assert!(evaluated(&stats) <= u64::from(PAGE), "{stats:?}");
        assert!(stats.swap_in_bytes > 0 && stats.pages_corrupted == 0, "{stats:?}");
    }
}

#[test]
fn text_is_the_same_also_where_the_mount_is_not_deterministic() {
    let (mut daemon, pid, context, said, elsewhere) = begun(false);
    daemon.kill9();
    daemon.restart();
    wait_until_ready(&daemon);
    let said = [said, go_on(&daemon, pid, context)];
    let same = assert_same_but_for_ties(&elsewhere, &said, ROUNDING_QUANTISED, "after a kill");
    assert!(same >= ANSWER as usize, "rounding decided all but {same} tokens");
    assert!(evaluated(&stats(&daemon)) <= u64::from(PAGE), "{:?}", stats(&daemon));
}

#[test]
fn pages_damaged_while_the_daemon_was_away_are_computed_again_counted_and_logged() {
    let (mut daemon, pid, context, _, [_, next]) = begun(true);
    daemon.kill9();
    let file = File::options().read(true).write(true).open(pages_file(&daemon)).unwrap();
    let mut bytes = vec![0; (file.metadata().unwrap().len() - SWAP_SLOTS_AT) as usize];
    file.read_exact_at(&mut bytes, SWAP_SLOTS_AT).unwrap();
    // One bit in each block of the disk, in the midst of headers and of entries alike.
    bytes.chunks_mut(512).for_each(|block| block[block.len() / 2] ^= 0x10);
    file.write_all_at(&bytes, SWAP_SLOTS_AT).unwrap();
    daemon.restart();
    wait_until_ready(&daemon);
    let said = go_on(&daemon, pid, context);
    assert_same_bits(&[next], &[said], "with damaged pages");
    let stats = stats(&daemon);
    assert!(stats.pages_corrupted > 0 && evaluated(&stats) > u64::from(PAGE), "{stats:?}");
    assert!(daemon.log().contains("a saved page of model m is computed again"), "{}", daemon.log());
}

#[test]
fn file_of_another_version_is_dropped_with_a_sentence() {
    let (mut daemon, pid, context, _, [_, next]) = begun(true);
    daemon.kill9();
    let file = File::options().write(true).open(pages_file(&daemon)).unwrap();
    file.write_all_at(&[9], 12).unwrap();
    daemon.restart();
    wait_until_ready(&daemon);
    assert_same_bits(&[next], &[go_on(&daemon, pid, context)], "without pages");
    assert!(evaluated(&stats(&daemon)) >= u64::from(PROMPT), "{:?}", stats(&daemon));
    let log = daemon.log();
    let said = "saved pages of model m are dropped: the file has version 9 and this worker knows 1";
    assert_eq!(log.matches(said).count(), 1, "{log}");
}

#[test]
fn pages_of_another_model_file_are_dropped_with_a_sentence() {
    let (mut daemon, mut pages) = (Daemon::start(), 0);
    for (seed, name) in [(1, "n"), (2, MODEL)] {
        let path = daemon.dir().join(format!("{name}.gguf"));
        Shape { seed, ..Shape::preset("tiny").unwrap() }.write(&path).unwrap();
        daemon.mount(&path, name);
        let hello = Hello { lifetime: Lifetime::Persistent, ..hello("story") };
        let mut client = Client::connect_with(&daemon.socket(), hello).unwrap();
        let context = client.open(Some(name)).unwrap().context;
        client.append_tokens(context, Random(1).tokens(200)).unwrap();
        client.generate(measured(context, 4), |_| {}).unwrap();
        pages += 3;
        wait_until("pages on disk", || stats(&daemon).pages_disk >= pages);
    }
    daemon.kill9();
    fs::copy(daemon.data().join("swap/n.pages"), pages_file(&daemon)).unwrap();
    daemon.restart();
    wait_until("the models", || {
        daemon.client().models().unwrap().iter().all(|m| m.state == ModelState::Ready)
    });
    let said = "saved pages of model m are dropped: they are of another model file";
    assert!(daemon.log().contains(said), "{}", daemon.log());
    assert_eq!(fs::metadata(pages_file(&daemon)).unwrap().len(), 0, "it is emptied");
    assert_eq!(stats(&daemon).pages_disk, 3, "those of the other model are there");
}
