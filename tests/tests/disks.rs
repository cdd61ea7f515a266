//! Real disks that are full or read-only: what was acknowledged stays and can be read, what cannot be written is
//! refused in one sentence, the daemon lives, and everything works again when the disk does, without a restart.

use std::fs::File;
use std::process::Stdio;
use std::time::Instant;

use harness::{DEADLINE, Daemon, figure, wait_until};
use serde_json::{Value, json};
use syscalls::call::{
    AtLimit, Attach, Exit, Follow, Hello, Lifetime, Limit, Setlimit, Signal, StoreGet, StorePut,
};
use syscalls::client::blocking::Client;
use syscalls::client::hello;
use syscalls::reply::{GeneratedReply, ProcessState};
use syscalls::{Errno, Fault, Pid, Reply};

/// Room for the two databases with some values, and not for much more.
const DISK_BYTES: u64 = 12 << 20;

/// A model whose generation takes long enough to meet a full disk.
const MODEL: &str = "step_us=1000,context=2048";

/// Tokens of a story: more than one block of the disk has room for in the journal.
const TOKENS: u32 = 1200;

fn put(client: &mut Client, key: &str, value: Value) -> Result<(), Fault> {
    client.call(StorePut { store: "notes".into(), key: key.into(), value }).map(drop)
}

fn get(client: &mut Client, key: &str) -> Option<Value> {
    match client.call(StoreGet { store: "notes".into(), key: key.into() }).expect("reads go on") {
        Reply::Value(value) => value,
        other => panic!("{other:?}"),
    }
}

/// Checks that all these values are there.
fn assert_kept(client: &mut Client, acknowledged: usize) {
    for n in 0..acknowledged {
        assert_eq!(
            get(client, &n.to_string()),
            Some(json!(n)),
            "value {n} of {acknowledged} was acknowledged"
        );
    }
}

fn refused(fault: &Fault, errno: Errno, advice: &str) {
    assert_eq!(fault.errno, errno, "{fault}");
    assert!(fault.message.contains(advice), "{fault}");
}

/// Lets a persistent process begin a story, and leaves it.
fn begin_story(daemon: &Daemon) -> Pid {
    begin_story_of(daemon, |_| {})
}

/// The same, with something done to the process before.
fn begin_story_of(daemon: &Daemon, before: impl FnOnce(&mut Client)) -> Pid {
    let hello = Hello { lifetime: Lifetime::Persistent, ..hello("story") };
    let mut client = Client::connect_with(&daemon.socket(), hello).expect("connects");
    before(&mut client);
    let context = client.open(Some("m")).expect("opens").context;
    client.append_text(context, "Once upon a time").expect("appends");
    client.start(harness::said::greedy(context, TOKENS)).expect("starts");
    client.detach(None).expect("leaves it");
    client.pid()
}

/// A limit at which a process stops, and goes on when it is raised.
fn stop_at(pid: Pid, tokens: u64) -> Setlimit {
    Setlimit { pid, limit: Limit::GeneratedTokens, value: Some(tokens), then: Some(AtLimit::Stop) }
}

/// What a story came to.
fn read_story(daemon: &Daemon, pid: Pid) -> GeneratedReply {
    let mut client = daemon.client();
    client.set_timeout(Some(DEADLINE)).expect("a duration");
    let Reply::Attached(attached) = client.call(Attach { pid, force: true }).expect("is there") else {
        panic!()
    };
    let follow = Follow { call: attached.calls[0].ticket, replay: false };
    let id = client.start_as(pid, follow).expect("follows");
    let Reply::Generated(reply) = client.finish(id, |_| {}).expect("ends") else { panic!() };
    client.call_as(pid, Exit { status: 0 }).expect("ends");
    // The daemon draws a seed for each, which choosing the likeliest token does not use.
    GeneratedReply { usage: Default::default(), seed: 0, ..reply }
}

