//! The generations in memory, in one dense array, since every step looks at all of them.
//!
//! A [`Runner`] has copies of what every step asks about a generation and what seldom changes. The rule for them: they
//! are taken when the generation comes in, and taken again by [`Kernel::recall`](super::super::Kernel::recall), which
//! whoever changes one of them in a process calls. What changes from step to step (the log, what is computed of it, the
//! account's figures) is not here. The invariants compare each copy with its source.

use std::collections::BTreeMap;

use syscalls::call::Class;
use syscalls::{ContextId, Pid};

use super::super::call::CallNo;
use super::super::event::Now;
use super::super::group::GroupId;
use super::super::process::Process;
use super::account::AccountNo;

/// A generation in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) struct Runner {
    pub context: ContextId,
    pub call: CallNo,
    pub owner: Owner,
    /// When it came in.
    pub since: Now,
}

/// What is known of the process of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) struct Owner {
    pub pid: Pid,
    pub group: GroupId,
    pub account: AccountNo,
    pub class: Class,
    pub nice: i8,
    /// It has a limit of tokens a second.
    pub rated: bool,
}

impl Owner {
    /// As the process is now.
    pub(in crate::core) fn of(process: &Process, account: AccountNo) -> Self {
        Owner {
            pid: process.id.pid,
            group: process.id.group,
            account,
            class: process.class(),
            nice: process.id.nice,
            rated: process.bucket.is_some(),
        }
    }
}

impl Runner {
    /// The order among running contexts: the class, then the time at which the generation was asked for.
    pub(in crate::core) fn seniority(&self) -> (Class, CallNo) {
        (self.owner.class, self.call)
    }

    fn key(&self) -> (Pid, ContextId) {
        (self.owner.pid, self.context)
    }
}

/// All of one model, by process and number. There are no more of them than a worker has sequences.
#[derive(Debug, Default)]
pub(in crate::core) struct Running {
    all: Vec<Runner>,
    /// How many there are of each process.
    loads: BTreeMap<Pid, u32>,
    /// Counts changes.
    changes: u64,
}

impl Running {
    /// All of them, those of a process one after another.
    pub(in crate::core) fn iter(&self) -> impl DoubleEndedIterator<Item = &Runner> {
        self.all.iter()
    }

    /// How many there are.
    pub(in crate::core) fn len(&self) -> usize {
        self.all.len()
    }

    /// How many there are of a process.
    pub(in crate::core) fn of(&self, pid: Pid) -> u32 {
        self.loads.get(&pid).copied().unwrap_or_default()
    }

    /// A number that is another one whenever somebody has come in, has left, or is known as something else.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// One that comes in.
    pub(super) fn enter(&mut self, runner: Runner) {
        self.changes += 1;
        if let Err(at) = self.all.binary_search_by_key(&runner.key(), Runner::key) {
            self.all.insert(at, runner);
            *self.loads.entry(runner.owner.pid).or_default() += 1;
        }
    }

    /// One that leaves.
    pub(super) fn leave(&mut self, pid: Pid, context: ContextId) {
        let Ok(at) = self.all.binary_search_by_key(&(pid, context), Runner::key) else { return };
        self.all.remove(at);
        self.changes += 1;
        if let Some(load) = self.loads.get_mut(&pid) {
            *load -= 1;
            if *load == 0 {
                self.loads.remove(&pid);
            }
        }
    }

    /// Takes the copies of what is known of a process again.
    pub(super) fn recall(&mut self, process: &Process) {
        self.changes += 1;
        let pid = process.id.pid;
        let from = self.all.partition_point(|runner| runner.owner.pid < pid);
        for runner in self.all[from..].iter_mut().take_while(|runner| runner.owner.pid == pid) {
            runner.owner = Owner::of(process, runner.owner.account);
        }
    }
}
