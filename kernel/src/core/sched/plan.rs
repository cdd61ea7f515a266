//! The plan of a step: what can have a row, in which order, and what it becomes.

use std::collections::BTreeSet;

use syscalls::call::Class;
use syscalls::{ContextId, Pid};

use super::super::Kernel;
use super::super::call::CallNo;
use super::super::event::{ModelId, Now};
use super::super::group::GroupId;
use super::super::memory::{PageIn, Reach, Room};
use super::super::model::Model;
use super::super::process::Process;
use super::account::Account;
use super::choose::Chooser;
use super::policy::fair::{Backlogged, hold_back};
use super::policy::{Rank, View};
use super::{Plan, PrefixWaits, RowSent};

/// A context that can have a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub class: Class,
    pub rank: Rank,
    pub owner: Pid,
    pub group: GroupId,
    pub context: ContextId,
    pub call: CallNo,
    pub nice: i8,
    pub pace: u64,
    pub prompt: u32,
    pub position: u32,
    pub remaining: u32,
    /// Tokens before the next ones that are saved, and that are loaded rather than computed.
    pub ahead: u32,
    /// When its call came.
    pub since: Now,
    /// From when on its rows are protected by the latency target.
    pub protected_from: Now,
}

impl Candidate {
    /// Whether it lacks one token only, and so goes on with a generation.
    pub(super) fn decodes(&self) -> bool {
        self.remaining == 1
    }

    /// Tokens that its next row can have.
    pub(super) fn most(&self) -> u32 {
        self.remaining.min(self.ahead)
    }

    /// Its next row, of at most `most` tokens.
    pub(super) fn row(&self, most: u32) -> RowSent {
        let tokens = self.most().min(most);
        RowSent {
            context: self.context,
            owner: self.owner,
            group: self.group,
            class: self.class,
            call: self.call,
            prompt: self.prompt,
            position: self.position,
            tokens,
            sample: tokens == self.remaining,
            draft: Vec::new(),
        }
    }
}

impl Kernel {
    /// The next step of a model.
    pub(super) fn plan(&mut self, id: ModelId) -> Plan {
        let held_back = self.grow_running(id);
        if let Some(model) = self.models.get_mut(&id) {
            model.sched.held_back = held_back;
        }
        let mut for_prefixes = self.admit_waiting(id);
        let waits = self.page_in_running(id, &mut for_prefixes);
        self.lend_to_computing(id, for_prefixes);
        let (mut candidates, mut backlogged, throttled_until) = self.candidates(id, &waits);
        let policy = self.config.policy;
        let Some(model) = self.models.get_mut(&id) else { return Plan::default() };
        let lag = model.sched.fair_lag_us(&self.config);
        model.sched.throttled_until = throttled_until;
        if candidates.is_empty() {
            return Plan::default();
        }
        model.sched.plans += 1;
        if policy.is_fair() {
            let plan = model.sched.plans;
            hold_back(&mut model.sched.accounts, &self.groups, &mut backlogged, plan, lag);
            let sit_out: BTreeSet<Pid> = backlogged.iter().filter(|b| b.sits_out).map(|b| b.pid).collect();
            candidates.retain(|c| sit_out.is_empty() || !sit_out.contains(&c.owner));
        }
        let order = in_order(&candidates);
        let room = (model.batch_tokens(), model.row_tile());
        let (rows, expected_us) = Chooser::new(&mut model.sched, &self.config, &order, room).choose();
        let mut backlog = [false; 4];
        backlogged.iter().for_each(|b| backlog[b.class as usize] = true);
        let mut plan = Plan { rows, backlog, expected_us };
        self.add_drafts(id, &mut plan);
        plan
    }

    /// The row of one suspect alone: a context that was in the step in which a worker died.
    pub(super) fn plan_suspect(&mut self, model: ModelId) -> Option<Plan> {
        let suspects: Vec<ContextId> = self.models.get(&model)?.suspects.iter().copied().collect();
        for id in suspects {
            if self.contexts.get(&id).is_none_or(|c| !c.place.runs()) {
                continue;
            }
            let resident = self.contexts.get(&id).is_some_and(|c| c.resident.is_some());
            let room = if resident { self.grow(id, Reach::Juniors) } else { self.admit(id, None) };
            if matches!(room, Room::Made) {
                if self.prefills(id) && self.page_in(id, false) == PageIn::Loads {
                    return Some(Plan::default());
                }
                let owner = self.contexts.get(&id)?.owner;
                let (model, process) = (self.models.get(&model)?, self.processes.living(owner)?);
                let row = self.candidate(Share::of(process, model), id)?.row(model.batch_tokens());
                return Some(Plan { rows: vec![row], ..Plan::default() });
            }
        }
        None
    }

