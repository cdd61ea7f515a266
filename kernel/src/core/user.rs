//! What each user has, and may have at most, over all of his processes.
//!
//! Limits keep one user from using up what all share. A process with the capability `resource` is not bound by them, but
//! what it has counts. How much may be kept in stores the host knows, since it is on disk.

use std::collections::BTreeMap;

use syscalls::call::Capability;
use syscalls::{Errno, Fault};

use super::capability::Caps;

/// What one user may have at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserLimits {
    /// Zombies included.
    pub processes: u64,
    pub contexts: u64,
    pub connections: u64,
    /// Calls without an answer.
    pub calls: u64,
}

impl Default for UserLimits {
    /// None. The host has limits for those whom it does not know.
    fn default() -> Self {
        UserLimits { processes: u64::MAX, contexts: u64::MAX, connections: u64::MAX, calls: u64::MAX }
    }
}

/// How many of something each user has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally(BTreeMap<u32, u64>);

impl Tally {
    /// One more.
    pub(super) fn add(&mut self, uid: u32) {
        self.grow(uid, 1);
    }

    /// One less.
    pub(super) fn remove(&mut self, uid: u32) {
        self.shrink(uid, 1);
    }

    /// So many more.
    pub(super) fn grow(&mut self, uid: u32, by: u64) {
        if by > 0 {
            *self.0.entry(uid).or_default() += by;
        }
    }

    /// So many less.
    pub(super) fn shrink(&mut self, uid: u32, by: u64) {
        let Some(count) = self.0.get_mut(&uid) else { return };
        *count -= by;
        if *count == 0 {
            self.0.remove(&uid);
        }
    }

    /// How many a user has.
    pub(super) fn of(&self, uid: u32) -> u64 {
        self.0.get(&uid).copied().unwrap_or_default()
    }

    /// Checks that a user may have `more` of them, which the limit of this name bounds.
    ///
    /// # Errors
    ///
    /// EMFILE, or EAGAIN of calls, which end by themselves.
    pub(super) fn check(&self, uid: u32, caps: Caps, more: u64, most: u64, name: &str) -> Result<(), Fault> {
        let has = self.of(uid);
        if has.saturating_add(more) <= most || caps.has(Capability::Resource) {
            return Ok(());
        }
        let errno = if name == "calls" { Errno::EAGAIN } else { Errno::EMFILE };
        let message = format!(
            "user {uid} has {has} {name} and would get {more} more; the limit is {most}, end some or have user_limits in the daemon's configuration raised"
        );
        Err(Fault::new(errno, message))
    }
}

/// Checks that a user may have one more of what the daemon has few of, so that one user does not take all of them.
///
/// # Errors
///
/// EAGAIN with the number that is there and the limit.
pub(super) fn check_part(uid: u32, caps: Caps, has: usize, most: usize, name: &str) -> Result<(), Fault> {
    if has < most || caps.has(Capability::Resource) {
        return Ok(());
    }
    let message = format!("user {uid} has {has} {name}; the limit is {most}, end some");
    Err(Fault::new(Errno::EAGAIN, message))
}

impl FromIterator<u32> for Tally {
    fn from_iter<I: IntoIterator<Item = u32>>(users: I) -> Self {
        let mut tally = Tally::default();
        users.into_iter().for_each(|uid| tally.add(uid));
        tally
    }
}
