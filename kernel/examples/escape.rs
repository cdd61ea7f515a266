//! A program that tries to get out of the jail, in one way for each of its words. It says what came of it, and
//! succeeds exactly if it got out: `escape WORD TARGET`, where TARGET is a folder that its user may write to, with a
//! file `secret`, and a process of the same user whose number is in `victim`.

// Each of these calls is made to be refused, with arguments that are harmless where it is not.
#![allow(clippy::undocumented_unsafe_blocks)]

use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::str::FromStr;

/// Tries one way.
type Way = fn(&Path) -> io::Result<()>;

/// Every way out, by its word.
const WAYS: &[(&str, Way)] = &[
    ("read-shadow", |_| fs::read("/etc/shadow").map(drop)),
    ("read-secret", |target| fs::read(target.join("secret")).map(drop)),
    ("list-folder", |target| fs::read_dir(target).map(drop)),
    ("write-outside", |target| fs::write(target.join("written"), "x")),
    ("change-mode", |target| fs::rename(target.join("secret"), target.join("moved"))),
    ("follow-symlink", follow_symlink),
    ("read-through-proc", |target| fs::read(format!("/proc/{}/environ", victim(target)?)).map(drop)),
    ("watch-folder", watch_folder),
    ("tcp-connect", |_| TcpStream::connect(("127.0.0.1", told::<u16>("PORT")?)).map(drop)),
    ("tcp-listen", |_| TcpListener::bind("127.0.0.1:0").map(drop)),
    ("unix-connect", |target| UnixStream::connect(target.join("socket")).map(drop)),
    ("datagram-pair", |target| {
        UnixDatagram::pair()?.0.send_to(b"forged", target.join("datagrams")).map(drop)
    }),
    ("read-shared-memory", |_| {
        let (memory, anywhere) = (told("MEMORY")?, std::ptr::null());
        call(|| unsafe { libc::shmat(memory, anywhere, libc::SHM_RDONLY) } as i64)
    }),
    ("send-to-queue", |_| {
        // Its kind, and room for its text.
        let message: [libc::c_long; 2] = [1, 0];
        let queue = told("QUEUE")?;
        call(|| unsafe { libc::msgsnd(queue, message.as_ptr().cast(), 1, libc::IPC_NOWAIT) }.into())
    }),
    ("change-semaphore", |_| {
        let (semaphore, mut up) = (told("SEMAPHORE")?, libc::sembuf { sem_num: 0, sem_op: 1, sem_flg: 0 });
        call(|| unsafe { libc::semop(semaphore, &mut up, 1) }.into())
    }),
    ("named-queue", named_queue),
    ("raw-socket", |_| call(|| unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) }.into())),
    ("kill-victim", |target| {
        let pid = victim(target)?;
        call(|| unsafe { libc::kill(pid, 0) }.into())
    }),
    ("ptrace-victim", |target| {
        let pid = victim(target)?;
        call(|| unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) })
    }),
    ("read-victim-memory", |target| {
        let pid = victim(target)?;
        let nothing = std::ptr::null::<libc::iovec>();
        call(|| unsafe { libc::process_vm_readv(pid, nothing, 0, nothing, 0, 0) } as i64)
    }),
    ("limit-victim", |target| {
        let pid = victim(target)?;
        let (none, old) = (libc::rlimit { rlim_cur: 0, rlim_max: 0 }, std::ptr::null_mut());
        call(|| unsafe { libc::prlimit(pid, libc::RLIMIT_CORE, &none, old) }.into())
    }),
    ("pin-victim", |target| {
        let pid = victim(target)?;
        let mut all = unsafe { std::mem::zeroed::<libc::cpu_set_t>() };
        let bytes = size_of::<libc::cpu_set_t>();
        call(|| unsafe { libc::sched_getaffinity(pid, bytes, &mut all) }.into())?;
        call(|| unsafe { libc::sched_setaffinity(pid, bytes, &all) }.into())
    }),
    ("starve-victim", |target| {
        let (pid, about) = (victim(target)?, libc::sched_param { sched_priority: 0 });
        call(|| unsafe { libc::sched_setscheduler(pid, libc::SCHED_IDLE, &about) }.into())
    }),
    ("starve-victim-by-attributes", |target| {
        let (pid, attributes) = (victim(target)?, SchedAttributes::idle());
        call(|| unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const attributes, 0) })
    }),
    ("renice-victim", |target| {
        let pid = victim(target)?.unsigned_abs();
        call(|| unsafe { libc::setpriority(libc::PRIO_PROCESS, pid, 10) }.into())
    }),
    ("renice-user", |_| call(|| unsafe { libc::setpriority(libc::PRIO_USER, 0, 10) }.into())),
    ("slow-disk-of-victim", |target| {
        // The first kind is a process; the class is `idle`.
        let (pid, idle) = (victim(target)?, 3 << 13);
        call(|| unsafe { libc::syscall(libc::SYS_ioprio_set, 1, pid, idle) })
    }),
    ("leave-process-group", |_| {
        // A leader of a group cannot leave it; its child can.
        run_child(|| call(|| unsafe { libc::setsid() }.into()))
    }),
    ("child-of-the-daemon", |_| {
        let (flags, none) = (i64::from(libc::CLONE_PARENT | libc::SIGCHLD), 0i64);
        call(|| match unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) } {
            0 => unsafe { libc::_exit(0) },
            pid => pid,
        })
    }),
    ("unshare-user", |_| call(|| unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into())),
    ("mount", |_| {
        let (none, folder, kind) = (std::ptr::null(), c"/tmp".as_ptr(), c"tmpfs".as_ptr());
        call(|| unsafe { libc::mount(none, folder, kind, 0, none.cast()) }.into())
    }),
    ("chroot", |_| call(|| unsafe { libc::chroot(c"/usr".as_ptr()) }.into())),
    ("bpf", |_| call(|| unsafe { libc::syscall(libc::SYS_bpf, 5, std::ptr::null::<u8>(), 0) })),
    ("io-uring", |_| {
        let mut parameters = [0u8; 256];
        call(|| unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) })
    }),
    ("keyring", |_| call(|| unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 1) })),
    ("device-memory", |_| File::open("/dev/mem").map(drop)),
    ("become-root", |_| call(|| unsafe { libc::setuid(0) }.into())),
    ("set-user-id-program", set_user_id_program),
    ("fork-bomb", fork_bomb),
    ("much-memory", |_| {
        let bytes = 64usize << 30;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        call(|| unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0) } as i64)
    }),
    ("many-files", |_| {
        let files = (0..1000).map(|_| File::open("/dev/null")).collect::<io::Result<Vec<_>>>()?;
        assert_eq!(files.len(), 1000);
        Ok(())
    }),
    ("read-model-by-name", |target| fs::read(target.join("model")).map(drop)),
    ("write-model-by-name", |target| write_to(&target.join("model"))),
    ("read-neighbour-of-model", |target| fs::read(target.join("neighbour")).map(drop)),
    ("reopen-model", |_| File::open(model_again()).map(drop)),
    ("reopen-model-for-writing", |_| write_to(model_again().as_ref())),
    ("write-to-model", |_| call(|| unsafe { libc::write(MODEL, c"x".as_ptr().cast(), 1) } as i64)),
    ("chmod-model", |target| fs::set_permissions(target.join("model"), Permissions::from_mode(0o666))),
    ("fchmod-model", |_| call(|| unsafe { libc::fchmod(MODEL, 0o666) }.into())),
    ("inherited-descriptor", |_| call(|| unsafe { libc::fcntl(INHERITED, libc::F_GETFD) }.into())),
];

