//! Virtual-time fair queueing over measured cost, with a bound on unfairness.
//!
//! Every process has a virtual time in each class: the measured device time that it was charged with, divided by
//! its weight. Less goes first. Because a row more in a batch is nearly free, all that are backlogged have rows in
//! every step, whatever their virtual time, with one exception: *whoever is more than the lag `L` ahead of the
//! least of them sits the step out*. Between groups the same holds, level by level: groups have virtual times as
//! well, and who has an ancestor that is ahead of the least of its siblings sits out.
//!
//! **Backlogged** is who has a context in memory with something to compute and frames to compute it into. Who was
//! not backlogged at the plan before begins at the *clock* of its group (or at its own virtual time, if that is later): a
//! rest earns no credit. The clock is the least virtual time of the backlogged at the last plan, or later: newcomers that
//! come again and again keep that least where it is, and others would wait for ever. So the clock moves on with each step,
//! too, by the time that was charged over the weights of the backlogged, as the virtual time of fluid fair queueing does,
//! up to the greatest virtual time of theirs, and up to L behind the least. It never goes back.
//!
//! # The bound
//!
//! For two processes i and j of one class and group, both backlogged all the time from t₁ to t₂, whatever others
//! do, the virtual times v, in microseconds at the weight of nice 0 (w = 1), satisfy at every plan
//!
//! > |vᵢ − vⱼ| ≤ B,  B = L + C / w_min
//!
//! where C is the largest cost that one step charges to one process: at most the time of the longest step, which is
//! the batch times the cost of one row or chunk token, and which plans hold to `step_us_max` or to the latency
//! target; and w_min is the least weight of the two. So the service S that both are charged with in between
//! satisfies |Sᵢ/wᵢ − Sⱼ/wⱼ| ≤ 2 B.
//!
//! *Proof.* Let m be the least virtual time of the backlogged at a plan; m never decreases, as the clock does not, and is
//! no later than the clock. We show that m ≤ vᵢ ≤ m + B for every backlogged i, from which the first claim follows. (1) i
//! becomes backlogged at max(vᵢ, clock). The clock is m, or was set at m' + L at most at an earlier m' ≤ m. If vᵢ is the
//! greater, i was served before: it left with vᵢ ≤ m' + B at an earlier m' ≤ m. (2) i has rows in a step only if
//! vᵢ ≤ m + L at its plan, and is charged at most C / wᵢ for it, so that vᵢ ≤ m + L + C / wᵢ after it. (3) If i has no rows,
//! vᵢ stays and m does not decrease. The second claim is the difference of the first at t₁ and t₂. ∎
//!
//! The class `realtime` is exempt: there deadlines count, and only the administrator gives it.
//!
//! **What the bound does not say.** Who waits in line for memory is not backlogged, and neither is who waits for a prefix
//! that another one computes, or has used a rate up: for that time the bound promises nothing, and it is not made up for.
//! Where memory is short, what holds between processes of a class is the order of the line: first who has least contexts
//! in memory for its weight, then who has least virtual time. Each generation that comes in keeps its memory until it
//! ends, so processes whose generations are as long get turns in proportion to their weights, and one whose generations
//! are longer more. A context that waits for a prefix has it for nothing when it goes on, and it waits only for one that
//! has rows.
//!
//! Somebody always gets on: the process with the least virtual time, in the group with the least, does not sit out.
//!
//! The shape of the argument is that of start-time fair queueing (Goyal, Vin, Cheng 1996); that of charging by token
//! costs and lifting newcomers is the Virtual Token Counter's (Sheng et al., "Fairness in Serving Large Language
//! Models", OSDI 2024). There the bound has the cost of a memory full of tokens where L is here, since running
//! requests are not held back; here L is a setting, `fair_lag_us` or the measured time of `fair_lag_tokens` prompt
//! tokens, whichever is longer (the longest that was measured, for the bound): less of it is fairer, more of it leaves
//! fewer rows out and lets bursts, such as a long prompt, through in one go.
//!
//! # Pace
//!
//! Beside this, nice values act at once and not only when somebody is ahead by L: processes of lower weight sit out
//! decode steps in proportion. This chooses among those that may have rows, so it leaves the bound as it is.