    /// All that can have a row, by process, and the processes.
    fn candidates(
        &self,
        id: ModelId,
        waits: &BTreeSet<ContextId>,
    ) -> (Vec<Candidate>, Vec<Backlogged>, Option<Now>) {
        let Some(model) = self.models.get(&id) else { return (vec![], vec![], None) };
        let mut throttled_until = None::<Now>;
        let total = model.sched.running_total();
        let (mut candidates, mut backlogged) = (Vec::with_capacity(total), Vec::<Backlogged>::new());
        // The contexts of a process come one after another.
        let mut last: Option<(Pid, Option<Share>)> = None;
        for (pid, context) in model.sched.running_with_owners() {
            let held_back = &model.sched.held_back;
            let passed_over = !held_back.is_empty() && held_back.contains(&context)
                || !waits.is_empty() && waits.contains(&context)
                || !model.suspects.is_empty() && model.suspects.contains(&context);
            if passed_over {
                continue;
            }
            let share = match last {
                Some((before, share)) if before == pid => share,
                _ => {
                    let Some(process) = self.processes.living(pid) else { continue };
                    let until = self.empty_until(process);
                    throttled_until = [throttled_until, until].into_iter().flatten().min();
                    let share = until.is_none().then(|| Share::of(process, model));
                    if let Some(Share { class, group, .. }) = share {
                        backlogged.push(Backlogged { pid, class, group, sits_out: false });
                    }
                    share
                }
            };
            last = Some((pid, share));
            candidates.extend(share.and_then(|share| self.candidate(share, context)));
        }
        (candidates, backlogged, throttled_until)
    }

    /// Has pages brought in for the running contexts that have a prompt, and tells which of them have no row. Those
    /// that wait for a prefix are added to `for_prefixes`.
    fn page_in_running(&mut self, model_id: ModelId, for_prefixes: &mut PrefixWaits) -> BTreeSet<ContextId> {
        let Some(model) = self.models.get(&model_id) else { return BTreeSet::new() };
        let goes_on = |c: &ContextId| !model.sched.held_back.contains(c) && !model.suspects.contains(c);
        let prefilling: Vec<_> = model.sched.running().filter(|c| self.prefills(*c) && goes_on(c)).collect();
        let mut rowless = BTreeSet::new();
        for id in prefilling {
            match self.page_in(id, true) {
                PageIn::Ready => continue,
                PageIn::Loads => {}
                PageIn::Waits(computing) => self.note_prefix_wait(for_prefixes, computing, id),
            }
            rowless.insert(id);
        }
        rowless
    }

    fn prefills(&self, id: ContextId) -> bool {
        self.contexts.get(&id).is_some_and(|c| c.prefills())
    }

    /// When a process that has used its rate up, or that of a group, may have rows again.
    pub(in crate::core) fn empty_until(&self, process: &Process) -> Option<Now> {
        let own = process.bucket.as_ref().and_then(|bucket| bucket.empty_until(self.now));
        own.max(self.groups.empty_until(process.id.group, self.now))
    }

    fn candidate(&self, share: Share, id: ContextId) -> Option<Candidate> {
        let context = self.contexts.get(&id)?;
        let generation = context.generation.as_ref()?;
        let Share { class, nice, group, account, batch_tokens } = share;
        let (now, call, deadline) = (self.now, generation.call, generation.deadline);
        Some(Candidate {
            class,
            rank: self.config.policy.rank(&View { class, now, call, deadline, account }),
            owner: context.owner,
            group,
            context: id,
            call,
            nice,
            pace: account.map_or(0, |a| a.of(class).pace),
            prompt: generation.start,
            position: context.computed(),
            remaining: context.remaining(),
            ahead: if context.remaining() > 1 { self.unsaved_ahead(context) } else { u32::MAX },
            since: generation.since(),
            protected_from: generation.protected_from(batch_tokens),
        })
    }
}

/// Candidates by class, rank, process and number. They come by process and number, so sorting leaves these be.
fn in_order(candidates: &[Candidate]) -> Vec<&Candidate> {
    let mut order: Vec<(u128, &Candidate)> =
        candidates.iter().map(|c| (c.rank.in_class(c.class), c)).collect();
    order.sort_by_key(|(key, _)| *key);
    order.into_iter().map(|(_, c)| c).collect()
}

/// What decides about the contexts of a process alike.
#[derive(Clone, Copy)]
struct Share<'a> {
    class: Class,
    nice: i8,
    group: GroupId,
    account: Option<&'a Account>,
    batch_tokens: u32,
}

impl<'a> Share<'a> {
    fn of(process: &Process, model: &'a Model) -> Self {
        let account = model.sched.accounts.process(process.id.pid);
        let (nice, group) = (process.id.nice, process.id.group);
        Share { class: process.class(), nice, group, account, batch_tokens: model.batch_tokens() }
    }
}