fn generated(daemon: &Daemon) -> u64 {
    daemon.client().stat(None, None).expect("counts").tokens_generated
}

/// Nothing was taken for damage.
fn assert_nothing_aside(daemon: &Daemon) {
    let names = daemon.disk().names();
    assert!(names.iter().all(|name| !name.contains("damaged")), "{names:?}");
}

#[test]
fn disk_that_fills_up_costs_the_writes_and_heals_without_a_restart() {
    let Some(mut daemon) = Daemon::start_on_disk(DISK_BYTES, "()") else { return };
    let mut client = daemon.client();
    let mut acknowledged = 20;
    (0..acknowledged).for_each(|n| put(&mut client, &n.to_string(), json!(n)).expect("there is room"));
    daemon.disk().fill();
    // What the database has allocated already takes some more.
    let fault = loop {
        match put(&mut client, &acknowledged.to_string(), json!(acknowledged)) {
            Ok(()) => acknowledged += 1,
            Err(fault) => break fault,
        }
    };
    refused(&fault, Errno::ENOSPC, "make room on the disk");
    assert_kept(&mut client, acknowledged);
    daemon.mount_sim("m", MODEL);
    let story = read_story(&daemon, begin_story(&daemon));
    assert_kept(&mut client, acknowledged);
    refused(&put(&mut client, "x", json!(1)).expect_err("is full"), Errno::ENOSPC, "make room");

    daemon.disk().make_room();
    put(&mut client, "after", json!("works")).expect("there is room again");
    // A record that could not be written is written before the next one.
    daemon.mount_sim("late", "");
    drop(client);
    daemon.kill9();
    daemon.restart();
    let mut client = daemon.client();
    assert_kept(&mut client, acknowledged);
    assert_eq!(get(&mut client, "after"), Some(json!("works")));
    let models = daemon.client().models().expect("lists");
    assert!(models.iter().any(|m| m.name == "m"), "the mount was kept when there was room");
    assert_eq!(read_story(&daemon, begin_story(&daemon)), story);
    assert_nothing_aside(&daemon);
    let kept = format!("{} acknowledged values kept, {TOKENS} tokens generated meanwhile", acknowledged + 1);
    figure("disk that fills up", &format!("{kept}, the first write after there was room is taken"));
}

/// Starts a daemon on a disk that refuses writes, and lets it be written later.
fn started_on_a_disk_that_refuses(
    what: &str,
    protect: impl Fn(&Daemon),
    errno: Errno,
    advice: &str,
    open: impl Fn(&Daemon),
) {
    let Some(mut daemon) = Daemon::start_on_disk(DISK_BYTES, "()") else { return };
    daemon.mount_sim("m", MODEL);
    let story = read_story(&daemon, begin_story(&daemon));
    let mut client = daemon.client();
    let acknowledged = 20;
    (0..acknowledged).for_each(|n| put(&mut client, &n.to_string(), json!(n)).expect("there is room"));
    let before = generated(&daemon);
    let pid = begin_story(&daemon);
    wait_until("a part of the story", || generated(&daemon) > before + 20);
    drop(client);
    daemon.kill9();
    protect(&daemon);
    daemon.restart();

    assert_nothing_aside(&daemon);
    let mut client = daemon.client();
    assert_kept(&mut client, acknowledged);
    refused(&put(&mut client, "x", json!(1)).expect_err("refused"), errno, advice);
    assert_kept(&mut client, acknowledged);
    assert_eq!(read_story(&daemon, pid), story, "it goes on where it was");

    let before = generated(&daemon);
    let pid = begin_story(&daemon);
    wait_until("a part of a story that no disk has", || generated(&daemon) > before + 20);
    open(&daemon);
    let opened = Instant::now();
    wait_until("processes are kept again", || {
        daemon.log().contains("the journal of processes is written again")
    });
    let healed = opened.elapsed();
    put(&mut client, "after", json!("works")).expect("it can be written again");
    daemon.kill9();
    daemon.restart();
    let mut client = daemon.client();
    assert_kept(&mut client, acknowledged);
    assert_eq!(get(&mut client, "after"), Some(json!("works")));
    assert_eq!(read_story(&daemon, pid), story);
    assert_nothing_aside(&daemon);
    let kept = format!("{} acknowledged values and 2 processes of {TOKENS} tokens kept", acknowledged + 1);
    figure(
        &format!("start on a {what} disk"),
        &format!("{kept}, writes again after {} ms", healed.as_millis()),
    );
}

