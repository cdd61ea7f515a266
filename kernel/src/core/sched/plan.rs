//! The plan of a step: what can have a row, in which order, and what it becomes.

use std::collections::BTreeSet;

use syscalls::call::Class;
use syscalls::{ContextId, Pid};

use super::super::Kernel;
use super::super::call::CallNo;
use super::super::context::Context;
use super::super::event::{ModelId, Now};
use super::super::memory::PageIn;
use super::super::model::Model;
use super::super::process::Process;
use super::admit::Admission;
use super::choose::Chooser;
use super::policy::fair::{Backlogged, hold_back};
use super::policy::{Rank, View};
use super::running::{Owner, Runner};
use super::suspect::Parted;
use super::{Plan, PrefixWaits, RowSent};

/// A context that can have a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub rank: Rank,
    pub owner: Owner,
    pub context: ContextId,
    pub call: CallNo,
    pub pace: u64,
    pub prompt: u32,
    pub position: u32,
    pub remaining: u32,
    /// Tokens before the next ones that are saved, and that are loaded rather than computed.
    pub ahead: u32,
    /// When the call of a prompt came; where it decodes, the time from which on the latency target protects it against
    /// prompts that come.
    pub since: Now,
}

impl Candidate {
    /// Whether it lacks one token only, and so goes on with a generation.
    pub(super) fn decodes(&self) -> bool {
        self.remaining == 1
    }

    /// The class and the tier in it that it stands in.
    pub(super) fn standing(&self) -> (Class, u8) {
        (self.owner.class, self.rank.tier)
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
            owner: self.owner.pid,
            account: self.owner.account,
            group: self.owner.group,
            class: self.owner.class,
            call: self.call,
            prompt: self.prompt,
            position: self.position,
            tokens,
            sample: tokens == self.remaining,
            draft: Vec::new(),
        }
    }
}

/// What one look at all generations in memory shows. A step in which all decode needs no second one.
#[derive(Debug, Default)]
struct Survey {
    /// By process.
    candidates: Vec<Candidate>,
    /// Those that have grown out of their frames, by seniority: about one in a page's tokens.
    lacking: Vec<ContextId>,
    /// Somebody has a prompt to compute, and may get pages of it otherwise.
    prefills: bool,
    /// What [`Running::changes`](super::running::Running::changes) said.
    changes: u64,
}

impl Survey {
    /// Whether a look at all of them now might show something else.
    fn is_outdated(&self, model: Option<&Model>) -> bool {
        self.prefills || model.is_some_and(|model| model.sched.running.changes() != self.changes)
    }
}

impl Kernel {
    /// The next step of a model.
    pub(super) fn plan(&mut self, id: ModelId) -> Plan {
        let room = self.models.get_mut(&id).map(|m| std::mem::take(&mut m.sched.candidates));
        let mut survey = self.survey(id, room.unwrap_or_default());
        let held_back = self.grow_running(id, &survey.lacking);
        if let Some(model) = self.models.get_mut(&id) {
            model.sched.held_back = held_back;
        }
        let Admission { mut for_prefixes, throttled_until: in_line } = self.admit_waiting(id);
        let waits = match survey.is_outdated(self.models.get(&id)) {
            true => self.page_in_running(id, &mut for_prefixes),
            false => BTreeSet::new(),
        };
        self.lend_to_computing(id, for_prefixes);
        if survey.is_outdated(self.models.get(&id)) {
            survey = self.survey(id, survey.candidates);
        }
        let mut candidates = survey.candidates;
        let (mut backlogged, throttled_until) = self.keep_ready(id, &waits, &mut candidates);
        if let Some(model) = self.models.get_mut(&id) {
            model.sched.throttled_until = [throttled_until, in_line].into_iter().flatten().min();
        }
        self.sit_out(id, &mut backlogged, &mut candidates);
        let tokens = match self.part_suspects(id, &mut candidates) {
            Parted::Others => u32::MAX,
            Parted::Alone(tokens) => tokens,
            Parted::Nobody => return Plan::default(),
        };
        let Some(model) = self.models.get_mut(&id).filter(|_| !candidates.is_empty()) else {
            return Plan::default();
        };
        let order = in_order(&candidates);
        let room = (model.batch_tokens().min(tokens), model.row_tile());
        let (rows, expected_us) = Chooser::new(&mut model.sched, &self.config, order, room).choose();
        let mut backlog = [false; 4];
        backlogged.iter().for_each(|b| backlog[b.owner.class as usize] = true);
        candidates.clear();
        model.sched.candidates = candidates;
        let mut plan = Plan { rows, backlog, expected_us };
        if tokens == u32::MAX {
            self.add_drafts(id, &mut plan);
        }
        plan
    }

    /// Leaves out the candidates of those who are too far ahead of others, where the policy says so.
    fn sit_out(&mut self, id: ModelId, backlogged: &mut [Backlogged], candidates: &mut Vec<Candidate>) {
        let policy = self.config.policy;
        let Some(model) = self.models.get_mut(&id) else { return };
        if !candidates.is_empty() && policy.is_fair() {
            model.sched.plans += 1;
            let (plan, lag) = (model.sched.plans, model.sched.fair_lag_us(&self.config));
            hold_back(&mut model.sched.accounts, &self.groups, backlogged, plan, lag);
        }
        let sit_out: BTreeSet<Pid> = backlogged.iter().filter(|b| b.sits_out).map(|b| b.owner.pid).collect();
        candidates.retain(|c| sit_out.is_empty() || !sit_out.contains(&c.owner.pid));
        model.sched.sits_out = sit_out;
    }

