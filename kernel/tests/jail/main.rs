//! The jail, with a program that tries to leave it in many ways. Each way is tried outside too, where most of them
//! work, so that a way that fails for another reason is not taken for a wall of the jail. Run as root, the program is
//! somebody else; run as an ordinary user, it is that user.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    "datagram-pair",
    "kill-victim",
    "limit-victim",
    "pin-victim",
    "starve-victim",
    "starve-victim-by-attributes",
    "renice-victim",
    "slow-disk-of-victim",
    "leave-process-group",
    "child-of-the-daemon",
    "fork-bomb",
    "many-files",
    "much-memory",
    "read-model-by-name",
    "write-model-by-name",
    "read-neighbour-of-model",
    "reopen-model",
    "reopen-model-for-writing",
    "chmod-model",
    "fchmod-model",
    "inherited-descriptor",
    "read-through-proc",
    "set-user-id-program",
    "watch-folder",
    "read-shared-memory",
    "send-to-queue",
    "change-semaphore",
    "named-queue",
];

/// Ways that the limits of a program close. A worker has those of the machine: it computes with all of it.
const CLOSED_BY_LIMITS: &[&str] = &["fork-bomb", "much-memory", "many-files"];

/// Ways that programs have, as their user's other programs do.
const OPEN_TO_PROGRAMS: &[&str] = &["chmod-model", "fchmod-model"];

/// As many ways as the manual says.
const WAYS_MIN: usize = 50;

/// That of a descriptor that a careless daemon leaves open.
const INHERITED: RawFd = 9;

/// The number under which a program has the descriptor of its model.
const MODEL: RawFd = 10;

/// Of ways to a model, those that a worker has whose model is in several files: to open these again, for reading.
const OPEN_AGAIN: &[&str] = &["reopen-model", "read-model-by-name"];

/// Users from this one on are nobody else here. Each prison has its own: what its programs do until they have used up what
/// their user may have, they take from no other.
const STRANGER: u32 = 64_321;

/// What a machine may refuse without any jail, in the words of the system: its own limits of processes, memory and files, a
/// kernel without this kind of queues, and kinds that are used up.
const CLOSED_BY_MACHINE: &[(&str, &str)] = &[
    ("fork-bomb", "Resource temporarily unavailable"),
    ("much-memory", "Cannot allocate memory"),
    ("many-files", "Too many open files"),
    ("named-queue", "Function not implemented"),
];

/// What has its way with what programs have in common by number.
const OF_MEMORY: &str = "read-shared-memory";
const OF_QUEUE: &str = "send-to-queue";
const OF_SEMAPHORE: &str = "change-semaphore";

/// A number that nothing has.
const NOTHING: i32 = -1;

struct Prison {
    folder: tempfile::TempDir,
    /// The user that its program is, where that is not this one.
    user: Option<User>,
    /// Held where all prisons have the same user.
    _alone: Option<MutexGuard<'static, ()>>,
    victim: Child,
    tcp: TcpListener,
    model: File,
    common: Common,
    _socket: UnixListener,
    _datagrams: UnixDatagram,
}

/// What programs have in common by number, of System V, for everybody to use; [`NOTHING`] where the system has no more of a
/// kind, or never had any.
struct Common {
    memory: i32,
    queue: i32,
    semaphore: i32,
}

impl Common {
    fn new() -> Common {
        let (own, mode) = (libc::IPC_PRIVATE, libc::IPC_CREAT | 0o666);
        // SAFETY: each of these makes something new and reads no memory.
        let made =
            unsafe { [libc::shmget(own, 1, mode), libc::msgget(own, mode), libc::semget(own, 1, mode)] };
        let [memory, queue, semaphore] = made;
        Common { memory, queue, semaphore }
    }

    /// The ways that lead nowhere, because there is nothing to lead to.
    fn lacking(&self) -> Vec<&'static str> {
        let all = [(OF_MEMORY, self.memory), (OF_QUEUE, self.queue), (OF_SEMAPHORE, self.semaphore)];
        all.into_iter().filter_map(|(way, number)| (number == NOTHING).then_some(way)).collect()
    }
}

impl Drop for Common {
    fn drop(&mut self) {
        // SAFETY: they are this test's own or nothing, and to remove them reads no memory.
        unsafe {
            libc::shmctl(self.memory, libc::IPC_RMID, std::ptr::null_mut());
            libc::msgctl(self.queue, libc::IPC_RMID, std::ptr::null_mut());
            libc::semctl(self.semaphore, 0, libc::IPC_RMID);
        }
    }
}

impl Drop for Prison {
    fn drop(&mut self) {
        let _ = self.victim.kill();
        let _ = self.victim.wait();
    }
}

/// A user that no other prison has; none where this is no superuser, whose programs stay its own.
fn next_user() -> Option<User> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    getuid().is_root().then(|| {
        let id = STRANGER + TAKEN.fetch_add(1, Ordering::Relaxed);
        User { uid: id, gid: id, groups: vec![id] }
    })
}

