//! Who pays for a step: its measured time is shared out among the processes that had rows in it, and among their
//! groups and classes; what it cost is learnt.

use std::ops::Add as _;

use drivers::wire::RowDone;
use syscalls::call::Class;

use super::super::Kernel;
use super::super::event::ModelId;
use super::super::group::{GROUP_WEIGHT, GroupId};
use super::account::VIRTUAL_US;
use super::cost::{Cost, Decode, Prefill};
use super::{InFlight, RowSent, Sched};

/// What is charged for a step.
#[derive(Default)]
struct Charged {
    /// By class.
    classes: [u64; 4],
    groups: Vec<((Class, GroupId), u64)>,
}

impl Kernel {
    /// Learns what the step cost, and shares its time out among the processes that had rows in it. Of one that was
    /// withdrawn, nobody pays for rows that were not through, and nothing is learnt.
    pub(super) fn charge(&mut self, id: ModelId, step: &InFlight, done: &[RowDone], elapsed_us: u64) {
        let Some(model) = self.models.get_mut(&id) else { return };
        for counters in [&mut model.counters, &mut self.counters] {
            counters.steps += 1;
            counters.step_us += elapsed_us;
        }
        let (decode, prefill) = work(&step.rows);
        if !step.rows.is_empty() && done.iter().all(is_through) {
            model.sched.cost.observe(decode, prefill, elapsed_us);
        }
        if prefill.tokens > 0 {
            self.prompts_passed(step, prefill.tokens);
        }
        let Charged { classes, groups } = self.charge_processes(id, step, done, decode, elapsed_us);
        for ((class, group), us) in groups {
            self.charge_groups(id, class, group, us);
        }
        let Some(model) = self.models.get_mut(&id) else { return };
        model.sched.settle_debts(step.backlog, classes, elapsed_us);
        model.sched.settle_turns(classes, elapsed_us);
        if !model.sched.line.is_empty() {
            for rows in step.of_each_process() {
                self.stand_in_line(id, rows[0].owner);
            }
        }
    }

    /// Notes for the generations that decode how many prompt tokens were computed beside them.
    fn prompts_passed(&mut self, step: &InFlight, tokens: u32) {
        for row in step.rows.iter().filter(|row| row.decodes()) {
            let generation = self.contexts.get_mut(&row.context).and_then(|c| c.generation.as_mut());
            if let Some(generation) = generation.filter(|g| g.call == row.call) {
                generation.prompts_passed(tokens);
            }
        }
    }

    /// Charges each process with its rows' part of the time.
    fn charge_processes(
        &mut self,
        id: ModelId,
        step: &InFlight,
        done: &[RowDone],
        decode: Decode,
        elapsed_us: u64,
    ) -> Charged {
        let mut charged = Charged::default();
        let Some(model) = self.models.get_mut(&id) else { return charged };
        let Sched { cost, accounts, .. } = &mut model.sched;
        let weigh = weigh(cost, decode);
        let total = step.rows.iter().map(&weigh).sum::<u64>().max(1);
        let mut done = done.iter();
        for rows in step.of_each_process() {
            let through = rows.iter().zip(done.by_ref()).filter(|(_, done)| is_through(done));
            let Some(us) = through.map(|(row, _)| part(elapsed_us, weigh(row), total)).reduce(u64::add)
            else {
                continue;
            };
            let row = &rows[0];
            charged.classes[row.class as usize] += us;
            let Some(process) = self.processes.living_mut(row.owner) else { continue };
            // Who lives has the account that it had when the step began.
            let account = accounts.at_mut(row.account);
            account.charge(row.class, us, process.id.nice);
            account.use_up(self.now, us);
            process.id.counters.steps += u64::from(account.served != step.number);
            account.served = step.number;
            if process.serve(us) {
                self.used_up.insert(row.owner);
            }
            match charged.groups.last_mut() {
                Some((of, sum)) if *of == (row.class, row.group) => *sum += us,
                _ => charged.groups.push(((row.class, row.group), us)),
            }
        }
        charged
    }

    /// Charges a group and those around it, and moves the clocks of all of them on.
    fn charge_groups(&mut self, id: ModelId, class: Class, group: GroupId, us: u64) {
        let Some(model) = self.models.get_mut(&id) else { return };
        let accounts = &mut model.sched.accounts;
        accounts.move_clock(class, group, us);
        for (group, parent, weight) in self.groups.path(group) {
            let attained = accounts.group_mut(class, group);
            let parts = us.saturating_mul(VIRTUAL_US * u64::from(GROUP_WEIGHT)) / u64::from(weight.max(1));
            attained.service = attained.service.saturating_add(parts);
            accounts.move_clock(class, parent, us);
        }
    }
}

/// What the rows of a step are together.
fn work(rows: &[RowSent]) -> (Decode, Prefill) {
    let (mut decode, mut prefill) = (Decode::default(), Prefill::default());
    for row in rows {
        if row.decodes() {
            (0..=row.draft.len()).for_each(|_| decode.add(row.position));
        } else {
            prefill.add(row.position, row.tokens);
        }
    }
    (decode, prefill)
}

/// What each row weighs when the time of its step is shared out.
fn weigh(cost: &Cost, decode: Decode) -> impl Fn(&RowSent) -> u64 {
    let decode_weight = cost.decode_weights(decode);
    move |row| match row.decodes() {
        true => decode_weight(row.position) * (1 + row.draft.len() as u64),
        false => cost.prefill_weight(row.position, row.tokens),
    }
}

/// The part of a time that a weight is of their total.
fn part(us: u64, weight: u64, total: u64) -> u64 {
    match us.checked_mul(weight) {
        Some(product) => product / total,
        None => (u128::from(us) * u128::from(weight) / u128::from(total)) as u64,
    }
}

fn is_through(done: &RowDone) -> bool {
    !matches!(done, RowDone::Withdrawn)
}
