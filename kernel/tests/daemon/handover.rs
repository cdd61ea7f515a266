//! From one daemon to the next: who connects while one ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use syscalls::{Frame, Reply};

use super::harness::{DEADLINE, Home, wait_until};

/// What came of asking who is there.
enum Knock {
    /// No daemon listens.
    Nobody,
    /// The connection ended before anything was said.
    Ended,
    Served,
}

/// Connects, says hello and asks at once, so that what becomes of it is the daemon's doing alone.
fn knock(socket: &Path) -> Knock {
    let Ok(mut stream) = UnixStream::connect(socket) else { return Knock::Nobody };
    stream.set_read_timeout(Some(DEADLINE)).expect("a duration");
    let asked = b"{\"id\":1,\"call\":\"hello\",\"args\":{\"version\":1}}\n{\"id\":2,\"call\":\"ps\"}\n";
    // Where it fails, the connection has ended; what was said before is there all the same.
    let _ = stream.write_all(asked);
    let lines: Vec<String> = BufReader::new(stream).lines().map_while(Result::ok).take(2).collect();
    let frames: Vec<Frame> =
        lines.iter().map(|line| Frame::from_line(line.as_bytes()).expect("a frame")).collect();
    match &frames[..] {
        [] => Knock::Ended,
        [Frame::Reply(_, Ok(Reply::Hello(_))), Frame::Reply(_, Ok(Reply::Processes(_)))] => Knock::Served,
        others => panic!("half served: {others:?}"),
    }
}

/// Programs that knock all the time, and for how long at most.
const KNOCKERS: usize = 8;
const KNOCKING_MAX: Duration = DEADLINE.saturating_mul(4);

/// Knocks until nobody is there, or it is `done`, and counts how often it was served. Gives whether somebody was
/// there always.
fn knock_on(socket: &Path, served: &AtomicUsize, done: &AtomicBool) -> bool {
    let begin = Instant::now();
    while !done.load(Ordering::Relaxed) && begin.elapsed() < KNOCKING_MAX {
        match knock(socket) {
            Knock::Nobody => return false,
            Knock::Ended => {}
            Knock::Served => {
                served.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    true
}

#[test]
fn daemon_that_ends_serves_who_has_connected_or_lets_him_go_without_a_word() {
    let home = Home::new("exit 1");
    let (daemon, socket) = (home.start(), home.path("s"));
    let mut silent = daemon.raw();
    let (served, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..KNOCKERS {
            scope.spawn(|| knock_on(&socket, &served, &done));
        }
        wait_until("some are served", || (served.load(Ordering::Relaxed) > 100).then_some(()));
        daemon.signal(Signal::SIGTERM);
    });
    let mut said = vec![];
    // An error is an end, too, and what was said comes before it.
    let _ = silent.stream.read_to_end(&mut said);
    assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
    assert!(daemon.end().success());
}

#[test]
fn daemon_that_the_service_manager_replaces_leaves_nobody_without_one() {
    let home = Home::new("exit 1");
    let socket = home.path("s");
    let listener = UnixListener::bind(&socket).expect("the name is free");
    let (served, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut daemon = home.start_activated(&listener);
    let was_there = thread::scope(|scope| {
        let knockers: Vec<_> =
            (0..KNOCKERS).map(|_| scope.spawn(|| knock_on(&socket, &served, &done))).collect();
        for _ in 0..3 {
            let enough = served.load(Ordering::Relaxed) + 100;
            wait_until("some are served", || (served.load(Ordering::Relaxed) > enough).then_some(()));
            terminate(&daemon);
            assert!(daemon.wait().expect("ends").success());
            daemon = home.start_activated(&listener);
        }
        done.store(true, Ordering::Relaxed);
        knockers.into_iter().map(|knocker| knocker.join().unwrap_or(false)).collect::<Vec<bool>>()
    });
    terminate(&daemon);
    assert!(daemon.wait().expect("ends").success());
    assert_eq!(was_there, [true; KNOCKERS]);
}

fn terminate(daemon: &Child) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.id()).expect("a process number"));
    nix::sys::signal::kill(pid, Signal::SIGTERM).expect("it runs");
}
