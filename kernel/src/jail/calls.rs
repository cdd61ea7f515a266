//! System calls that no program of the daemon needs: what seccomp shuts.
//!
//! A list of what is shut and not of what is open: programs, languages and graphics libraries are too many to know
//! what they call. What is here administers the system, looks into other processes, leaves the jail's name spaces, or
//! was a way out of a sandbox more than once. Each is answered EPERM, as without privileges; `clone3`, whose flags a
//! filter cannot see, ENOSYS, after which C libraries use `clone`.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

use super::policy::{Attributes, Network, Policy};

/// Why calls cannot be filtered.
#[derive(Debug, thiserror::Error)]
pub enum CallsError {
    /// A rule, or the filter as a whole, has no meaning.
    #[error("the filter of system calls is wrong: {0}")]
    Rule(#[from] seccompiler::BackendError),
    /// The system refuses.
    #[error("the system refuses a filter of system calls: {0}")]
    System(#[from] seccompiler::Error),
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Shut whatever their arguments are.
const SHUT: &[i64] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // Leaving the process group, by which the daemon ends all that a program has started.
    libc::SYS_setsid,
    libc::SYS_setpgid,
    // Names in folders that it may not list, told as others use them.
    libc::SYS_inotify_add_watch,
    // File systems and name spaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_fanotify_init,
    // Parts of the system with more holes than uses here.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    // The machine.
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
];

/// The same, of one architecture.
#[cfg(target_arch = "x86_64")]
const SHUT_HERE: &[i64] = &[
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_kexec_file_load,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
];
#[cfg(not(target_arch = "x86_64"))]
const SHUT_HERE: &[i64] = &[];

/// What programs have in common outside of any folder: System V's memory, queues and semaphores, which outlive them.
const COMMON: &[i64] = &[
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
];

/// Changes of what the system keeps about files. The last four are newer than the C library's names.
const ATTRIBUTES: &[i64] = &[
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    FCHMODAT2,
    SETXATTRAT,
    REMOVEXATTRAT,
    FILE_SETATTR,
];

/// The same, of one architecture.
#[cfg(target_arch = "x86_64")]
const ATTRIBUTES_HERE: &[i64] = &[
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];
#[cfg(not(target_arch = "x86_64"))]
const ATTRIBUTES_HERE: &[i64] = &[];

/// Numbers that all architectures have in common.
const FCHMODAT2: i64 = 452;
const SETXATTRAT: i64 = 463;
const REMOVEXATTRAT: i64 = 466;
const FILE_SETATTR: i64 = 469;

/// Flags of `clone` that make name spaces, or children of the daemon, which it does not know and would never reap.
const CLONE_SHUT: &[i32] = &[
    libc::CLONE_PARENT,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Calls whose first argument is the process that they change, 0 for whoever calls. Of another process of the same user
/// they would take time, processors and limits, and with these its life. A thread that names itself by its number is
/// refused too, since a filter does not know that number: libraries take that as a machine that pins no threads.
const OF_A_PROCESS: &[i64] = &[
    libc::SYS_prlimit64,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
];

/// The same of a process, a group or all of a user, which the first argument says, with the number of the last one.
const OF_A_KIND: &[(i64, u64)] =
    &[(libc::SYS_setpriority, PRIO_USER), (libc::SYS_ioprio_set, IOPRIO_WHO_USER)];

/// All processes of a user, for `setpriority` and for `ioprio_set`.
const PRIO_USER: u64 = libc::PRIO_USER as u64;
const IOPRIO_WHO_USER: u64 = 3;

/// The bits of a socket's type that are its type, and how many types they can say.
const SOCKET_TYPE: u64 = 0xf;

/// Types of pairs that are connected for good. Other pairs can send to whatever listens in the file system.
const CONNECTED: &[i32] = &[libc::SOCK_STREAM, libc::SOCK_SEQPACKET];

/// Calls that send a signal by process number.
const SIGNALS: &[i64] =
    &[libc::SYS_kill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo, libc::SYS_pidfd_send_signal];

/// Requests that write into the input of a terminal.
const INTO_TERMINALS: &[u64] = &[libc::TIOCSTI, libc::TIOCLINUX];

/// Requests to `fcntl` and `ioctl` that say whom the system sends a signal about a file, of any number.
const SIGNALS_OF_FILES: &[u64] = &[F_SETOWN, F_SETOWN_EX];
const SIGNALS_OF_SOCKETS: &[u64] = &[FIOSETOWN, SIOCSPGRP];

const F_SETOWN: u64 = 8;
const F_SETOWN_EX: u64 = 15;
const FIOSETOWN: u64 = 0x8901;
const SIOCSPGRP: u64 = 0x8902;

/// Numbers of the x32 way to call the same system carry this bit.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

/// Calls that x32 has under numbers of its own.
#[cfg(target_arch = "x86_64")]
const X32_OWN: std::ops::RangeInclusive<i64> = 512..=547;

/// Filters the calls of this process and all that come from it, as far as the policy says. `signals_are_scoped` says that the system keeps
/// signals inside the jail; otherwise processes in it send none but to themselves.
///
/// # Errors
///
/// The system has no seccomp.
pub(super) fn shut(policy: &Policy, signals_are_scoped: bool) -> Result<(), CallsError> {
    let network = policy.network;
    let mut rules: Rules = SHUT.iter().chain(SHUT_HERE).map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_clone, clone_rules()?);
    rules.insert(libc::SYS_ioctl, ioctl_rules(signals_are_scoped)?);
    rules.extend(process_rules()?);
    if policy.attributes == Attributes::Shut {
        rules.extend(ATTRIBUTES.iter().chain(ATTRIBUTES_HERE).map(|call| (*call, Vec::new())));
    }
    if network == Network::None {
        rules.extend(COMMON.iter().map(|call| (*call, Vec::new())));
    }
    if let Some(sockets) = socket_rules(network)? {
        rules.insert(libc::SYS_socket, sockets);
        rules.insert(libc::SYS_socketpair, pair_rules(network)?);
    }
    if !signals_are_scoped {
        rules.insert(libc::SYS_fcntl, requests(SIGNALS_OF_FILES)?);
        rules.extend(SIGNALS.iter().map(|call| (*call, Vec::new())));
        let others = condition(0, SeccompCmpOp::Ne, u64::from(std::process::id()))?;
        rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![others])?]);
        rules.insert(libc::SYS_tkill, Vec::new());
    }
    #[cfg(target_arch = "x86_64")]
    shut_x32(&mut rules);
    let absent: Rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    apply(absent, libc::ENOSYS)?;
    apply(rules, libc::EPERM)
}

