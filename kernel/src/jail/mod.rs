//! The jail: what a program that the daemon starts can reach, which is as little as it needs.
//!
//! [`Policy`] says what that is. The daemon starts no program itself but the helper `llmasos-jail`, with [`Orders`];
//! the helper gives up what it has (descriptors, privileges, its user where there is another one), shuts files and
//! signals (Landlock) and system calls (seccomp) off, and becomes the program. A helper, because between fork and exec
//! of a process nothing may be allocated, and because the daemon stays as it is when one of the steps fails.
//!
//! The helper leaves a guard behind where nothing of a program may outlive it, and does no more than that and change
//! the user where the jail is off. What the system lacks is left out, unless the orders require all of it; [`support`]
//! says what there is.

mod calls;
mod descriptors;
mod enter;
mod files;
mod guard;
pub mod helper;
mod identity;
mod limits;
mod policy;
mod support;

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

pub use enter::{EnterError, enter};
pub use identity::{User, run_as};
pub use policy::{Attributes, Limits, Network, Policy};
pub use support::{Support, support};

/// Whether programs are jailed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strictness {
    /// With what the system has.
    #[default]
    Auto,
    /// With all of it, or not at all.
    Required,
    /// Programs are started as they are.
    Off,
}

/// What the helper is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// What the program can reach.
    pub policy: Policy,
    /// Whom to become first; the helper's own user where none is named.
    pub user: Option<User>,
    /// The whole environment of the program.
    pub environment: Vec<(String, String)>,
    /// The folder that it starts in.
    pub folder: PathBuf,
    /// The descriptors that it keeps, beside the first three.
    pub keep: Vec<RawFd>,
    /// Those of them whose files it may open again, for reading and under whatever name.
    #[serde(default)]
    pub reopen: Vec<RawFd>,
    /// The process whose end ends the program.
    pub parent: u32,
    /// Nothing that the program starts outlives it, or the daemon.
    pub guarded: bool,
    /// How much of the policy is enforced. Whose program it is holds in any case.
    pub strictness: Strictness,
}

/// The command that runs a program in the jail. Its standard streams are the caller's to set, its environment is not.
///
/// # Errors
///
/// The orders have no JSON form: a path is no UTF-8.
pub fn command<A: Into<OsString>>(
    helper: &Path,
    orders: &Orders,
    program: &Path,
    arguments: impl IntoIterator<Item = A>,
) -> std::io::Result<Command> {
    let mut command = Command::new(helper);
    command.env_clear().env(helper::ORDERS_VAR, serde_json::to_string(orders)?).arg("--").arg(program);
    command.args(arguments.into_iter().map(Into::into));
    Ok(command)
}
