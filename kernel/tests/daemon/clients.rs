//! Clients, the good and the bad.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use syscalls::call::{Call, Ps, Sysinfo, Wait};
use syscalls::limits::{CALLS_IN_FLIGHT_MAX, LINE_BYTES_MAX};
use syscalls::reply::{NO_CALL, Reply};
use syscalls::{CallId, Errno, Frame, Request};

use super::harness::{DEADLINE, Daemon, Home, Raw, not_checked, wait_until};

/// More memory than a daemon needs that has dropped what it should.
const MEMORY_MAX: u64 = 64 << 20;

fn daemon() -> (Home, Daemon) {
    let home = Home::new("exit 1");
    let daemon = home.start();
    (home, daemon)
}

fn greet(raw: &mut Raw) {
    raw.send(b"{\"id\":1,\"call\":\"hello\",\"args\":{\"version\":1,\"name\":\"raw\"}}\n");
    assert!(matches!(raw.frame(), Frame::Reply(CallId(1), Ok(Reply::Hello(_)))));
}

/// The fault of a reply, with its id.
fn fault(frame: Frame) -> (CallId, Errno, String) {
    match frame {
        Frame::Reply(id, Err(fault)) => (id, fault.errno, fault.message),
        other => panic!("unexpected {other:?}"),
    }
}

fn assert_serves(raw: &mut Raw) {
    raw.send(b"{\"id\":77,\"call\":\"ps\"}\n");
    assert!(matches!(raw.frame(), Frame::Reply(CallId(77), Ok(Reply::Processes(_)))));
}

#[test]
fn hello_creates_a_process_of_the_clients_user() {
    let (home, daemon) = daemon();
    let mut client = daemon.client();
    let info = client.sysinfo().unwrap();
    assert_eq!(info.socket, home.path("s").to_string_lossy());
    assert_eq!(client.daemon().uid, nix::unistd::getuid().as_raw());
    let own = client.pid();
    let processes = client.ps().unwrap();
    let process = processes.iter().find(|p| p.pid == own).expect("is listed");
    assert_eq!((process.name.as_str(), process.os_pid), ("test", std::process::id()));
}

#[test]
fn example_of_the_manual_runs_in_python() {
    let manual = include_str!("../../../syscalls/README.md");
    let example =
        manual.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).expect("is there");
    let (home, _daemon) = daemon();
    let mut python = std::process::Command::new("python3");
    let output = match python.args(["-c", example]).env("LLMASOS_SOCKET", home.path("s")).output() {
        Ok(output) => output,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return not_checked("the manual's example: no python3 here");
        }
        Err(e) => panic!("{e}"),
    };
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        printed,
        concat!(env!("CARGO_PKG_VERSION"), "\n[]\n"),
        "{:?}",
        String::from_utf8(output.stderr)
    );
}

#[test]
fn line_too_long_is_dropped_and_the_connection_goes_on() {
    let (_home, daemon) = daemon();
    let mut raw = daemon.raw();
    greet(&mut raw);
    let chunk = vec![b'x'; 1 << 20];
    (0..100).for_each(|_| raw.send(&chunk));
    raw.send(b"\n");
    let (id, errno, message) = fault(raw.frame());
    assert_eq!((id, errno), (NO_CALL, Errno::EMSGSIZE));
    let size = (100 << 20) + 1;
    assert!(
        message.contains(&size.to_string()) && message.contains(&LINE_BYTES_MAX.to_string()),
        "{message}"
    );
    assert_serves(&mut raw);
    let resident = daemon.resident_bytes();
    assert!(resident < MEMORY_MAX, "{resident} bytes resident");
}

#[test]
fn nonsense_is_answered_and_the_connection_goes_on() {
    let (_home, daemon) = daemon();
    let mut raw = daemon.raw();
    greet(&mut raw);
    let cases: [(&[u8], u64, Errno); 8] = [
        (b"GET / HTTP/1.1\n", 0, Errno::EPROTO),
        (b"\n", 0, Errno::EPROTO),
        (b"{\"id\":2\n", 0, Errno::EPROTO),
        (b"\xff\xfe\n", 0, Errno::EPROTO),
        (b"{\"call\":\"ps\"}\n", 0, Errno::EPROTO),
        (b"{\"id\":6,\"call\":\"pss\"}\n", 6, Errno::ENOSYS),
        (b"{\"id\":7,\"call\":\"kill\",\"args\":{\"pid\":\"x\"}}\n", 7, Errno::EINVAL),
        (b"{\"id\":8,\"call\":\"open\",\"args\":{\"modle\":\"x\"}}\n", 8, Errno::EINVAL),
    ];
    for (line, id, expected) in cases {
        raw.send(line);
        let (answered, errno, message) = fault(raw.frame());
        assert_eq!((answered, errno), (CallId(id), expected), "{message}");
    }
    assert_serves(&mut raw);
}

