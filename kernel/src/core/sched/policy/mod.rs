//! The policies: who goes first where not all can go, inside one class.
//!
//! A policy ranks; it neither makes rows nor knows of memory. Everything that competes has a [`View`], and its
//! [`Rank`] orders it among the contexts of its class that run, and its process in the line for memory. Classes
//! stand above every policy, and a deadline in the class `realtime` above every rank.

mod edf;
pub(super) mod fair;
mod fifo;
mod mlfq;
mod rr;

use std::fmt;
use std::str::FromStr;

use syscalls::call::Class;
use syscalls::{Errno, Fault};

use super::super::call::CallNo;
use super::super::event::Now;
use super::account::Account;

/// How the contexts of a class share a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// In the order in which generations were asked for.
    Fifo,
    /// In turns.
    Rr,
    /// By weighted service, with a bound on the difference.
    #[default]
    Fair,
    /// By levels: whoever has used little of late goes first.
    Mlfq,
    /// By deadline.
    Edf,
}

impl Policy {
    /// All of them with their names.
    pub const ALL: [(&'static str, Policy); 5] = [
        ("fifo", Policy::Fifo),
        ("rr", Policy::Rr),
        ("fair", Policy::Fair),
        ("mlfq", Policy::Mlfq),
        ("edf", Policy::Edf),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, policy)| *policy == self).map_or("", |(name, _)| name)
    }

    /// Where something stands in its class.
    pub(super) fn rank(self, view: &View) -> Rank {
        if let (Class::Realtime, Some(deadline)) = (view.class, view.deadline) {
            return Rank { due: deadline.0, ..Rank::default() };
        }
        match self {
            Policy::Fifo => fifo::rank(view),
            Policy::Rr => rr::rank(view),
            Policy::Fair => fair::rank(view),
            Policy::Mlfq => mlfq::rank(view),
            Policy::Edf => edf::rank(view),
        }
    }

    /// Whether deadlines order what is of a class.
    pub(in crate::core) fn goes_by_deadline(self, class: Class) -> bool {
        class == Class::Realtime || self == Policy::Edf
    }

    /// The period that a time is in: with a new one ranks change, whatever anybody has done.
    pub(super) fn period(self, now: Now) -> u64 {
        match self {
            Policy::Mlfq => mlfq::epoch(now),
            Policy::Fifo | Policy::Rr | Policy::Fair | Policy::Edf => 0,
        }
    }

    /// Whether processes are held together by weighted service and by pace.
    pub(super) fn is_fair(self) -> bool {
        self == Policy::Fair
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Policy {
    type Err = Fault;

    fn from_str(name: &str) -> Result<Policy, Fault> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, policy)| *policy).ok_or_else(|| {
            let shown: String = name.chars().take(64).collect();
            let names: Vec<&str> = Self::ALL.iter().map(|(name, _)| *name).collect();
            Fault::new(
                Errno::EINVAL,
                format!("there is no policy {shown}; choose one of {}", names.join(", ")),
            )
        })
    }
}

/// What a policy can see of a generation.
pub(super) struct View<'a> {
    pub class: Class,
    pub now: Now,
    /// When it was asked for, by number.
    pub call: CallNo,
    pub deadline: Option<Now>,
    /// What its process has attained here; absent if nothing.
    pub account: Option<&'a Account>,
}

/// A place in the order of a class; the least goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::core) struct Rank {
    /// The deadline in microseconds, where it counts.
    pub due: u64,
    /// Higher tiers have decode rows only while these hardly slow the lower ones down.
    pub tier: u8,
    /// The order inside a tier.
    pub key: u64,
}

impl Rank {
    /// The class and the rank in it as one number, of the same order: sorting compares it many times in every step.
    /// Where a deadline counts, nothing else does.
    pub(in crate::core::sched) fn in_class(self, class: Class) -> u128 {
        debug_assert!(self.due == u64::MAX || (self.tier, self.key) == (0, 0));
        let rank = match self.due {
            u64::MAX => 1 << 72 | u128::from(self.tier) << 64 | u128::from(self.key),
            due => u128::from(due),
        };
        (class as u128) << 73 | rank
    }
}

impl Default for Rank {
    fn default() -> Self {
        Rank { due: u64::MAX, tier: 0, key: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_unknown_is_refused_with_the_names_of_all() {
        let fault = "lottery".parse::<Policy>().expect_err("there is none");
        assert_eq!(fault.message, "there is no policy lottery; choose one of fifo, rr, fair, mlfq, edf");
        for (name, policy) in Policy::ALL {
            assert_eq!((name.parse(), policy.to_string().as_str()), (Ok(policy), name));
        }
    }

    #[test]
    fn rank_in_class_is_of_the_order_of_class_and_rank() {
        let ranks = [0, 1, 1 << 40, u64::MAX - 1, u64::MAX].map(|due| Rank { due, ..Rank::default() });
        let keys = [(0, 0), (0, 7), (0, u64::MAX), (1, 0), (3, 1 << 50), (u8::MAX, u64::MAX)];
        let ranks = ranks.into_iter().chain(keys.map(|(tier, key)| Rank { tier, key, ..Rank::default() }));
        let classes = [Class::Realtime, Class::Interactive, Class::Normal, Class::Batch];
        let all: Vec<_> = ranks.flat_map(|rank| classes.map(|class| (class, rank))).collect();
        for (class, rank) in &all {
            for (class_b, rank_b) in &all {
                let expected = (class, rank).cmp(&(class_b, rank_b));
                assert_eq!(
                    rank.in_class(*class).cmp(&rank_b.in_class(*class_b)),
                    expected,
                    "{rank:?} {rank_b:?}"
                );
            }
        }
    }
}
