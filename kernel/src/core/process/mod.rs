//! Processes: who asks for work, what he may have, and what it has cost.
//!
//! | state   | type                            | may own contexts and calls | is scheduled | ends by |
//! |---------|---------------------------------|----------------------------|--------------|---------|
//! | going   | [`Process`], [`Run::Going`]     | yes                        | yes          | exit, TERM, XCPU, KILL, the end of its connection |
//! | stopped | [`Process`], [`Run::Stopped`]   | yes                        | no, until CONT | TERM, XCPU, KILL, the end of its connection |
//! | zombie  | [`Zombie`]                      | no                         | no           | `wait` of its parent, or the parent's end |
//!
//! What `ps` calls idle, ready, running and blocked is derived from the calls and contexts of a going process and
//! kept nowhere. Everything that schedules takes a [`Process`], and a [`Zombie`] is another type.

mod attach;
mod end;
mod idle;
mod inherit;
mod kept;
mod program;
mod quota;
mod recent;
mod signal;
mod table;

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use syscalls::call::{AtLimit, Class, Lifetime};
use syscalls::{ContextId, Pid};

use super::call::CallNo;
use super::capability::Caps;
use super::counters::Counters;
use super::effect::Program;
use super::event::{ConnId, Now};
use super::group::GroupId;
use super::image::Kept;
use super::sched::Bucket;

pub(super) use attach::Ended;
pub(super) use program::Programs;
pub(super) use table::{Interrupted, ProcessTable};

use recent::RecentCalls;

/// The status of a process whose connection ended: 128 + the number of HUP.
pub(super) const STATUS_HANGUP: u8 = 128 + 1;

/// The status of a process whose calls have killed workers again and again: 128 + the number of SYS, which systems end
/// a process with for a call that must not be made.
pub(super) const STATUS_DEADLY: u8 = 128 + 31;

/// What stays of a process when it has ended.
#[derive(Debug)]
pub(super) struct Identity {
    pub pid: Pid,
    pub parent: Pid,
    pub uid: u32,
    pub os_pid: u32,
    pub name: String,
    pub class: Class,
    pub nice: i8,
    pub group: GroupId,
    pub started: Now,
    pub counters: Counters,
}

/// Whether STOP holds a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    Going,
    Stopped,
}

/// What a process may have at most; nothing where there is no limit of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Limits {
    pub contexts: Option<u64>,
    pub context_tokens: Option<u64>,
    pub resident_frames: Option<u64>,
    pub generated_tokens: Option<u64>,
    pub swap_pages: Option<u64>,
    pub tokens_per_second: Option<u64>,
    pub service_us: Option<u64>,
    /// What happens when these two are used up.
    pub generated_then: Option<AtLimit>,
    pub service_then: Option<AtLimit>,
}

/// A process that lives.
#[derive(Debug)]
pub(super) struct Process {
    pub id: Identity,
    /// The connection that has it; none while it is detached.
    pub conn: Option<ConnId>,
    pub lifetime: Lifetime,
    /// Calls that ended while it was detached, the oldest first, until their replies are fetched.
    pub results: VecDeque<Ended>,
    /// What it may do now, ...
    pub caps: Caps,
    /// ... and what it began with, which it may get back when its user attaches it.
    pub bound: Caps,
    pub run: Run,
    /// The daemon has started a program for it, which has not ended.
    pub program: bool,
    /// What the next daemon starts in its place, where its program goes on from files of its own.
    pub again: Option<Box<Program>>,
    /// When it is killed, because it was asked to end.
    pub kill_at: Option<Now>,
    pub limits: Limits,
    /// What its limit of tokens a second leaves now, where it has one.
    pub bucket: Option<Bucket>,
    pub contexts: BTreeSet<ContextId>,
    /// Somebody traces it.
    pub traced: bool,
    /// Its calls without an answer.
    pub calls: BTreeSet<CallNo>,
    /// Those that were answered last.
    pub recent: RecentCalls,
    /// The highest class of those that wait for it.
    pub lent: Option<Class>,
    /// Whom it sent a message last.
    pub sent_to: Option<Pid>,
    /// Generations that have begun and not ended.
    pub generating: u32,
    /// Since when it rests, if it does.
    pub idle_since: Option<Now>,
    /// How long it usually rests.
    pub idle_us: Option<u64>,
    pub mailbox: VecDeque<(Pid, Kept)>,
    /// Calls of it that have killed two workers each.
    pub deadly_calls: u32,
    /// Tokens in its contexts.
    pub context_tokens: u64,
    /// Frames that its contexts map, shared ones counted for each context.
    pub frames: u64,
    /// Pages of its contexts that are in slots.
    pub swap_pages: u64,
}

impl Process {
    /// A process that has nothing yet.
    pub(super) fn new(id: Identity, conn: Option<ConnId>, lifetime: Lifetime, caps: Caps) -> Self {
        Process {
            id,
            conn,
            lifetime,
            results: VecDeque::new(),
            caps,
            bound: caps,
            run: Run::Going,
            program: false,
            again: None,
            kill_at: None,
            limits: Limits::default(),
            bucket: None,
            contexts: BTreeSet::new(),
            traced: false,
            calls: BTreeSet::new(),
            recent: RecentCalls::default(),
            lent: None,
            sent_to: None,
            generating: 0,
            idle_since: None,
            idle_us: None,
            mailbox: VecDeque::new(),
            deadly_calls: 0,
            context_tokens: 0,
            frames: 0,
            swap_pages: 0,
        }
    }

    /// The class that it is scheduled in: its own, or that of somebody who waits for it.
    pub(super) fn class(&self) -> Class {
        self.lent.map_or(self.id.class, |lent| lent.min(self.id.class))
    }

    /// Tokens that its limit still lets it put into contexts.
    pub(super) fn context_tokens_left(&self) -> u64 {
        self.limits.context_tokens.map_or(u64::MAX, |most| most.saturating_sub(self.context_tokens))
    }

    /// Tokens that its limit still lets it generate, where generations end at it.
    pub(super) fn generated_tokens_left(&self) -> u64 {
        if self.limits.then_of_tokens() != AtLimit::Refuse {
            return u64::MAX;
        }
        let left = |most: u64| most.saturating_sub(self.id.counters.tokens_generated);
        self.limits.generated_tokens.map_or(u64::MAX, left)
    }
}

/// A process that has ended and that its parent has not waited for.
#[derive(Debug)]
pub(super) struct Zombie {
    pub id: Identity,
    pub status: u8,
}