fn apply(rules: Rules, errno: i32) -> Result<(), CallsError> {
    let answer = SeccompAction::Errno(errno.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, arch)?;
    let program = BpfProgram::try_from(filter)?;
    Ok(apply_filter(&program)?)
}

#[cfg(target_arch = "x86_64")]
fn shut_x32(rules: &mut Rules) {
    let twins: Rules = rules.keys().map(|call| (call | X32, Vec::new())).collect();
    rules.extend(twins);
    rules.extend(X32_OWN.map(|call| (call | X32, Vec::new())));
}

fn clone_rules() -> Result<Vec<SeccompRule>, CallsError> {
    let with = |flag: &i32| {
        let flag = u64::from(flag.unsigned_abs());
        Ok(SeccompRule::new(vec![condition(0, SeccompCmpOp::MaskedEq(flag), flag)?])?)
    };
    CLONE_SHUT.iter().map(with).collect()
}

/// Writing into the input of a terminal that the daemon was started from, and signals about files.
fn ioctl_rules(signals_are_scoped: bool) -> Result<Vec<SeccompRule>, CallsError> {
    let signals: &[u64] = if signals_are_scoped { &[] } else { SIGNALS_OF_SOCKETS };
    requests(&[INTO_TERMINALS, signals].concat())
}

/// Requests about a descriptor that are shut.
fn requests(shut: &[u64]) -> Result<Vec<SeccompRule>, CallsError> {
    let request = |request: &u64| Ok(SeccompRule::new(vec![condition(1, SeccompCmpOp::Eq, *request)?])?);
    shut.iter().map(request).collect()
}

