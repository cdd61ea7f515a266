//! A daemon that may open no more files, or start no more threads and processes: what needs one is refused in a
//! sentence or waits, what needs none goes on, and everything works again when it may.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;

use harness::{DEADLINE, Daemon, figure, process, wait_for, wait_until};
use nix::sys::signal::Signal;
use syscalls::client::blocking::Client;
use syscalls::client::mount;
use syscalls::reply::ModelState;

/// A generation that lasts for the whole test.
const MODEL: &str = "row_us=2000,context=4096";
const TOKENS: u32 = 1500;

/// A user who has no processes on any machine that tests run on.
const NOBODY_ELSE: u32 = 61_234;

fn story(client: &mut Client) -> String {
    let context = client.open(Some("m")).expect("opens").context;
    client.append_text(context, "A long story: ").expect("appends");
    client.generate(harness::said::greedy(context, TOKENS), |_| {}).expect("goes on").text
}

/// Lets a neighbour generate while the daemon may have no more than it has of a resource; its worker is killed
/// meanwhile, and must be replaced when there is more again.
fn starved(daemon: &Daemon, limit: impl Fn(u64) -> u64, has: u64, refusal: &str, beside: impl FnOnce()) {
    let mut client = daemon.client();
    let worker = daemon.mount_sim("m", MODEL).worker_os_pid;
    let alone = story(&mut client);
    let before = client.stat(None, None).expect("counts").tokens_generated;
    std::thread::scope(|scope| {
        let mut neighbour = daemon.client();
        let running = scope.spawn(move || story(&mut neighbour));
        wait_until("the neighbour is in the midst", || {
            client.stat(None, None).expect("counts").tokens_generated > before + 20
        });
        let enough = limit(has);
        let fault =
            client.mount_with(mount("sim:", "other"), |_| {}).expect_err("it takes what there is not");
        assert!(fault.message.contains(refusal), "{fault}");
        process::kill(worker, Signal::SIGKILL);
        wait_until("the next worker cannot be started", || {
            let log = daemon.log();
            log.contains("could not be started") && log.contains(refusal)
        });
        beside();
        client.ps().expect("who is connected is served");
        limit(enough);
        assert_eq!(running.join().expect("no panic"), alone);
        wait_until("the model is well", || {
            client.models().expect("lists").iter().any(|m| m.name == "m" && m.state == ModelState::Ready)
        });
        client.mount_with(mount("sim:", "other"), |_| {}).expect("there is enough again");
    });
}

#[test]
fn files_that_are_used_up_make_newcomers_wait_and_nobody_else() {
    let daemon = Daemon::start();
    // Fewer than it has, so that those of the dead worker are not enough for the next one.
    let files = process::open_files(daemon.os_pid()) as u64 - 8;
    let mut waiting = Vec::new();
    let limit = |files| process::limit(daemon.os_pid(), libc::RLIMIT_NOFILE, files);
    starved(&daemon, limit, files, "Too many open files", || {
        wait_until("newcomers have to wait", || {
            waiting.push(UnixStream::connect(daemon.socket()).expect("the system queues it"));
            daemon.log().contains("no connection can be accepted")
        });
    });
    // The system refuses a file before it looks whether somebody waits for one, so perhaps nobody does.
    daemon.client().sysinfo().expect("newcomers are served again");
    wait_until("it is said", || daemon.log().contains("connections are accepted again"));
    let newcomers = format!("a mount refused, {} newcomers made wait and served later", waiting.len());
    figure("files used up", &format!("{newcomers}, {TOKENS} tokens beside them unchanged"));
}

/// What the starter model says while its daemon may open no more files for a while, which takes a worker away.
#[test]
fn model_of_a_file_outlives_files_that_are_used_up() {
    let daemon = Daemon::start();
    let starter = harness::workspace().join("drivers/starter/starter.gguf");
    let worker = daemon.mount(&starter, "m").worker_os_pid;
    let mut client = daemon.client();
    let model = |client: &mut Client| client.models().expect("lists").remove(0);
    let files = process::open_files(daemon.os_pid()) as u64 - 8;
    let enough = process::limit(daemon.os_pid(), libc::RLIMIT_NOFILE, files);
    process::kill(worker, Signal::SIGKILL);
    wait_until("the next worker cannot be started", || {
        let log = daemon.log();
        log.contains("no worker can be had for model m") && log.contains("Too many open files")
    });
    assert_eq!(model(&mut client).state, ModelState::Restarting, "{}", daemon.log());
    process::limit(daemon.os_pid(), libc::RLIMIT_NOFILE, enough);
    wait_until("the model is well", || {
        let model = model(&mut client);
        assert_ne!(model.state, ModelState::Offline, "{:?}", model.trouble);
        model.state == ModelState::Ready
    });
    let context = client.open(Some("m")).expect("opens").context;
    client.append_text(context, "Once upon a time").expect("appends");
    client.generate(harness::said::greedy(context, 5), |_| {}).expect("it generates");
}

#[test]
fn threads_that_are_used_up_refuse_a_mount_and_nobody_else() {
    let Some(daemon) = Daemon::start_as_user(NOBODY_ELSE) else { return };
    let limit = |processes| process::limit_processes_of(NOBODY_ELSE, daemon.os_pid(), processes);
    starved(&daemon, limit, 1, "Resource temporarily unavailable", || {});
    figure(
        "threads used up",
        &format!("a mount refused and later taken, {TOKENS} tokens beside it unchanged"),
    );
}

#[test]
fn connections_beyond_the_files_are_turned_away_in_a_sentence() {
    let daemon = Daemon::start_under(&["prlimit", "--nofile=128:128", "--"]);
    let place = || wait_for("a place", || Client::connect(&daemon.socket(), "test").ok());
    let mut first = place();
    let clients: Vec<Client> = (0..7).map(|_| place()).collect();
    let one_more = UnixStream::connect(daemon.socket()).expect("connects");
    one_more.set_read_timeout(Some(DEADLINE)).expect("a duration");
    let mut line = String::new();
    BufReader::new(one_more).read_line(&mut line).expect("is told");
    assert!(line.contains("EMFILE") && line.contains("8 of 8 connections are open"), "{line}");
    assert!(line.contains("LimitNOFILE"), "{line}");
    first.mount("sim:", "m", |_| {}).expect("there are files for a worker all the same");
    figure("connections used up", "8 of 8 open, one more turned away in a sentence and admitted later");
    drop(clients);
    wait_until("there is room", || Client::connect(&daemon.socket(), "late").is_ok());
}
