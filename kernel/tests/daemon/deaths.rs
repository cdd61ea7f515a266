//! Programs of users that die: what they had is free, whoever still holds their connections.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use syscalls::client::blocking::Client;
use syscalls::reply::ProcessInfo;

use super::harness::{Daemon, Home, READY_WORKER, wait_until};

/// The descriptor of a program's connection.
const CONNECTION: i32 = 9;

/// A shell that has connected by itself, as the leader of a group, and runs a script.
struct App(Child);

impl App {
    fn start(home: &Home, script: &str) -> App {
        let address = UnixAddr::new(&home.path("s")).expect("it is short");
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).process_group(0).stdin(Stdio::null());
        // SAFETY: between fork and exec the closure makes system calls alone.
        unsafe {
            command.pre_exec(move || {
                let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None)?;
                connect(fd.as_raw_fd(), &address)?;
                if libc::dup2(fd.as_raw_fd(), CONNECTION) < 0 {
                    return Err(io::Error::last_os_error());
                }
                // It may be that very number, and stays open in the program in any case.
                std::mem::forget(fd);
                Ok(())
            });
        }
        App(command.spawn().expect("starts"))
    }

    fn kill(&mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it is a child");
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let group = i32::try_from(self.0.id()).expect("a process number");
        // It fails where nobody is left.
        let _ = killpg(nix::unistd::Pid::from_raw(group), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// Says hello as `app`, and opens a context.
const OPENS: &str = r#"printf '%s\n%s\n' '{"id":1,"call":"hello","args":{"version":1,"name":"app"}}' \
    '{"id":2,"call":"open","args":{}}' >&9"#;

fn daemon() -> (Home, Daemon, Client) {
    let home = Home::new(READY_WORKER);
    let daemon = home.start();
    let mut client = daemon.client();
    client.mount("sim:", "m", |_| {}).expect("mounts");
    (home, daemon, client)
}

fn app(client: &mut Client) -> Option<ProcessInfo> {
    client.ps().expect("answers").into_iter().find(|process| process.name == "app")
}

/// Until when nothing of an app that has died is left.
const FREED_MAX: Duration = Duration::from_millis(100);

/// Kills an app that has a context, and tells how long it took until nothing of it was left. `make faults` insists on what
/// is promised; a machine that runs other tests besides may take longer.
fn killed(script: &str) -> u128 {
    let (home, _daemon, mut client) = daemon();
    let mut app_itself = App::start(&home, &format!("{OPENS}; {script}"));
    wait_until("the app has a context", || app(&mut client).filter(|app| app.contexts == 1));
    let killed = Instant::now();
    app_itself.kill();
    wait_until("nothing of it is left", || {
        let stats = client.stat(None, None).expect("answers");
        (app(&mut client).is_none() && stats.contexts == 0).then_some(())
    });
    let took = killed.elapsed();
    let insists = std::env::var_os("LLMASOS_TEST_STRICT").is_some();
    assert!(!insists || took <= FREED_MAX, "it took {took:?}; {FREED_MAX:?} are promised");
    took.as_micros()
}

#[test]
fn app_that_is_killed_is_freed() {
    let us = killed("while :; do sleep 0.1; done");
    println!("figure: death of an app: nothing left of it after {us} µs");
}

#[test]
fn app_that_is_killed_is_freed_although_its_child_holds_the_connection() {
    let us = killed("sleep 600 & wait");
    println!("figure: death of an app whose child lives: nothing left of it after {us} µs");
}

#[test]
fn last_words_of_a_process_that_has_died_are_heard() {
    let (home, _daemon, mut client) = daemon();
    let store = r#"{"id":3,"call":"store_put","args":{"store":"s","key":"k","value":"said"}}"#;
    // It is answered once, so the daemon knows it: who dies before that is nobody.
    let script = format!("{OPENS}; read -r answer <&9; printf '%s\\n' '{store}' >&9; sleep 600 & exit 0");
    let mut app_itself = App::start(&home, &script);
    app_itself.0.wait().expect("it is a child");
    let get = || syscalls::call::StoreGet { store: "s".into(), key: "k".into() };
    wait_until("what it said last was done", || {
        let value = client.call(get()).expect("answers");
        (value == syscalls::Reply::Value(Some("said".into()))).then_some(())
    });
    wait_until("it is gone", || app(&mut client).is_none().then_some(()));
}
