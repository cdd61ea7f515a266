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

use super::policy::Network;

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

/// Flags of `clone` that make name spaces.
const CLONE_NEW: &[i32] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Calls that send a signal by process number.
const SIGNALS: &[i64] = &[libc::SYS_kill, libc::SYS_rt_sigqueueinfo, libc::SYS_pidfd_send_signal];

/// Numbers of the x32 way to call the same system carry this bit.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

/// Calls that x32 has under numbers of its own.
#[cfg(target_arch = "x86_64")]
const X32_OWN: std::ops::RangeInclusive<i64> = 512..=547;

/// Filters the calls of this process and all that come from it. `signals_are_scoped` says that the system keeps
/// signals inside the jail; otherwise processes in it send none but to themselves.
///
/// # Errors
///
/// The system has no seccomp.
pub(super) fn shut(network: Network, signals_are_scoped: bool) -> Result<(), CallsError> {
    let mut rules: Rules = SHUT.iter().chain(SHUT_HERE).map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_clone, clone_rules()?);
    rules.insert(libc::SYS_ioctl, ioctl_rules()?);
    if let Some(sockets) = socket_rules(network)? {
        rules.insert(libc::SYS_socket, sockets);
    }
    if !signals_are_scoped {
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
    CLONE_NEW.iter().map(with).collect()
}

/// Writing into the input of a terminal that the daemon was started from.
fn ioctl_rules() -> Result<Vec<SeccompRule>, CallsError> {
    let request = |request: u64| Ok(SeccompRule::new(vec![condition(1, SeccompCmpOp::Eq, request)?])?);
    [libc::TIOCSTI, libc::TIOCLINUX].into_iter().map(request).collect()
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

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, CallsError> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?)
}