/// Changes of processes that are somebody else.
fn process_rules() -> Result<Rules, CallsError> {
    let other =
        |argument| Ok::<_, CallsError>(SeccompRule::new(vec![condition(argument, SeccompCmpOp::Ne, 0)?])?);
    let mut rules = Rules::new();
    for call in OF_A_PROCESS {
        rules.insert(*call, vec![other(0)?]);
    }
    for (call, user) in OF_A_KIND {
        let all_of_a_user = SeccompRule::new(vec![condition(0, SeccompCmpOp::Eq, *user)?])?;
        rules.insert(*call, vec![other(1)?, all_of_a_user]);
    }
    Ok(rules)
}

/// Sockets that may not be made, none where all may.
fn socket_rules(network: Network) -> Result<Option<Vec<SeccompRule>>, CallsError> {
    let unix = libc::AF_UNIX.unsigned_abs().into();
    Ok(match network {
        Network::None => Some(Vec::new()),
        Network::Unix => Some(vec![SeccompRule::new(vec![condition(0, SeccompCmpOp::Ne, unix)?])?]),
        Network::All => None,
    })
}

/// Pairs that may not be made: those that are no Unix sockets, and without sockets those that reach beyond themselves.
fn pair_rules(network: Network) -> Result<Vec<SeccompRule>, CallsError> {
    let unix = libc::AF_UNIX.unsigned_abs().into();
    let mut rules = vec![SeccompRule::new(vec![condition(0, SeccompCmpOp::Ne, unix)?])?];
    if network == Network::None {
        let connected = |kind: &u64| CONNECTED.iter().any(|c| u64::from(c.unsigned_abs()) == *kind);
        for kind in (0..=SOCKET_TYPE).filter(|kind| !connected(kind)) {
            let of_kind = condition(1, SeccompCmpOp::MaskedEq(SOCKET_TYPE), kind)?;
            rules.push(SeccompRule::new(vec![of_kind])?);
        }
    }
    Ok(rules)
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, CallsError> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::process::Command;
    use std::{io, thread};

    use super::*;

    /// What a system call said that gives a negative number where it fails.
    fn refused(answer: i64) -> Option<i32> {
        if answer < 0 { io::Error::last_os_error().raw_os_error() } else { None }
    }

    /// Signals to a process, by each call that names it, and to this thread.
    fn signal(pid: i32) -> ([Option<i32>; 5], Option<i32>) {
        let (file, _other) = std::os::unix::net::UnixStream::pair().expect("a descriptor is left");
        let owned = file.as_raw_fd();
        // SAFETY: signal 0 does nothing, and the requests read one number.
        unsafe {
            let to_it = [
                refused(libc::kill(pid, 0).into()),
                refused(libc::syscall(libc::SYS_tgkill, pid, pid, 0)),
                refused(libc::syscall(libc::SYS_tkill, pid, 0)),
                refused(libc::fcntl(owned, libc::F_SETOWN, pid).into()),
                refused(libc::ioctl(owned, FIOSETOWN, &raw const pid).into()),
            ];
            let own = std::process::id();
            (to_it, refused(libc::syscall(libc::SYS_tgkill, own, libc::gettid(), 0)))
        }
    }

    #[test]
    fn signals_reach_nobody_else_where_the_system_does_not_scope_them() {
        if !crate::jail::support().seccomp {
            let why = "NOT CHECKED: signals of programs in the jail: this system filters no calls\n";
            return io::Write::write_all(&mut io::stderr(), why.as_bytes()).expect("somebody hears it");
        }
        let mut other = Command::new("sleep").arg("600").spawn().expect("sleep is part of every Linux");
        let pid = i32::try_from(other.id()).expect("a process number");
        let free = signal(pid);
        // A filter holds for the thread that is shut in, and for nobody else.
        let shut_in = thread::spawn(move || {
            shut(&Policy::program(), false).expect("the system filters calls");
            signal(pid)
        });
        let shut_in = shut_in.join().expect("it answers");
        other.kill().expect("it runs");
        other.wait().expect("it is a child");
        assert_eq!(free, ([None; 5], None));
        assert_eq!(shut_in, ([Some(libc::EPERM); 5], None));
    }
}