/// Copies a program by another process: a copy that this one has open while another test forks cannot be run.
fn copy(from: &Path, to: &Path) {
    let installed = Command::new("install").args(["-m", "755"]).args([from, to]).status();
    assert!(installed.unwrap().success());
}

/// A command as the user that the jailed program is.
fn as_user(user: Option<&User>, program: &Path) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    command
}

/// Says that something was not looked at, past the test runner, which shows nothing of tests that pass.
fn not_checked(why: &str) {
    std::io::stderr().write_all(format!("NOT CHECKED: {why}\n").as_bytes()).unwrap();
}

impl Prison {
    /// Makes one. Where the superuser may become nobody else, as in a container with one user, or nobody else gets into the
    /// folder of temporary files, says so, and there is nothing to do.
    fn new() -> Option<Prison> {
        static SAME_USER: Mutex<()> = Mutex::new(());
        let user = next_user();
        let alone = user.is_none().then(|| SAME_USER.lock().unwrap_or_else(PoisonError::into_inner));
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
        let tried = as_user(user.as_ref(), &path("escape")).arg("list").output();
        if !tried.is_ok_and(|output| output.status.success()) {
            not_checked(
                "the jail: no program can be run here as another user, in the folder of temporary files",
            );
            return None;
        }
        fs::write(path("target/secret"), "secret").unwrap();
        fs::set_permissions(path("target/secret"), fs::Permissions::from_mode(0o644)).unwrap();
        let socket = UnixListener::bind(path("target/socket")).unwrap();
        fs::set_permissions(path("target/socket"), fs::Permissions::from_mode(0o777)).unwrap();
        let datagrams = UnixDatagram::bind(path("target/datagrams")).unwrap();
        datagrams.set_nonblocking(true).unwrap();
        fs::set_permissions(path("target/datagrams"), fs::Permissions::from_mode(0o777)).unwrap();
        let victim = as_user(user.as_ref(), Path::new("sleep")).arg("600").spawn().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        for name in ["target/model", "target/neighbour"] {
            fs::write(path(name), format!("this is {name}")).unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o666)).unwrap();
            let ids = user.as_ref().map(|user| (user.uid, user.gid)).unzip();
            std::os::unix::fs::chown(path(name), ids.0, ids.1).unwrap();
        }
        let model = File::open(path("target/model")).unwrap();
        let common = Common::new();
        Some(Prison {
            folder,
            user,
            _alone: alone,
            victim,
            tcp,
            model,
            common,
            _socket: socket,
            _datagrams: datagrams,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn environment(&self) -> Vec<(String, String)> {
        let Common { memory, queue, semaphore } = &self.common;
        let numbers = [
            ("VICTIM", self.victim.id().to_string()),
            ("PORT", self.tcp.local_addr().unwrap().port().to_string()),
            ("MEMORY", memory.to_string()),
            ("QUEUE", queue.to_string()),
            ("SEMAPHORE", semaphore.to_string()),
        ];
        numbers.map(|(name, number)| (name.to_owned(), number)).into()
    }

    fn orders(&self) -> Orders {
        self.orders_with(Policy::program())
    }

    fn orders_with(&self, mut policy: Policy) -> Orders {
        policy.execute.push(self.path("escape"));
        policy.write.push(self.path("home"));
        Orders {
            policy,
            user: self.user.clone(),
            environment: self.environment(),
            folder: self.path("home"),
            keep: vec![MODEL],
            reopen: vec![],
            parent: std::process::id(),
            guarded: false,
            strictness: Strictness::Auto,
        }
    }

    fn inside(&self, policy: &Policy, arguments: &[&str]) -> Output {
        self.inside_with(&self.orders_with(policy.clone()), arguments)
    }

    fn inside_with(&self, orders: &Orders, arguments: &[&str]) -> Output {
        let (helper, escape) = (self.path("llmasos-jail"), self.path("escape"));
        self.finish(jail::command(&helper, orders, &escape, arguments).unwrap())
    }

    /// Tries every way but some, and gives what each that leads out said.
    fn ways_out(&self, policy: &Policy, but: &[&str]) -> Vec<(String, String)> {
        let target = self.path("target");
        let listed = self.inside(policy, &["list"]);
        assert!(listed.status.success(), "{}", said(&listed));
        let listed = said(&listed);
        let ways: Vec<&str> = listed.lines().collect();
        assert!(ways.len() >= WAYS_MIN && but.iter().all(|way| ways.contains(way)), "{ways:?}");
        let mut out = Vec::new();
        for way in ways.into_iter().filter(|way| !but.contains(way)) {
            let tried = self.inside(policy, &[way, target.to_str().unwrap()]);
            print!("{}", said(&tried));
            if tried.status.code() != Some(1) {
                out.push((way.to_owned(), said(&tried)));
            }
        }
        out
    }

    fn outside(&self, arguments: &[&str]) -> Output {
        let mut command = as_user(self.user.as_ref(), &self.path("escape"));
        command.args(arguments).envs(self.environment()).current_dir(self.path("home"));
        self.finish(command)
    }

    /// Runs a command with its model, and with a descriptor of the test left open, as of a careless daemon.
    fn finish(&self, mut command: Command) -> Output {
        use std::os::unix::process::CommandExt;
        let model = self.model.as_raw_fd();
        // SAFETY: between fork and exec the closure makes system calls alone.
        unsafe {
            command.pre_exec(move || {
                // Out of the way of both numbers first.
                let away = checked(libc::fcntl(model, libc::F_DUPFD_CLOEXEC, MODEL + 1))?;
                checked(libc::dup2(2, INHERITED))?;
                checked(libc::dup2(away, MODEL)).map(drop)
            });
        }
        command.process_group(0).stdin(Stdio::null()).output().unwrap()
    }
}

/// What a system call gave.
fn checked(answer: i32) -> std::io::Result<i32> {
    if answer < 0 { Err(std::io::Error::last_os_error()) } else { Ok(answer) }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Whether the system closes all ways; says so where it does not, past the test runner, which shows nothing of tests that
/// pass.
fn jail_is_whole() -> bool {
    let whole = support().is_whole();
    if !whole {
        not_checked(&format!("the jail: this system has {}, which does not close all ways", support()));
    }
    whole
}

#[test]
fn program_in_the_jail_finds_no_way_out() {
    if !jail_is_whole() {
        return;
    }
    let Some(prison) = Prison::new() else { return };
    let out = prison.ways_out(&Policy::program(), OPEN_TO_PROGRAMS);
    assert!(out.is_empty(), "{out:#?}");
}

#[test]
fn worker_in_the_jail_finds_no_way_out() {
    if !jail_is_whole() {
        return;
    }
    let Some(prison) = Prison::new() else { return };
    let out = prison.ways_out(&Policy::worker(), CLOSED_BY_LIMITS);
    assert!(out.is_empty(), "{out:#?}");
}

#[test]
fn worker_in_the_jail_reads_its_model_through_the_descriptor_alone() {
    let Some(prison) = Prison::new() else { return };
    let read = prison.inside(&Policy::worker(), &["model"]);
    assert_eq!((said(&read).as_str(), read.status.success()), ("this is target/model", true));
}

#[test]
fn worker_of_a_model_in_parts_opens_these_again_for_reading_and_nothing_else() {
    if !jail_is_whole() {
        return;
    }
    let Some(prison) = Prison::new() else { return };
    let (orders, target) = (prison.orders_with(Policy::worker()), prison.path("target"));
    let orders = Orders { reopen: vec![MODEL], ..orders };
    let ways = OPEN_OUTSIDE.iter().filter(|way| way.contains("model"));
    for way in ways {
        let tried = prison.inside_with(&orders, &[way, target.to_str().unwrap()]);
        assert_eq!(tried.status.success(), OPEN_AGAIN.contains(way), "{way}: {}", said(&tried));
    }
}

#[test]
fn ways_lead_out_where_there_is_no_jail() {
    let Some(prison) = Prison::new() else { return };
    let target = prison.path("target");
    let mut lacking = prison.common.lacking();
    // It asks for a program that becomes somebody else where nothing keeps it from that.
    if has_no_new_privileges() || !Path::new("/bin/su").exists() {
        lacking.push("set-user-id-program");
    }
    for way in OPEN_OUTSIDE {
        let tried = prison.outside(&[way, target.to_str().unwrap()]);
        let said = said(&tried);
        let closed = CLOSED_BY_MACHINE.iter().any(|(closed, words)| closed == way && said.contains(words));
        if closed || lacking.contains(way) {
            not_checked(&format!("whether {way} leads out without a jail: this machine closes it: {said}"));
            continue;
        }
        assert_eq!(tried.status.code(), Some(0), "{way} is no proof of the jail here: {said}");
    }
}

/// Whether whoever runs the tests has seen to it that no program has more privileges than this one.
fn has_no_new_privileges() -> bool {
    fs::read_to_string("/proc/self/status").unwrap().contains("NoNewPrivs:\t1")
}

#[test]
fn program_in_the_jail_does_what_it_is_allowed() {
    let Some(prison) = Prison::new() else { return };
    let mut orders = prison.orders();
    orders.environment.push(("WORD".into(), "given".into()));
    let script = "echo $WORD >file && cat file && id -u && sh -c 'kill -0 $$'";
    let command =
        jail::command(&prison.path("llmasos-jail"), &orders, Path::new("/bin/sh"), ["-c", script]).unwrap();
    let output = prison.finish(command);
    let uid = prison.user.as_ref().map_or(getuid().as_raw(), |user| user.uid);
    assert_eq!(said(&output), format!("given\n{uid}\n"));
    assert!(output.status.success());
}

#[test]
fn program_of_an_ended_daemon_is_not_started() {
    let Some(prison) = Prison::new() else { return };
    let orders = Orders { parent: 1, ..prison.orders() };
    let command =
        jail::command(&prison.path("llmasos-jail"), &orders, Path::new("/bin/true"), [""; 0]).unwrap();
    let output = prison.finish(command);
    assert_eq!(output.status.code(), Some(126));
    assert!(said(&output).contains("the daemon has ended"), "{}", said(&output));
}
