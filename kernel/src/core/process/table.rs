//! The process table.

use std::collections::BTreeSet;

use syscalls::call::Lifetime;
use syscalls::limits::{LASTING_PER_USER_MAX, PROCESSES_MAX};
use syscalls::{Errno, Fault, Pid};

use super::super::table::Table;
use super::super::user::Tally;
use super::{Identity, Process, Zombie};

/// One entry: a process is alive or a zombie, and never both.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "who lives is looked up for every row, and is behind one pointer already"
)]
enum Entry {
    Living(Process),
    Zombie(Box<Zombie>),
}

/// All processes, by pid. Pids count up and are not used again.
#[derive(Debug)]
pub(in crate::core) struct ProcessTable {
    entries: Table<Pid, Entry>,
    /// Every entry with its parent before it.
    children: BTreeSet<(Pid, Pid)>,
    /// Living processes that outlive their connections, by user.
    lasting: BTreeSet<(u32, Pid)>,
    /// Entries of each user.
    of_user: Tally,
    /// Bytes of the messages that wait for the living processes of each user, and of the replies that are kept for them.
    pub mail: Tally,
    pub replies: Tally,
    next: u32,
    /// Processes of the last daemon that did not outlive it, and how many they were.
    pub interrupted: Vec<Interrupted>,
    pub interrupted_total: u64,
}

/// A process that ended because the daemon did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::core) struct Interrupted {
    pub pid: Pid,
    pub uid: u32,
    pub name: String,
}

impl ProcessTable {
    /// An empty table.
    pub(in crate::core) fn new() -> Self {
        ProcessTable {
            entries: Table::default(),
            children: BTreeSet::new(),
            lasting: BTreeSet::new(),
            of_user: Tally::default(),
            mail: Tally::default(),
            replies: Tally::default(),
            next: Pid::KERNEL.0 + 1,
            interrupted: Vec::new(),
            interrupted_total: 0,
        }
    }

    /// The pid of the next process.
    ///
    /// # Errors
    ///
    /// EMFILE where the table is full, or where every pid has been used.
    pub(in crate::core) fn next_pid(&mut self) -> Result<Pid, Fault> {
        if self.entries.len() >= PROCESSES_MAX || self.next == u32::MAX {
            let message = format!("there are {PROCESSES_MAX} processes, which is the limit; end some");
            return Err(Fault::new(Errno::EMFILE, message));
        }
        self.next += 1;
        Ok(Pid(self.next - 1))
    }

    /// Pids from now on come after this one.
    pub(in crate::core) fn count_from(&mut self, last: Pid) {
        self.next = self.next.max(last.0.saturating_add(1));
    }

    /// The last pid that was given out.
    pub(in crate::core) fn last(&self) -> Pid {
        Pid(self.next - 1)
    }

    /// Enters a process under the pid that it has.
    pub(in crate::core) fn enter(&mut self, process: Process) {
        let pid = process.id.pid;
        self.of_user.add(process.id.uid);
        self.mail.grow(process.id.uid, process.mail_bytes());
        self.replies.grow(process.id.uid, process.reply_bytes());
        self.children.insert((process.id.parent, pid));
        if process.lifetime != Lifetime::Connection {
            self.lasting.insert((process.id.uid, pid));
        }
        let before = self.entries.insert(pid, Entry::Living(process));
        assert!(before.is_none(), "pid {pid} was given twice");
    }

    /// Checks that a user may have `more` processes that outlive their connections.
    ///
    /// # Errors
    ///
    /// EMFILE where he has as many as there may be.
    pub(in crate::core) fn check_lasting(&self, uid: u32, more: usize) -> Result<(), Fault> {
        let has = self.lasting.range((uid, Pid(0))..=(uid, Pid(u32::MAX))).count();
        if has + more <= LASTING_PER_USER_MAX {
            return Ok(());
        }
        let message = format!(
            "user {uid} has {has} processes that outlive their connections and would get {more} more; the limit is {LASTING_PER_USER_MAX}, end some"
        );
        Err(Fault::new(Errno::EMFILE, message))
    }

    /// How many each user has, zombies included.
    pub(in crate::core) fn of_user(&self) -> &Tally {
        &self.of_user
    }

