//! What processes and groups have attained on one model, and the virtual time at which newcomers begin.

use std::collections::BTreeMap;

use syscalls::Pid;
use syscalls::call::Class;

use super::super::group::GroupId;
use super::super::table::Table;
use super::weight::{WEIGHT_NORMAL, stride, weight};

/// A microsecond of virtual time, in parts: what is charged for a short step at a great weight is not rounded away.
pub(super) const VIRTUAL_US: u64 = 1024;

/// What a measured time comes to in virtual time, at a nice value.
pub(in crate::core) fn virtual_time(us: u64, nice: i8) -> u64 {
    match weight(nice) {
        // As a rule, and a division takes as long as all the rest.
        WEIGHT_NORMAL => us.saturating_mul(VIRTUAL_US),
        weight => us.saturating_mul(VIRTUAL_US * WEIGHT_NORMAL) / weight,
    }
}

/// How far a process or a group is in one class. Times of two classes say nothing about each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::core) struct Attained {
    /// Virtual time: its share of measured time, divided by its weight, in parts of a microsecond ([`VIRTUAL_US`]).
    pub service: u64,
    /// Decode steps taken part in, in 1,024ths for nice 0.
    pub pace: u64,
    /// The last plan in which it was backlogged.
    pub seen: u64,
}

impl Attained {
    /// Counts one decode step. Whoever lags by more than a step (its contexts were busy with prompts) is brought
    /// to the pace of its class first.
    pub(super) fn take_step(&mut self, clock: u64, nice: i8) {
        self.pace = self.pace.max(clock.saturating_sub(stride(nice))).saturating_add(stride(nice));
    }
}

/// The virtual times of the backlogged members of a group, and their weights together.
#[derive(Clone, Copy, Debug)]
pub(in crate::core) struct Spread {
    pub(super) least: u64,
    greatest: u64,
    weights: u64,
}

impl Default for Spread {
    fn default() -> Self {
        Spread { least: u64::MAX, greatest: 0, weights: 0 }
    }
}

impl Spread {
    /// That of one member.
    pub(in crate::core) fn of(service: u64, weight: u64) -> Spread {
        Spread { least: service, greatest: service, weights: weight }
    }

    /// Counts those of another.
    pub(in crate::core) fn join(&mut self, other: Spread) {
        self.least = self.least.min(other.least);
        self.greatest = self.greatest.max(other.greatest);
        self.weights = self.weights.saturating_add(other.weights);
    }

    /// Whether it is of no members.
    pub(in crate::core) fn is_empty(&self) -> bool {
        self.weights == 0
    }
}

/// The virtual time at which newcomers to a group begin.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::core) struct Clock {
    at: u64,
    /// Until members are seen again it moves no further than this.
    most: u64,
    /// The weights of those that were backlogged then.
    weights: u64,
}

impl Clock {
    /// The virtual time at which newcomers begin.
    pub(in crate::core) fn at(&self) -> u64 {
        self.at
    }

    /// Brings it up to the least virtual time of the backlogged members. Until they are seen again it may move up to the
    /// greatest of these, and `lag` behind the least.
    pub(in crate::core) fn see(&mut self, members: Spread, lag: u64) {
        self.at = self.at.max(members.least);
        self.most = members.greatest.min(members.least.saturating_add(lag));
        self.weights = members.weights;
    }

    /// Moves it on by a time that members were charged with.
    pub(in crate::core) fn pass(&mut self, us: u64) {
        let passed = us.saturating_mul(VIRTUAL_US * WEIGHT_NORMAL) / self.weights.max(1);
        self.at = self.at.max(self.at.saturating_add(passed).min(self.most));
    }
}

/// What a process has attained on a model, over its whole life.
#[derive(Clone, Debug, Default)]
pub(in crate::core) struct Account {
    classes: [Attained; 4],
    /// The last step that it had a row in.
    pub served: u64,
    /// Measured time since `epoch` began.
    pub used_us: u64,
    /// The period that `used_us` counts in.
    pub epoch: u64,
}

impl Account {
    /// How far it is in a class.
    pub(super) fn of(&self, class: Class) -> Attained {
        self.classes[class as usize]
    }

    /// How far it is in a class, to be changed.
    pub(super) fn of_mut(&mut self, class: Class) -> &mut Attained {
        &mut self.classes[class as usize]
    }

    /// Counts a share of a step's time.
    pub(super) fn charge(&mut self, class: Class, us: u64, nice: i8) {
        let attained = self.of_mut(class);
        attained.service = attained.service.saturating_add(virtual_time(us, nice));
    }
}