/// What `sched_setattr` takes, which the C library has no name for.
#[repr(C)]
struct SchedAttributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    deadline: [u64; 3],
}

impl SchedAttributes {
    /// Time that nobody else wants.
    fn idle() -> SchedAttributes {
        let (size, policy) = (size_of::<SchedAttributes>() as u32, libc::SCHED_IDLE.unsigned_abs());
        SchedAttributes { size, policy, flags: 0, nice: 0, priority: 0, deadline: [0; 3] }
    }
}

/// The number of a descriptor that the starter leaves open.
const INHERITED: RawFd = 9;

/// That of the model, which is handed over open for reading.
const MODEL: RawFd = 10;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let (word, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if word == "list" {
        WAYS.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    if word == "model" {
        return print_model();
    }
    let Some((name, way)) = WAYS.iter().find(|(name, _)| *name == word) else {
        eprintln!("escape: there is no way `{word}`; `escape list` has them all");
        return ExitCode::from(2);
    };
    match way(Path::new(&target)) {
        Ok(()) => {
            println!("{name}: out");
            ExitCode::SUCCESS
        }
        Err(e) => {
            println!("{name}: {e}");
            ExitCode::FAILURE
        }
    }
}

/// What a worker may do: read what it was handed.
fn print_model() -> ExitCode {
    use std::os::fd::FromRawFd;
    let mut text = String::new();
    // SAFETY: the starter has left it open, and nothing else here owns it.
    match unsafe { File::from_raw_fd(MODEL) }.read_to_string(&mut text) {
        Ok(_) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            println!("model: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Where a process finds the file of a descriptor, to open it anew.
fn model_again() -> String {
    format!("/proc/self/fd/{MODEL}")
}

fn write_to(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).open(path).map(drop)
}

/// Makes a system call that gives a negative number where it fails.
fn call(call: impl FnOnce() -> i64) -> io::Result<()> {
    if call() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn number(path: &Path) -> io::Result<i32> {
    fs::read_to_string(path)?.trim().parse().map_err(io::Error::other)
}

/// The process to attack. Where the file cannot be read, it is told by the environment.
fn victim(target: &Path) -> io::Result<i32> {
    told("VICTIM").or_else(|_| number(&target.join("victim")))
}

/// A number that the environment has.
fn told<N: FromStr>(name: &str) -> io::Result<N> {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).ok_or(io::ErrorKind::InvalidInput.into())
}

/// Has the system tell which files others use in a folder.
fn watch_folder(target: &Path) -> io::Result<()> {
    let folder = CString::new(target.as_os_str().as_bytes())?;
    let watch = unsafe { libc::inotify_init() };
    call(|| watch.into()).or_else(let_but_for_quota)?;
    let added =
        call(|| unsafe { libc::inotify_add_watch(watch, folder.as_ptr(), libc::IN_ALL_EVENTS) }.into());
    added.or_else(|refused| match refused.raw_os_error() {
        // A quota has left nothing to add it to, and a wall would have come first.
        Some(libc::EBADF) if watch < 0 => Ok(()),
        _ => let_but_for_quota(refused),
    })
}

/// Quotas of the machine and of the user, which others may have used up, come after the jail: a call that they refuse
/// was let through, which is what is asked here.
fn let_but_for_quota(refused: io::Error) -> io::Result<()> {
    if matches!(refused.raw_os_error(), Some(libc::EMFILE | libc::ENOSPC)) { Ok(()) } else { Err(refused) }
}

/// A queue of messages under a name that all programs can open.
fn named_queue(_: &Path) -> io::Result<()> {
    let name = CString::new(format!("escape-{}", std::process::id()))?;
    let (flags, mode, usual) = (libc::O_CREAT | libc::O_RDWR, 0o600, std::ptr::null::<libc::mq_attr>());
    if let Err(refused) =
        call(|| unsafe { libc::syscall(libc::SYS_mq_open, name.as_ptr(), flags, mode, usual) })
    {
        return let_but_for_quota(refused);
    }
    call(|| unsafe { libc::syscall(libc::SYS_mq_unlink, name.as_ptr()) })
}

/// A link in a folder of its own that leads to somebody else's file.
fn follow_symlink(target: &Path) -> io::Result<()> {
    let folder = std::env::current_dir()?;
    let link = folder.join("link");
    let _ = fs::remove_file(&link);
    symlink(target.join("secret"), &link)?;
    fs::read(&link).map(drop)
}

/// A program that becomes root for everybody, if it is let.
fn set_user_id_program(_: &Path) -> io::Result<()> {
    let output = Command::new("/bin/su").args(["-c", "true"]).output()?;
    let privileged = fs::read_to_string("/proc/self/status")?.contains("NoNewPrivs:\t0");
    if output.status.success() || privileged { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// Children until there are no more, each of which waits to be killed. More than a user's program needs is out.
fn fork_bomb(_: &Path) -> io::Result<()> {
    let mut children = Vec::new();
    let mut refused = None;
    for _ in 0..200 {
        // SAFETY: the child calls nothing but pause.
        match unsafe { libc::fork() } {
            0 => loop {
                // SAFETY: waits for a signal.
                unsafe { libc::pause() };
            },
            -1 => {
                refused = Some(io::Error::last_os_error());
                break;
            }
            pid => children.push(pid),
        }
    }
    for pid in children {
        // SAFETY: they are this process's own children.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, std::ptr::null_mut(), 0);
        }
    }
    refused.map_or(Ok(()), Err)
}

fn run_child(work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    // SAFETY: this program has one thread.
    match unsafe { libc::fork() } {
        0 => {
            let code = work().map_or_else(|e| e.raw_os_error().unwrap_or(1), |()| 0);
            std::process::exit(code);
        }
        -1 => Err(io::Error::last_os_error()),
        pid => {
            let mut status = 0;
            // SAFETY: it is this process's own child.
            unsafe { libc::waitpid(pid, &mut status, 0) };
            match libc::WEXITSTATUS(status) {
                0 => Ok(()),
                code => Err(io::Error::from_raw_os_error(code)),
            }
        }
    }
}
