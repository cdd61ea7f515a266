//! The start and the end of the daemon.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use syscalls::Reply;
use syscalls::call::{Output, Spawn, StorePut, Wait};

use super::harness::{DEADLINE, Daemon, Home, READY_WORKER, llmasos, not_checked, wait_until};

#[test]
fn daemon_ends_on_a_signal_and_removes_its_socket() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
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

/// Everything below a folder.
fn all_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("reads").path()) {
        if entry.is_dir() {
            all_below(&entry, found);
        }
        found.push(entry);
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("exists").permissions().mode() & 0o777
}

/// Starts a daemon as somebody does whose files all may read.
fn start_carelessly(home: &Home) -> Daemon {
    home.start_with(|command| {
        // SAFETY: between fork and exec the closure makes one system call.
        unsafe {
            command.pre_exec(|| {
                nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
                Ok(())
            });
        }
    })
}

#[test]
fn files_in_the_data_folder_are_for_the_daemons_user_alone() {
    let home = Home::new(READY_WORKER);
    fs::create_dir(home.path("data")).expect("the name is free");
    fs::set_permissions(home.path("data"), Permissions::from_mode(0o755)).expect("sets");
    let daemon = start_carelessly(&home);
    let mut client = daemon.client();
    client.mount("sim:", "m", |_| {}).expect("mounts");
    let put = StorePut { store: "s".into(), key: "k".into(), value: "v".into() };
    client.call(put).expect("keeps it");
    assert_eq!(mode(&home.path("data")), 0o700);
    let mut found = vec![];
    all_below(&home.path("data"), &mut found);
    let of = |name: &str| found.iter().any(|path| path.starts_with(home.path("data").join(name)));
    assert!(["lock", "processes", "store", "values"].into_iter().all(of), "{found:?}");
    for path in found {
        // A database removes files of its own when they are of no use any more.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        assert_eq!(metadata.permissions().mode() & 0o077, 0, "{} can be read by others", path.display());
    }
}

#[test]
fn program_outside_the_jail_has_the_umask_of_whoever_started_the_daemon() {
    let home = Home::new("exit 1");
    let daemon = start_carelessly(&home);
    let mut client = daemon.client();
    let argv = ["/bin/sh", "-c", "umask"].map(str::to_owned).to_vec();
    let Ok(Reply::Spawned { pid }) = client.call(Spawn { argv, ..syscalls::client::spawn("program") }) else {
        panic!("it does not start");
    };
    client.call(Wait { pid: Some(pid), timeout_ms: None }).expect("it ends");
    match client.call(Output { pid, lines: None, follow: false }).expect("it is the caller's") {
        Reply::Output(output) => assert_eq!(output.lines[0].text, "0022"),
        other => panic!("unexpected {other:?}"),
    }
}