use std::collections::BTreeMap;

use syscalls::call::Class;

use super::super::super::group::{GroupId, Groups};
use super::super::account::{Accounts, Attained, Spread, VIRTUAL_US};
use super::super::running::Owner;
use super::super::weight::{group_weight, weight};
use super::{Rank, View};

pub(super) fn rank(view: &View) -> Rank {
    Rank { key: view.account.map_or(0, |a| a.of(view.class).service), ..Rank::default() }
}

/// A process with something to compute.
#[derive(Clone, Copy, Debug)]
pub(in crate::core::sched) struct Backlogged {
    pub owner: Owner,
    /// It is ahead of others by more than the lag.
    pub sits_out: bool,
}

/// Brings those that were not backlogged at the plan before to the clock of their group, and finds those that are
/// ahead of the least of their siblings by more than `lag_us`, at any level. `plan` counts plans.
pub(in crate::core::sched) fn hold_back(
    accounts: &mut Accounts,
    groups: &Groups,
    backlogged: &mut [Backlogged],
    plan: u64,
    lag_us: u64,
) {
    let lag = lag_us.saturating_mul(VIRTUAL_US);
    let mut spreads = Spreads::default();
    let mut services = Vec::with_capacity(backlogged.len());
    let siblings =
        |a: &Backlogged, b: &Backlogged| (a.owner.class, a.owner.group) == (b.owner.class, b.owner.group);
    for members in backlogged.chunk_by(siblings) {
        let Owner { class, group, .. } = members[0].owner;
        begin_groups(accounts, groups, class, group, plan, &mut spreads);
        let clock = accounts.clock(class, group);
        let mut spread = Spread::default();
        services.extend(members.iter().map(|b| {
            let service = begin(accounts.at_mut(b.owner.account).of_mut(class), clock, plan);
            spread.join(Spread::of(service, weight(b.owner.nice)));
            service
        }));
        spreads.add(class, group, spread);
    }
    for ((class, parent), spread) in &spreads.0 {
        accounts.clock_mut(*class, *parent).see(*spread, lag);
    }
    let mut services = services.into_iter();
    for members in backlogged.chunk_by_mut(siblings) {
        let Owner { class, group, .. } = members[0].owner;
        let limit = spreads.least(class, group).saturating_add(lag);
        let group_ahead = groups.path(group).any(|(group, parent, _)| {
            accounts.group_mut(class, group).service > spreads.least(class, parent).saturating_add(lag)
        });
        for (process, service) in members.iter_mut().zip(services.by_ref()) {
            process.sits_out = class != Class::Realtime && (group_ahead || service > limit);
        }
    }
}

/// The virtual times of the backlogged members of each group.
#[derive(Default)]
struct Spreads(BTreeMap<(Class, GroupId), Spread>);

impl Spreads {
    fn add(&mut self, class: Class, parent: GroupId, members: Spread) {
        self.0.entry((class, parent)).or_default().join(members);
    }

    fn least(&self, class: Class, parent: GroupId) -> u64 {
        self.0.get(&(class, parent)).map_or(0, |spread| spread.least)
    }
}

/// Lets a group that is backlogged, and those around it, begin at the clocks of theirs.
fn begin_groups(
    accounts: &mut Accounts,
    groups: &Groups,
    class: Class,
    group: GroupId,
    plan: u64,
    spreads: &mut Spreads,
) {
    for (group, parent, weight) in groups.path(group) {
        let clock = accounts.clock(class, parent);
        let attained = accounts.group_mut(class, group);
        if attained.seen == plan {
            return;
        }
        spreads.add(class, parent, Spread::of(begin(attained, clock, plan), group_weight(weight)));
    }
}

/// Lets one that is backlogged begin at the clock if it was not at the plan before.
fn begin(attained: &mut Attained, clock: u64, plan: u64) -> u64 {
    if attained.seen + 1 < plan {
        attained.service = attained.service.max(clock);
    }
    attained.seen = plan;
    attained.service
}