/// Where the account of a process stands. It is the process's until that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) struct AccountNo(u32);

/// All accounts of one model.
#[derive(Debug, Default)]
pub(in crate::core) struct Accounts {
    /// In one array, since every row of every step asks for its account several times.
    accounts: Vec<Account>,
    free: Vec<AccountNo>,
    numbers: Table<Pid, AccountNo>,
    groups: BTreeMap<(Class, GroupId), Attained>,
    clocks: BTreeMap<(Class, GroupId), Clock>,
    /// The pace of each class.
    paces: [u64; 4],
}

impl Accounts {
    /// What a process has attained; nothing yet for one that has never wanted to run here.
    pub(super) fn process(&self, pid: Pid) -> Option<&Account> {
        self.numbers.get(&pid).map(|number| self.at(*number))
    }

    /// The account of a process, opened where it has none. A newcomer to a group begins at its clock, and as if it had had a
    /// row in the step that has begun last: or newcomers that come again and again would stay before all others.
    pub(super) fn open(&mut self, pid: Pid, (class, group): (Class, GroupId), begun: u64) -> AccountNo {
        if let Some(number) = self.numbers.get(&pid) {
            return *number;
        }
        let clock = self.clock(class, group);
        let number = self.free.pop().unwrap_or_else(|| {
            self.accounts.push(Account::default());
            AccountNo(self.accounts.len() as u32 - 1)
        });
        let account = self.at_mut(number);
        account.served = begun;
        account.of_mut(class).service = clock;
        self.numbers.insert(pid, number);
        number
    }

    /// An account.
    pub(super) fn at(&self, number: AccountNo) -> &Account {
        &self.accounts[number.0 as usize]
    }

    /// An account, to be changed.
    pub(super) fn at_mut(&mut self, number: AccountNo) -> &mut Account {
        &mut self.accounts[number.0 as usize]
    }

    /// Whose account it is.
    pub(in crate::core) fn is_of(&self, number: AccountNo, pid: Pid) -> bool {
        self.numbers.get(&pid) == Some(&number)
    }

    /// What a group has attained in a class.
    pub(super) fn group_mut(&mut self, class: Class, group: GroupId) -> &mut Attained {
        self.groups.entry((class, group)).or_default()
    }

    /// The virtual time at which newcomers to a group begin.
    pub(super) fn clock(&self, class: Class, group: GroupId) -> u64 {
        self.clocks.get(&(class, group)).map_or(0, Clock::at)
    }

    /// The clock of a group.
    pub(super) fn clock_mut(&mut self, class: Class, group: GroupId) -> &mut Clock {
        self.clocks.entry((class, group)).or_default()
    }

    /// Moves the clock of a group on by a time that its members were charged with. One that is gone gets none again.
    pub(super) fn move_clock(&mut self, class: Class, group: GroupId, us: u64) {
        if let Some(clock) = self.clocks.get_mut(&(class, group)) {
            clock.pass(us);
        }
    }

    /// The pace of a class.
    pub(super) fn pace_mut(&mut self, class: Class) -> &mut u64 {
        &mut self.paces[class as usize]
    }

    /// Forgets a process that has ended.
    pub(super) fn forget(&mut self, pid: Pid) {
        if let Some(number) = self.numbers.remove(&pid) {
            *self.at_mut(number) = Account::default();
            self.free.push(number);
        }
    }

    /// Forgets a group that has been removed.
    pub(in crate::core) fn forget_group(&mut self, group: GroupId) {
        self.groups.retain(|(_, g), _| *g != group);
        self.clocks.retain(|(_, g), _| *g != group);
    }

    /// Lets a process that was slow and gets another nice value keep up at once: it is not to sit out the steps
    /// that it would have missed.
    pub(in crate::core) fn renice(&mut self, pid: Pid, class: Class, nice: i8) {
        let pace = self.paces[class as usize].saturating_add(stride(nice));
        if let Some(number) = self.numbers.get(&pid).copied() {
            let attained = self.at_mut(number).of_mut(class);
            attained.pace = attained.pace.min(pace);
        }
    }

    /// Lets all begin at the same virtual time, where until now another policy did not keep them together.
    pub(in crate::core) fn level(&mut self) {
        self.clocks.clear();
        self.groups.clear();
        self.accounts.iter_mut().for_each(|account| account.classes = Default::default());
        self.paces = [0; 4];
    }
}
