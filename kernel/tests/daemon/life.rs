//! The start and the end of the daemon.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use super::harness::{Home, llmasos};

#[test]
fn daemon_ends_on_a_signal_and_removes_its_socket() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let home = Home::new("exit 1");
        let daemon = home.start();
        let _idle = daemon.client();
        daemon.signal(signal);
        assert_eq!(daemon.end().code(), Some(0), "{signal}");
        assert!(!home.path("s").exists(), "{signal}");
    }
}

#[test]
fn daemon_second_is_refused_and_the_first_goes_on() {
    let home = Home::new("exit 1");
    let first = home.start();
    let second = home.command().arg("--data").arg(home.path("other")).output().expect("runs");
    assert_eq!(second.status.code(), Some(2), "an option twice is a usage error");

    let mut command = llmasos();
    command.arg("daemon").arg("--socket").arg(home.path("s")).arg("--data").arg(home.path("other"));
    let second = command.output().expect("runs");
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("another daemon") && said.contains("--socket"), "{said}");

    let mut command = llmasos();
    command.arg("daemon").arg("--socket").arg(home.path("t")).arg("--data").arg(home.path("data"));
    let second = command.output().expect("runs");
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("another daemon") && said.contains("--data"), "{said}");
    first.client().ps().expect("still serves");
}

#[test]
fn daemon_after_a_killed_one_takes_the_stale_socket_over() {
    let home = Home::new("exit 1");
    let daemon = home.start();
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    assert!(home.path("s").exists(), "a killed daemon cannot clean up");
    home.start().client().ps().expect("serves");
}

#[test]
fn daemon_with_a_damaged_store_starts_and_keeps_the_damage() {
    let home = Home::new("exit 1");
    let daemon = home.start();
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    for file in ["db", "conf"] {
        let path = home.path("data/store").join(file);
        let bytes = fs::metadata(&path).expect("the store is on disk").len();
        let mut file = fs::OpenOptions::new().write(true).open(&path).expect("opens");
        file.write_all(&vec![0xa5; usize::try_from(bytes).unwrap().max(64)]).expect("writes");
    }
    home.start().client().ps().expect("serves");
    assert!(home.path("data/store.damaged-1").exists());
}

#[test]
fn configuration_wrong_is_a_usage_error_with_its_place() {
    let home = Home::new("exit 1");
    fs::write(home.path("config.ron"), "(\n    sequences_mx: 4,\n)").expect("writes");
    let output = home.command().output().expect("runs");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("config.ron:2:") && said.contains("did you mean `sequences_max`?"), "{said}");
}

#[test]
fn ready_fd_gets_a_line_when_the_socket_serves() {
    let home = Home::new("exit 1");
    let daemon = home.command();
    // The shell moves the pipe from descriptor 1 to 3.
    let mut starter = Command::new("sh");
    starter.args(["-c", "exec \"$0\" \"$@\" --ready-fd 3 3>&1 1>&2"]).arg(daemon.get_program());
    let mut child = starter.args(daemon.get_args()).stdout(Stdio::piped()).spawn().expect("starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("reads");
    assert_eq!(line, "ready\n");
    assert!(std::os::unix::net::UnixStream::connect(home.path("s")).is_ok());
    child.kill().expect("it runs");
    child.wait().expect("ends");

    let output = home.command().args(["--ready-fd", "99"]).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--ready-fd 99"));
}

#[test]
fn command_line_wrong_is_a_usage_error() {
    let output = llmasos().args(["daemon", "--sokcet", "x"]).output().expect("runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--socket"), "suggests the right flag");
    let output = llmasos().arg("--version").output().expect("runs");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        concat!("llmasos ", env!("CARGO_PKG_VERSION"), "\n")
    );
}