    /// Whether a living process ends with its connection.
    pub(in crate::core) fn is_bound(&self, pid: Pid) -> bool {
        self.living(pid).is_some_and(|p| p.lifetime == Lifetime::Connection)
    }

    /// Lets a living process outlive more than before.
    pub(in crate::core) fn prolong(&mut self, pid: Pid, lifetime: Lifetime) {
        let Some(process) = self.living_mut(pid) else { return };
        process.lifetime = process.lifetime.max(lifetime);
        let (uid, lasts) = (process.id.uid, process.lifetime != Lifetime::Connection);
        if lasts {
            self.lasting.insert((uid, pid));
        }
    }

    /// The process, if it lives.
    pub(in crate::core) fn living(&self, pid: Pid) -> Option<&Process> {
        match self.entries.get(&pid) {
            Some(Entry::Living(process)) => Some(process),
            _ => None,
        }
    }

    /// The process, if it lives.
    pub(in crate::core) fn living_mut(&mut self, pid: Pid) -> Option<&mut Process> {
        match self.entries.get_mut(&pid) {
            Some(Entry::Living(process)) => Some(process),
            _ => None,
        }
    }

    /// The process, if it has ended and nobody has waited for it.
    pub(in crate::core) fn zombie(&self, pid: Pid) -> Option<&Zombie> {
        match self.entries.get(&pid) {
            Some(Entry::Zombie(zombie)) => Some(zombie),
            _ => None,
        }
    }

    /// What is known of a process, alive or not.
    pub(in crate::core) fn identity(&self, pid: Pid) -> Option<&Identity> {
        match self.entries.get(&pid)? {
            Entry::Living(process) => Some(&process.id),
            Entry::Zombie(zombie) => Some(&zombie.id),
        }
    }

    /// The living processes, by pid.
    pub(in crate::core) fn all_living(&self) -> impl Iterator<Item = &Process> {
        self.entries.values().filter_map(|e| match e {
            Entry::Living(process) => Some(process),
            Entry::Zombie(_) => None,
        })
    }

    /// All pids, in their order.
    pub(in crate::core) fn pids(&self) -> impl Iterator<Item = Pid> {
        self.entries.keys()
    }

    /// Entries, zombies included.
    pub(in crate::core) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The children of a process, by pid.
    pub(in crate::core) fn children(&self, parent: Pid) -> impl Iterator<Item = Pid> {
        self.children.range((parent, Pid(0))..=(parent, Pid(u32::MAX))).map(|(_, child)| *child)
    }

    /// Makes a zombie of a living process.
    pub(in crate::core) fn bury(&mut self, pid: Pid, status: u8) {
        let Some(Entry::Living(process)) = self.entries.remove(&pid) else {
            unreachable!("only a living process ends");
        };
        self.lasting.remove(&(process.id.uid, pid));
        self.mail.shrink(process.id.uid, process.mail_bytes());
        self.replies.shrink(process.id.uid, process.reply_bytes());
        self.entries.insert(pid, Entry::Zombie(Box::new(Zombie { id: process.id, status })));
    }

    /// Removes a zombie and tells its status.
    pub(in crate::core) fn reap(&mut self, pid: Pid) -> Option<u8> {
        let zombie = self.zombie(pid)?;
        let (parent, uid, status) = (zombie.id.parent, zombie.id.uid, zombie.status);
        self.entries.remove(&pid);
        self.of_user.remove(uid);
        self.children.remove(&(parent, pid));
        Some(status)
    }

    /// Gives a process another parent.
    pub(in crate::core) fn adopt(&mut self, child: Pid, parent: Pid) {
        let id = match self.entries.get_mut(&child) {
            Some(Entry::Living(process)) => &mut process.id,
            Some(Entry::Zombie(zombie)) => &mut zombie.id,
            None => return,
        };
        self.children.remove(&(id.parent, child));
        id.parent = parent;
        self.children.insert((parent, child));
    }

    /// Whether `pid` is `ancestor` or descends from it.
    pub(in crate::core) fn descends(&self, pid: Pid, ancestor: Pid) -> bool {
        let mut at = pid;
        loop {
            if at == ancestor {
                return true;
            }
            match self.identity(at) {
                Some(id) => at = id.parent,
                None => return false,
            }
        }
    }
}