    /// Looks at all generations in memory. `candidates` is room for what is found.
    fn survey(&self, id: ModelId, mut candidates: Vec<Candidate>) -> Survey {
        candidates.clear();
        let Some(model) = self.models.get(&id) else { return Survey::default() };
        let (mut lacking, mut prefills) = (Vec::new(), false);
        for runner in model.sched.running.iter() {
            let Some(context) = self.contexts.get(&runner.context) else { continue };
            if model.lacks_frames(context) {
                lacking.push((runner.seniority(), runner.context));
            }
            prefills |= context.prefills();
            if let Some(candidate) = self.candidate(model, runner, context) {
                candidates.push(candidate);
            }
        }
        lacking.sort_unstable();
        let lacking = lacking.into_iter().map(|(_, id)| id).collect();
        Survey { candidates, lacking, prefills, changes: model.sched.running.changes() }
    }

    /// Keeps those that can have a row. Tells their processes, and when one that has used its rate up may go on.
    fn keep_ready(
        &self,
        id: ModelId,
        waits: &BTreeSet<ContextId>,
        candidates: &mut Vec<Candidate>,
    ) -> (Vec<Backlogged>, Option<Now>) {
        let Some(model) = self.models.get(&id) else { return (vec![], None) };
        let (mut backlogged, mut throttled_until) = (Vec::with_capacity(candidates.len()), None::<Now>);
        // The contexts of a process come one after another.
        let mut last: Option<(Pid, bool)> = None;
        candidates.retain(|&Candidate { owner, context, .. }| {
            let held_back = &model.sched.held_back;
            let passed_over = !held_back.is_empty() && held_back.contains(&context)
                || !waits.is_empty() && waits.contains(&context);
            if passed_over {
                return false;
            }
            let has_rate = match last {
                Some((before, has_rate)) if before == owner.pid => has_rate,
                _ => {
                    let until = self.throttled_until(&owner);
                    throttled_until = [throttled_until, until].into_iter().flatten().min();
                    if until.is_none() {
                        backlogged.push(Backlogged { owner, sits_out: false });
                    }
                    until.is_none()
                }
            };
            last = Some((owner.pid, has_rate));
            has_rate
        });
        (backlogged, throttled_until)
    }

    /// Has pages brought in for the running contexts that have a prompt, and tells which of them have no row. Those
    /// that wait for a prefix are added to `for_prefixes`.
    fn page_in_running(&mut self, model_id: ModelId, for_prefixes: &mut PrefixWaits) -> BTreeSet<ContextId> {
        let Some(model) = self.models.get(&model_id) else { return BTreeSet::new() };
        let goes_on = |c: &ContextId| !model.sched.held_back.contains(c) && !model.suspects.contains(c);
        let prefilling =
            model.sched.running.iter().filter(|r| self.prefills(r.context) && goes_on(&r.context));
        // Who has used his rate up has no row to go on with behind the pages, and others may get the frames.
        let with_rate = prefilling.filter(|r| self.throttled_until(&r.owner).is_none());
        let prefilling: Vec<ContextId> = with_rate.map(|runner| runner.context).collect();
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

    /// The same for one that runs.
    pub(in crate::core) fn throttled_until(&self, owner: &Owner) -> Option<Now> {
        let limited = owner.rated || self.groups.any_rated();
        self.empty_until(limited.then(|| self.processes.living(owner.pid)).flatten()?)
    }

    /// A context that can have a row, as it is now.
    pub(super) fn candidate_of(&self, id: ModelId, context: ContextId) -> Option<Candidate> {
        let model = self.models.get(&id)?;
        let runner = model.sched.running.iter().find(|runner| runner.context == context)?;
        self.candidate(model, runner, self.contexts.get(&context)?)
    }

    #[inline]
    fn candidate(&self, model: &Model, runner: &Runner, context: &Context) -> Option<Candidate> {
        let generation = context.generation.as_ref()?;
        let Runner { owner, call, .. } = *runner;
        let account = model.sched.accounts.at(owner.account);
        let (class, now, deadline) = (owner.class, self.now, generation.deadline);
        let (position, remaining) = (context.computed(), context.remaining());
        Some(Candidate {
            rank: self.config.policy.rank(&View { class, now, call, deadline, account: Some(account) }),
            owner,
            context: runner.context,
            call,
            pace: account.of(class).pace,
            prompt: generation.start,
            position,
            remaining,
            ahead: if remaining > 1 { self.unsaved_ahead(context) } else { u32::MAX },
            since: match remaining {
                1 => generation.protected_from(model.batch_tokens()),
                _ => generation.since(),
            },
        })
    }
}

impl Model {
    /// Whether a context that runs here has grown out of its frames.
    pub(in crate::core) fn lacks_frames(&self, context: &Context) -> bool {
        let (memory, resident) = (self.memory.as_ref(), context.resident.as_ref());
        memory.zip(resident).is_some_and(|(memory, resident)| memory.lacks(resident, context.length()) > 0)
    }
}

/// Candidates by class, rank, process and number. They come by process and number, so sorting leaves these be.
fn in_order(candidates: &[Candidate]) -> impl Iterator<Item = &Candidate> {
    let mut order: Vec<(u128, &Candidate)> =
        candidates.iter().map(|c| (c.rank.in_class(c.owner.class), c)).collect();
    order.sort_by_key(|(key, _)| *key);
    order.into_iter().map(|(_, c)| c)
}