/// What a daemon says that does not start.
fn refused(home: &Home) -> String {
    let output = home.command().output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn data_folder_that_others_write_to_is_refused() {
    let home = Home::new("exit 1");
    fs::create_dir(home.path("data")).expect("the name is free");
    fs::set_permissions(home.path("data"), Permissions::from_mode(0o775)).expect("sets");
    let said = refused(&home);
    assert!(said.contains("mode 775") && said.contains("chmod go-w") && said.contains("--data"), "{said}");
}

#[test]
fn data_folder_of_somebody_else_is_refused() {
    if !nix::unistd::getuid().is_root() {
        return not_checked("folders of somebody else: only root can give one away");
    }
    let home = Home::new("exit 1");
    fs::create_dir(home.path("data")).expect("the name is free");
    if let Err(e) = std::os::unix::fs::chown(home.path("data"), Some(64_321), None) {
        return not_checked(&format!("folders of somebody else: this root can give none away: {e}"));
    }
    let said = refused(&home);
    assert!(said.contains("user 64321") && said.contains("--data"), "{said}");
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
    assert!(UnixStream::connect(home.path("s")).is_ok());
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

#[test]
fn configuration_is_read_again_on_hup_and_a_wrong_one_changes_nothing() {
    let home = Home::new("exit 1");
    let config = fs::read_to_string(home.path("config.ron")).expect("reads");
    let policy = |client: &mut syscalls::client::blocking::Client| client.sysinfo().expect("answers").policy;
    let write =
        |more: &str| fs::write(home.path("config.ron"), config.replacen('(', &format!("({more}, "), 1));
    let daemon = home.start();
    let mut client = daemon.client();
    assert_eq!(policy(&mut client), "fair");
    write("policy: \"fifo\"").expect("writes");
    daemon.signal(Signal::SIGHUP);
    wait_until("the policy is the new one", || (policy(&mut client) == "fifo").then_some(()));
    write("policy: \"lottery\"").expect("writes");
    daemon.signal(Signal::SIGHUP);
    write("policy: \"rr\"").expect("writes");
    daemon.signal(Signal::SIGHUP);
    wait_until("the daemon goes on", || (policy(&mut client) == "rr").then_some(()));
}

#[test]
fn socket_of_the_service_manager_is_served_and_stays() {
    let home = Home::new("exit 1");
    let listener = UnixListener::bind(home.path("s")).expect("the name is free");
    let mut child = home.start_activated(&listener);
    let mut client = syscalls::client::blocking::Client::connect(&home.path("s"), "test").expect("it serves");
    client.ps().expect("answers");
    client.call(syscalls::call::Shutdown {}).expect("the user may");
    assert!(child.wait().expect("ends").success());
    assert!(home.path("s").exists(), "the socket is the manager's");
}

#[test]
fn watchdog_is_fed_by_the_loop_and_status_lines_come() {
    let home = Home::new("exit 1");
    let socket = UnixDatagram::bind(home.path("n")).expect("the name is free");
    socket.set_read_timeout(Some(DEADLINE)).expect("a duration");
    let daemon = home.command();
    // As the service manager does: the process knows that it is meant.
    let mut starter = Command::new("sh");
    starter.args(["-c", "export WATCHDOG_PID=$$; exec \"$0\" \"$@\""]).arg(daemon.get_program());
    starter.args(daemon.get_args()).env("NOTIFY_SOCKET", home.path("n")).env("WATCHDOG_USEC", "30000");
    let mut child = starter.spawn().expect("starts");
    let mut words = [0; 512];
    let mut next = || {
        let bytes = socket.recv(&mut words).expect("the daemon speaks");
        String::from_utf8_lossy(&words[..bytes]).into_owned()
    };
    let (mut fed, mut ready, mut status) = (0, false, false);
    // A line of status that finds no room in the socket is left out, and the next one comes seconds later.
    let deadline = Instant::now() + DEADLINE;
    while (fed < 5 || !status) && Instant::now() < deadline {
        let word = next();
        match word.split('=').next() {
            Some("WATCHDOG") => fed += 1,
            Some("STATUS") => status |= word.contains("tokens/s"),
            Some("READY") => ready = true,
            _ => panic!("unexpected {word}"),
        }
    }
    assert!(ready && status && fed >= 5, "ready {ready}, status {status}, fed {fed} times");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a process number"));
    nix::sys::signal::kill(pid, Signal::SIGSTOP).expect("it runs");
    // A thread that is speaking finishes its word first.
    wait_until("all its threads stand", || threads_stand(child.id()).then_some(()));
    socket.set_nonblocking(true).expect("a socket");
    while socket.recv(&mut words).is_ok() {}
    socket.set_nonblocking(false).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a duration");
    assert!(socket.recv(&mut words).is_err(), "a loop that stands feeds no watchdog");
    child.kill().expect("it runs");
    child.wait().expect("ends");
}

/// Whether a process has no thread that runs on after SIGSTOP.
fn threads_stand(os_pid: u32) -> bool {
    let mut threads = fs::read_dir(format!("/proc/{os_pid}/task")).expect("it is there");
    threads.all(|thread| {
        let stat = fs::read_to_string(thread.expect("it is listed").path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
    })
}

/// A daemon under a service manager that hears what it says.
struct Managed {
    child: Child,
    heard: UnixDatagram,
}

impl Drop for Managed {
    fn drop(&mut self) {
        // It fails where the daemon has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Managed {
    /// Starts one and waits until it is ready.
    fn start(home: &Home) -> Managed {
        let heard = UnixDatagram::bind(home.path("n")).expect("the name is free");
        heard.set_read_timeout(Some(DEADLINE)).expect("a duration");
        let child = home.command().env("NOTIFY_SOCKET", home.path("n")).spawn().expect("starts");
        let managed = Managed { child, heard };
        managed.until("READY=1");
        managed
    }

    /// Listens until it says this, and gives what it says with it.
    fn until(&self, word: &str) -> String {
        let mut words = [0; 512];
        loop {
            let bytes = self.heard.recv(&mut words).expect("the daemon speaks");
            let said = String::from_utf8_lossy(&words[..bytes]).into_owned();
            if said.contains(word) {
                return said;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a process number"));
        nix::sys::signal::kill(pid, signal).expect("it runs");
    }
}

#[test]
fn service_manager_is_told_how_long_the_end_may_take() {
    let home = Home::new("exit 1");
    let config = fs::read_to_string(home.path("config.ron")).expect("reads");
    fs::write(home.path("config.ron"), config.replacen('(', "(save_at_end_ms: 60000, ", 1)).expect("writes");
    let mut daemon = Managed::start(&home);
    daemon.signal(Signal::SIGTERM);
    let said = daemon.until("STOPPING=1");
    let asked = said.lines().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC=")?.parse::<u64>().ok());
    assert!(asked.is_some_and(|us| us > 60_000_000), "it may write pages for a minute: {said}");
    assert!(daemon.child.wait().expect("ends").success());
}

#[test]
fn service_manager_is_told_that_a_reload_is_over_also_where_the_configuration_is_wrong() {
    let home = Home::new("exit 1");
    let config = fs::read_to_string(home.path("config.ron")).expect("reads");
    let daemon = Managed::start(&home);
    for policy in ["fifo", "lottery"] {
        let more = format!("(policy: {policy:?}, ");
        fs::write(home.path("config.ron"), config.replacen('(', &more, 1)).expect("writes");
        daemon.signal(Signal::SIGHUP);
        let said = daemon.until("RELOADING=1");
        assert!(said.contains("MONOTONIC_USEC="), "the manager tells one reload from another by it: {said}");
        daemon.until("READY=1");
    }
}

/// Whether a daemon's allocator is told that threads keep nothing.
#[cfg(target_env = "gnu")]
fn keeps_heap_small(daemon: &Daemon) -> bool {
    let os_pid = daemon.client().sysinfo().expect("answers").os_pid;
    let environment = fs::read_to_string(format!("/proc/{os_pid}/environ")).expect("it is this user's own");
    // The allocator cuts its variable into pieces where it stands.
    environment.contains("glibc.malloc.tcache_count=0")
}

#[test]
#[cfg(target_env = "gnu")]
fn daemon_keeps_its_heap_small_unless_it_is_told_otherwise() {
    let home = Home::new("exit 1");
    let daemon = home.start();
    assert!(keeps_heap_small(&daemon));
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    let daemon = home.start_with(|command| {
        command.env("GLIBC_TUNABLES", "glibc.malloc.arena_max=2");
    });
    assert!(!keeps_heap_small(&daemon));
}
