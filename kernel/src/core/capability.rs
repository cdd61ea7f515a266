//! Capabilities: what a process may do beside working on contexts of its own, and which call takes which.
//!
//! Those of a user come from the socket (`Credentials`), those of the administrator too. A process has at most what the
//! process has that began it, and whoever connects from within a program that the daemon started has at most what that
//! program's process has. So a program can be started with less than its user may do, and finds no way back to it.

use std::ops::BitAnd;

use serde::{Deserialize, Serialize};
use syscalls::call::{Capability, Lifetime};
use syscalls::{Call, Errno, Fault, Pid};

use super::Kernel;
use super::event::Credentials;

/// A set of capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Capability>", into = "Vec<Capability>")]
pub struct Caps(u32);

impl Caps {
    /// Those of the administrator.
    pub const ALL: Caps = Caps((1 << Capability::ALL.len()) - 1);

    /// Those of every user: the ones before the first that is the administrator's.
    pub const USER: Caps = Caps((1 << Capability::Mount as u32) - 1);

    /// None at all.
    pub const NONE: Caps = Caps(0);

    /// Whether one of them is in it.
    pub fn has(self, capability: Capability) -> bool {
        self.0 & (1 << capability as u32) != 0
    }

    /// Whether all of these are in the other set.
    pub fn are_within(self, other: Caps) -> bool {
        self & other == self
    }

    /// Checks that a process has one of them.
    ///
    /// # Errors
    ///
    /// EPERM with its name and how to get it.
    pub fn need(self, capability: Capability, what: &str) -> Result<(), Fault> {
        if self.has(capability) {
            return Ok(());
        }
        let name = capability.name();
        let how = match Caps::USER.has(capability) {
            true => "its parent, or its own hello, has left it out of caps; ask from a process that has it",
            false => {
                "only the administrator has it: root, members of the admin group, and the user that the daemon runs as"
            }
        };
        let message = format!("{what} takes the capability {name}, which this process has not; {how}");
        Err(Fault::new(Errno::EPERM, message))
    }

    /// What a process begins with that asks for these, or for all that it may have.
    ///
    /// # Errors
    ///
    /// EPERM where it asks for more.
    pub fn give(self, asked: Option<&[Capability]>) -> Result<Caps, Fault> {
        let Some(asked) = asked else { return Ok(self) };
        match asked.iter().find(|capability| !self.has(**capability)) {
            Some(capability) => {
                let message = format!(
                    "caps names {}, which whoever begins the process has not itself; leave it out",
                    capability.name()
                );
                Err(Fault::new(Errno::EPERM, message))
            }
            None => Ok(asked.iter().copied().collect()),
        }
    }
}

impl FromIterator<Capability> for Caps {
    fn from_iter<I: IntoIterator<Item = Capability>>(list: I) -> Self {
        Caps(list.into_iter().fold(0, |set, capability| set | 1 << capability as u32))
    }
}

impl From<Vec<Capability>> for Caps {
    fn from(list: Vec<Capability>) -> Self {
        list.into_iter().collect()
    }
}

impl From<Caps> for Vec<Capability> {
    fn from(set: Caps) -> Self {
        Capability::ALL.iter().copied().filter(|capability| set.has(*capability)).collect()
    }
}

impl BitAnd for Caps {
    type Output = Caps;

    fn bitand(self, other: Caps) -> Caps {
        Caps(self.0 & other.0)
    }
}

/// The capability that a call takes whatever its arguments are, and what it is taken for.
pub(super) fn taken_by(call: &Call) -> Option<(Capability, &'static str)> {
    Some(match call {
        Call::Spawn(args) if !args.argv.is_empty() => (Capability::Exec, "starting a program"),
        Call::ServiceStart(args) if args.transient.is_some() => (Capability::Exec, "starting a program"),
        Call::Spawn(_) => (Capability::Spawn, "making a child process"),
        Call::Send(_) => (Capability::Ipc, "sending a message"),
        Call::Share(_) | Call::Unshare(_) => (Capability::Share, "publishing a segment"),
        Call::Snapshot(_) | Call::Discard(_) => (Capability::Persist, "keeping a snapshot"),
        Call::Detach(_) => (Capability::Persist, "a process that outlives its connection"),
        Call::StorePut(_)
        | Call::StoreGet(_)
        | Call::StoreDelete(_)
        | Call::StoreList(_)
        | Call::StoreSearch(_) => (Capability::Store, "using a store"),
        Call::Train(_) | Call::Compress(_) | Call::Evaluate(_) => (Capability::Train, "training"),
        Call::Compute(_) => (Capability::Train, "computing"),
        Call::Mount(_) => (Capability::Mount, "mounting a model"),
        Call::Unmount(_) => (Capability::Umount, "unmounting a model"),
        Call::Setpolicy(_) => (Capability::Policy, "changing the policy"),
        Call::Shutdown(_) => (Capability::Shutdown, "stopping the daemon"),
        _ => return None,
    })
}

/// Checks that a process may be begun that outlives so much.
pub(super) fn check_lifetime(caps: Caps, lifetime: Lifetime) -> Result<(), Fault> {
    match lifetime {
        Lifetime::Connection => Ok(()),
        Lifetime::Detached | Lifetime::Persistent => {
            caps.need(Capability::Persist, "a process that outlives its connection")
        }
    }
}

impl Kernel {
    /// What whoever is at the other end of a connection may do at most.
    pub(super) fn caps_of(&self, credentials: &Credentials) -> Caps {
        let user = if credentials.admin { Caps::ALL } else { Caps::USER };
        match credentials.program {
            // One that has ended leaves nothing to those who came out of it.
            Some(pid) => user & self.processes.living(pid).map_or(Caps::NONE, |process| process.caps),
            None => user,
        }
    }

    /// Gives a process that has come under another one, and those below it, what they may do there: what they began
    /// with as far as their new parent has it. One of another user gets nothing that it had not.
    pub(super) fn shrink_caps(&mut self, pid: Pid, uid: u32) {
        for pid in self.flock(pid) {
            let parent = self.processes.identity(pid).map(|id| id.parent);
            let most = parent.and_then(|parent| self.processes.living(parent)).map(|parent| parent.caps);
            let Some(most) = most else { continue };
            if let Some(process) = self.processes.living_mut(pid) {
                let own = if process.id.uid == uid { process.bound } else { process.caps };
                process.caps = own & most;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_what_is_not_the_administrators() {
        let list: Vec<Capability> = Caps::USER.into();
        assert!(list.contains(&Capability::Train) && !list.contains(&Capability::Mount));
        assert_eq!(Vec::from(Caps::ALL).len(), Capability::ALL.len());
        assert!(Caps::USER.are_within(Caps::ALL) && !Caps::ALL.are_within(Caps::USER));
        for (at, capability) in Capability::ALL.iter().enumerate() {
            assert_eq!(at, *capability as usize, "{} is out of order", capability.name());
            let written = serde_json::to_string(capability).expect("it has a form");
            assert_eq!(written, format!("\"{}\"", capability.name()));
        }
    }
}
