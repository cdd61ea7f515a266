//! The way into the jail, in the one order that works: what needs privileges first, and what cannot be undone last.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::{CommandExt, parent_id};
use std::path::Path;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use thiserror::Error;

use super::calls::CallsError;
use super::support::LANDLOCK_WHOLE;
use super::{Orders, Strictness, calls, descriptors, files, guard, identity, limits, support};

/// The first descriptor behind the three standard streams.
const AFTER_STREAMS: u32 = 3;

/// Why a program was not started.
#[derive(Debug, Error)]
pub enum EnterError {
    /// A step fails.
    #[error("cannot {step}: {source}")]
    Step { step: &'static str, source: io::Error },
    /// Landlock is there and does not work.
    #[error("cannot shut files: {0}")]
    Files(#[from] landlock::RulesetError),
    /// Seccomp does not work.
    #[error(transparent)]
    Calls(#[from] CallsError),
    /// The orders want more than there is.
    #[error(
        "this system has {0}, and the jail is required whole: landlock {LANDLOCK_WHOLE} and seccomp; \
         use a newer kernel, or set `jail: (strictness: auto)`"
    )]
    Lacking(support::Support),
    /// Whoever wanted the program has ended.
    #[error("the daemon has ended")]
    Orphan,
    /// The program cannot be run.
    #[error("cannot run {program}: {source}")]
    Exec { program: String, source: io::Error },
}

/// Enters the jail and becomes the program, so that it returns only where something failed.
///
/// # Errors
///
/// The first step that failed. The process must end then: it is half-way in.
pub fn enter(orders: &Orders, program: &OsStr, arguments: &[OsString]) -> Result<Infallible, EnterError> {
    let step = |step| move |source: io::Error| EnterError::Step { step, source };
    let there = support();
    let (required, off) = (orders.strictness == Strictness::Required, orders.strictness == Strictness::Off);
    if required && !there.is_whole() {
        return Err(EnterError::Lacking(there));
    }
    descriptors::close_from(AFTER_STREAMS, &orders.keep).map_err(step("close descriptors"))?;
    let uid = orders.user.as_ref().map_or(nix::unistd::geteuid().as_raw(), |user| user.uid);
    if !off {
        limits::set(&orders.policy.limits, uid).map_err(step("set limits"))?;
    }
    if !off || orders.user.is_some() {
        identity::take(orders.user.as_ref()).map_err(step("become the program's user"))?;
    }
    if orders.guarded {
        guard::leave(orders.parent).map_err(step("leave a guard behind"))?;
    }
    // After the user, whose change would lift it.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from).map_err(step("be tied to the daemon"))?;
    if parent_id() != orders.parent {
        return Err(EnterError::Orphan);
    }
    if !off {
        umask(Mode::from_bits_truncate(0o077));
    }
    std::env::set_current_dir(&orders.folder).map_err(step("enter the program's folder"))?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(orders.environment.iter().map(|(k, v)| (k, v)));
    if off {
        let source = command.exec();
        return Err(EnterError::Exec { program: Path::new(program).display().to_string(), source });
    }
    let is_whole = files::shut(&orders.policy, &orders.reopen)?;
    if required && !is_whole {
        return Err(EnterError::Lacking(there));
    }
    if there.seccomp {
        calls::shut(&orders.policy, there.landlock >= LANDLOCK_WHOLE)?;
    }
    let source = command.exec();
    Err(EnterError::Exec { program: Path::new(program).display().to_string(), source })
}