#[test]
fn daemon_started_on_a_full_disk_serves_what_was_acknowledged_and_heals() {
    let (fill, empty) = (|d: &Daemon| d.disk().fill(), |d: &Daemon| d.disk().make_room());
    started_on_a_disk_that_refuses("full", fill, Errno::ENOSPC, "make room on the disk", empty);
}

#[test]
fn daemon_started_on_a_read_only_disk_serves_what_was_acknowledged_and_heals() {
    let open = |daemon: &Daemon| {
        assert!(daemon.log().contains("what it has is read from a copy in memory"), "{}", daemon.log());
        daemon.disk().set_read_only(false);
    };
    let protect = |daemon: &Daemon| daemon.disk().set_read_only(true);
    started_on_a_disk_that_refuses("read-only", protect, Errno::EROFS, "make the data folder writable", open);
}

#[test]
fn persistent_process_on_a_disk_that_fills_up_goes_on_and_is_kept_again() {
    let Some(mut daemon) = Daemon::start_on_disk(DISK_BYTES, "()") else { return };
    daemon.mount_sim("m", MODEL);
    let story = read_story(&daemon, begin_story(&daemon));
    // It stands until the disk is full, however long that takes.
    let pid = begin_story_of(&daemon, |client| {
        client.call(stop_at(client.pid(), 20)).expect("its own limit");
    });
    let mut client = daemon.client();
    wait_until("it stands", || {
        let processes = client.ps().expect("lists");
        processes.iter().any(|p| p.pid == pid && p.state == ProcessState::Stopped)
    });
    daemon.disk().fill();
    client.call(stop_at(pid, u64::from(TOKENS) + 1)).expect("the daemon's user may");
    client.kill(pid, Signal::Cont).expect("it is there");
    wait_until("the journal finds no room", || {
        daemon.log().contains("processes do not outlive the daemon until it can")
    });
    // The other half is the first story.
    let (before, all) = (generated(&daemon), 2 * u64::from(TOKENS));
    wait_until("it goes on all the same", || generated(&daemon) >= all.min(before + 10));
    drop(client);
    daemon.disk().make_room();
    wait_until("it is kept again", || daemon.log().contains("the journal of processes is written again"));
    daemon.kill9();
    daemon.restart();
    assert_eq!(read_story(&daemon, pid), story);
}

#[test]
fn log_on_a_full_disk_costs_its_lines_alone() {
    let daemon =
        Daemon::start_logging_to(File::options().write(true).open("/dev/full").expect("Linux has it"));
    daemon.mount_sim("m", "die_on_text=poison");
    let mut client = daemon.client();
    let context = client.open(None).expect("opens").context;
    let died = client
        .append_text(context, "poison")
        .and_then(|_| client.generate(harness::said::greedy(context, 5), |_| {}).map(drop));
    assert_eq!(died.expect_err("it kills its worker, which is logged").errno, Errno::EIO);
    read_story(&daemon, begin_story(&daemon));
}

#[test]
fn recording_on_a_full_disk_ends_with_one_sentence() {
    let daemon = Daemon::start();
    let mut command = daemon.command("llmasos");
    command.args(["timeline", "/dev/full", "--seconds", "1"]).stdin(Stdio::null());
    let output = command.output().expect("llmasos can be started");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("/dev/full cannot be written: No space left on device"), "{errors}");
    assert_eq!(errors.trim().lines().count(), 1, "{errors}");
}
