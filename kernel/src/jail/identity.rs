//! Who a program is: a user without privileges, and none to gain.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use caps::CapSet;
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};

/// A user to become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// All groups, the first one included.
    pub groups: Vec<u32>,
}

/// What a user is to the system.
struct Ids {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl Ids {
    fn of(user: &User) -> Ids {
        let groups = user.groups.iter().copied().map(Gid::from_raw).collect();
        Ids { uid: Uid::from_raw(user.uid), gid: Gid::from_raw(user.gid), groups }
    }

    /// Takes them for this process, the user last, who may change nothing any more. Allocates nothing.
    fn take(&self) -> nix::Result<()> {
        setgroups(&self.groups)?;
        setresgid(self.gid, self.gid, self.gid)?;
        setresuid(self.uid, self.uid, self.uid)
    }
}

/// Becomes the user, and gives up every privilege: of root nothing is left but the name.
///
/// # Errors
///
/// This process may not become that user.
pub(super) fn take(user: Option<&User>) -> io::Result<()> {
    // While this process still may.
    let bounds = caps::read(None, CapSet::Bounding).map_err(io::Error::other)?;
    if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP).unwrap_or(false) {
        for capability in bounds {
            caps::drop(None, CapSet::Bounding, capability).map_err(io::Error::other)?;
        }
    }
    if let Some(user) = user.filter(|user| user.uid != geteuid().as_raw()) {
        Ids::of(user).take()?;
    }
    // Systems before 4.3 have no ambient set, and so nothing in it.
    let _ = caps::clear(None, CapSet::Ambient);
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(io::Error::other)?;
    }
    prctl::set_no_new_privs()?;
    Ok(())
}

/// Has a command run as another user, without privileges that this process may have.
pub fn run_as(command: &mut Command, user: &User) {
    let ids = Ids::of(user);
    // SAFETY: between fork and exec the closure makes system calls alone and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            ids.take()?;
            prctl::set_no_new_privs()?;
            Ok(())
        });
    }
}