#[test]
fn client_that_leaves_takes_its_process_with_it() {
    let (_home, daemon) = daemon();
    let gone = daemon.client();
    let pid = gone.pid();
    drop(gone);
    let mut client = daemon.client();
    wait_until("the process is gone", || client.ps().unwrap().iter().all(|p| p.pid != pid).then_some(()));
}

#[test]
fn client_that_never_reads_is_held_up_and_others_are_served() {
    let (_home, daemon) = daemon();
    let mut deaf = daemon.raw();
    deaf.stream.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let line =
        b"{\"id\":1,\"call\":\"hello\",\"args\":{\"version\":1}}\n{\"id\":2,\"call\":\"ps\"}\n".repeat(100);
    let mut blocked_since = None;
    // Blocked for as long as another client needs for some calls: the daemon has stopped reading.
    while blocked_since.is_none_or(|calls| calls < 50) {
        match deaf.stream.write(&line) {
            Ok(bytes) => {
                sent += bytes;
                blocked_since = None;
                assert!(sent < 1 << 30, "the daemon reads for ever");
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                daemon.client().ps().unwrap();
                blocked_since = Some(blocked_since.unwrap_or(0) + 1);
            }
            Err(e) => panic!("{e}"),
        }
    }
    let resident = daemon.resident_bytes();
    assert!(resident < MEMORY_MAX, "{resident} bytes resident");

    // When it reads after all, everything is there and the daemon reads on.
    deaf.stream.set_nonblocking(false).unwrap();
    deaf.stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut buffer = vec![0; 1 << 16];
    let mut read = 0;
    while read < 8 << 20 && read < sent {
        let bytes = deaf.stream.read(&mut buffer).expect("answers come");
        assert_ne!(bytes, 0, "the daemon closed the connection after {read} bytes");
        read += bytes;
    }
}

#[test]
fn calls_too_many_in_flight_are_refused_one_by_one() {
    let (_home, daemon) = daemon();
    let mut client = daemon.client();
    let child = client.spawn("child").unwrap();
    let waiting: Vec<CallId> = (0..CALLS_IN_FLIGHT_MAX)
        .map(|_| client.start(Wait { pid: Some(child), timeout_ms: None }).unwrap())
        .collect();
    let refused = client.call(Ps { all: false }).expect_err("one too many");
    assert_eq!(refused.errno, Errno::EAGAIN);
    assert!(refused.message.contains(&CALLS_IN_FLIGHT_MAX.to_string()), "{refused}");
    // Nothing but the end of the child frees a place, and another client can see to that.
    daemon.client().kill(child, syscalls::call::Signal::Kill).unwrap();
    waiting.into_iter().for_each(|id| drop(client.finish(id, |_| {})));
    assert!(client.call(Ps { all: false }).is_ok());
}

#[test]
fn requests_sent_in_one_write_are_answered_in_order() {
    let (_home, daemon) = daemon();
    let mut raw = daemon.raw();
    greet(&mut raw);
    let call = |id| Request { id: CallId(id), pid: None, call: Call::Sysinfo(Sysinfo {}) }.to_line().unwrap();
    let lines: Vec<u8> = (10..1010).flat_map(call).collect();
    raw.send(&lines);
    for id in 10..1010 {
        assert!(matches!(raw.frame(), Frame::Reply(answered, Ok(_)) if answered == CallId(id)));
    }
}

#[test]
fn client_that_closes_its_sending_side_gets_the_answers_so_far() {
    let (_home, daemon) = daemon();
    let mut raw = daemon.raw();
    raw.send(b"{\"id\":1,\"call\":\"hello\",\"args\":{\"version\":1}}\n{\"id\":2,\"call\":\"ps\"}\n");
    raw.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(matches!(raw.frame(), Frame::Reply(CallId(1), Ok(Reply::Hello(_)))));
    assert!(matches!(raw.frame(), Frame::Reply(CallId(2), Ok(Reply::Processes(_)))));
}

#[test]
fn client_that_ends_in_the_middle_of_a_line_is_forgotten() {
    let (_home, daemon) = daemon();
    let mut raw = daemon.raw();
    raw.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    raw.send(b"{\"id\":1,\"call\":\"hel");
    drop(raw);
    daemon.client().ps().unwrap();
}
