//! The jail, with a program that tries to leave it in many ways. Each way is tried outside too, where most of them
//! work, so that a way that fails for another reason is not taken for a wall of the jail. Run as root, the program is
//! somebody else; run as an ordinary user, it is that user.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use kernel::jail::{self, Orders, Policy, Strictness, User, support};
use nix::unistd::getuid;

/// Ways that an ordinary user has without a jail, on every system.
const OPEN_OUTSIDE: &[&str] = &[
    "read-secret",
    "list-folder",
    "write-outside",
    "follow-symlink",
    "tcp-connect",
    "tcp-listen",
    "unix-connect",
    "kill-victim",
    "leave-process-group",
    "fork-bomb",
    "many-files",
    "much-memory",
    "inherited-descriptor",
    "read-through-proc",
    "set-user-id-program",
];

/// A user that is nobody else here.
const STRANGER: u32 = 64_321;

struct Prison {
    folder: tempfile::TempDir,
    victim: Child,
    tcp: TcpListener,
    _socket: UnixListener,
}

impl Drop for Prison {
    fn drop(&mut self) {
        let _ = self.victim.kill();
        let _ = self.victim.wait();
    }
}

fn user() -> Option<User> {
    getuid().is_root().then(|| User { uid: STRANGER, gid: STRANGER, groups: vec![STRANGER] })
}

/// Copies a program by another process: a copy that this one has open while another test forks cannot be run.
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").args([from, to]).status().unwrap().success());
}

/// A command as the user that the jailed program is.
fn as_user(program: &Path) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    if let Some(user) = user() {
        command.uid(user.uid).gid(user.gid);
    }
    command
}

impl Prison {
    fn new() -> Prison {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let own = std::env::current_exe().unwrap();
        let built = own.parent().unwrap().parent().unwrap();
        let escape = built.join("examples/escape");
        assert!(
            escape.exists(),
            "no {}: cargo test --test builds no examples, cargo build --examples does",
            escape.display()
        );
        copy(&escape, &path("escape"));
        copy(Path::new(env!("CARGO_BIN_EXE_llmasos-jail")), &path("llmasos-jail"));
        for name in ["target", "home"] {
            fs::create_dir(path(name)).unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o777)).unwrap();
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(path("target/secret"), "secret").unwrap();
        let socket = UnixListener::bind(path("target/socket")).unwrap();
        fs::set_permissions(path("target/socket"), fs::Permissions::from_mode(0o777)).unwrap();
        let victim = as_user(Path::new("sleep")).arg("600").spawn().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        Prison { folder, victim, tcp, _socket: socket }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn environment(&self) -> Vec<(String, String)> {
        let port = self.tcp.local_addr().unwrap().port();
        vec![("VICTIM".into(), self.victim.id().to_string()), ("PORT".into(), port.to_string())]
    }

    fn orders(&self) -> Orders {
        let mut policy = Policy::program();
        policy.execute.push(self.path("escape"));
        policy.write.push(self.path("home"));
        Orders {
            policy,
            user: user(),
            environment: self.environment(),
            folder: self.path("home"),
            keep: vec![],
            parent: std::process::id(),
            guarded: false,
            strictness: Strictness::Auto,
        }
    }

    fn inside(&self, arguments: &[&str]) -> Output {
        let command =
            jail::command(&self.path("llmasos-jail"), &self.orders(), &self.path("escape"), arguments)
                .unwrap();
        finish(command)
    }

    fn outside(&self, arguments: &[&str]) -> Output {
        let mut command = as_user(&self.path("escape"));
        command.args(arguments).envs(self.environment()).current_dir(self.path("home"));
        finish(command)
    }
}

/// Runs a command with a descriptor of the test left open, as of a careless daemon.
fn finish(mut command: Command) -> Output {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec the closure makes one system call.
    unsafe {
        command.pre_exec(|| match libc::dup2(2, 9) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    command.process_group(0).stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn program_in_the_jail_finds_no_way_out() {
    let prison = Prison::new();
    let target = prison.path("target");
    let target = target.to_str().unwrap();
    let listed = prison.inside(&["list"]);
    assert!(listed.status.success(), "{}", said(&listed));
    let listed = said(&listed);
    let ways: Vec<&str> = listed.lines().collect();
    assert!(ways.len() >= 20, "{ways:?}");
    let mut out = Vec::new();
    for way in &ways {
        let tried = prison.inside(&[way, target]);
        print!("{}", said(&tried));
        if tried.status.code() != Some(1) {
            out.push((*way, said(&tried)));
        }
    }
    if !support().is_whole() {
        println!("this system has {}, which does not close all ways", support());
        out.clear();
    }
    assert!(out.is_empty(), "{out:#?}");
    for way in OPEN_OUTSIDE {
        let tried = prison.outside(&[way, target]);
        assert_eq!(tried.status.code(), Some(0), "{way} is no proof of the jail here: {}", said(&tried));
    }
}

#[test]
fn program_in_the_jail_does_what_it_is_allowed() {
    let prison = Prison::new();
    let mut orders = prison.orders();
    orders.environment.push(("WORD".into(), "given".into()));
    let script = "echo $WORD >file && cat file && id -u && sh -c 'kill -0 $$'";
    let command =
        jail::command(&prison.path("llmasos-jail"), &orders, Path::new("/bin/sh"), ["-c", script]).unwrap();
    let output = finish(command);
    let uid = user().map_or(getuid().as_raw(), |user| user.uid);
    assert_eq!(said(&output), format!("given\n{uid}\n"));
    assert!(output.status.success());
}

#[test]
fn program_of_an_ended_daemon_is_not_started() {
    let prison = Prison::new();
    let orders = Orders { parent: 1, ..prison.orders() };
    let command =
        jail::command(&prison.path("llmasos-jail"), &orders, Path::new("/bin/true"), [""; 0]).unwrap();
    let output = finish(command);
    assert_eq!(output.status.code(), Some(126));
    assert!(said(&output).contains("the daemon has ended"), "{}", said(&output));
}
