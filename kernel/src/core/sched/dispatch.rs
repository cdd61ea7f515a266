//! Giving a worker its next step.

use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use drivers::wire::{Op, PAGE_TOKENS, Row, SamplerSpec, Step};
use syscalls::ContextId;

use super::super::Kernel;
use super::super::effect::Effect;
use super::super::event::ModelId;
use super::super::group::GroupId;
use super::super::memory::loading;
use super::{InFlight, Plan, RowSent};

/// Operations that may wait for a step with rows. With more a step is made for them alone, so that contexts which
/// are opened and closed without ever running cannot pile them up.
const OPS_WAITING_MAX: usize = 1024;

impl Kernel {
    /// Gives every worker that has no step what there is to do.
    pub(in crate::core) fn dispatch_all(&mut self) {
        let mut next = self.models.first_key_value().map(|(id, _)| *id);
        while let Some(id) = next {
            self.dispatch(id);
            next = self.models.range((Excluded(id), Unbounded)).next().map(|(id, _)| *id);
        }
    }

    /// Gives a worker that has no step what there is to do.
    pub(in crate::core) fn dispatch(&mut self, id: ModelId) {
        self.send_questions(id);
        let Some(model) = self.models.get(&id) else { return };
        if model.in_flight.is_some() {
            return self.preempt(id);
        }
        if !model.is_ready() || model.questions.suspects_go_first() {
            return;
        }
        if self.begin_resize(id) {
            return self.submit(id, Plan::default());
        }
        let plan = self.plan_suspect(id).unwrap_or_else(|| self.plan(id));
        let Some(model) = self.models.get(&id) else { return };
        if plan.rows.is_empty() && model.ops.len() < OPS_WAITING_MAX && loading(&model.page_ops).is_empty() {
            return;
        }
        self.submit(id, plan);
    }

    fn submit(&mut self, id: ModelId, plan: Plan) {
        let sent = plan.rows;
        let groups = self.groups_of(&sent);
        self.count_rows(&groups, 1);
        let rows: Vec<Row> = sent.iter().filter_map(|row| self.prepare(id, row)).collect();
        let Some(model) = self.models.get_mut(&id) else { return };
        model.memory.iter().for_each(|memory| memory.pool.check_sums());
        model.steps_begun += 1;
        model.last_use = self.now;
        let step = Step { number: model.steps_begun, ops: std::mem::take(&mut model.ops), rows };
        assert_eq!(step.rows.len(), sent.len(), "every planned row has a sequence");
        let pages = std::mem::take(&mut model.page_ops);
        let paging = step.ops.iter().filter(|op| op.is_paging()).count();
        assert_eq!(paging, pages.len(), "every operation on pages is for something");
        model.in_flight = Some(InFlight {
            number: step.number,
            since: self.now,
            rows: sent,
            pages,
            backlog: plan.backlog,
            expected_us: plan.expected_us,
            groups,
            withdrawn: false,
        });
        model.sched.arrived = None;
        self.out.push(Effect::Submit { worker: model.worker(), step });
    }

    /// How many rows are of processes of each group.
    fn groups_of(&self, rows: &[RowSent]) -> Vec<(GroupId, i32)> {
        let mut groups: Vec<(GroupId, i32)> = Vec::new();
        let mut last = None;
        for row in rows {
            // The rows of a process stand together for the most part.
            let group = match last {
                Some((owner, group)) if owner == row.owner => group,
                _ => self.processes.living(row.owner).map_or(GroupId::ROOT, |p| p.id.group),
            };
            last = Some((row.owner, group));
            match groups.iter_mut().find(|(g, _)| *g == group) {
                Some((_, count)) => *count += 1,
                None => groups.push((group, 1)),
            }
        }
        groups
    }

    /// Marks a context as part of the step and makes its row, with a sampler where its first token is due.
    fn prepare(&mut self, id: ModelId, sent: &RowSent) -> Option<Row> {
        if sent.sample {
            self.open_sampler(id, sent.context);
        }
        let context = self.contexts.get_mut(&sent.context)?;
        let resident = context.resident.as_ref()?;
        let (from, to) = (sent.position as usize, (sent.position + sent.tokens) as usize);
        let room = resident.pages.len() * PAGE_TOKENS as usize;
        assert!(to <= room, "context {} would write up to {to} into frames for {room}", sent.context);
        context.in_step = true;
        let shared = context.generation.as_mut().and_then(|g| g.first_row(resident.computed));
        let tokens = Arc::clone(&context.log)[from..to].to_vec();
        let row = Row {
            asid: resident.lease.asid(),
            position: sent.position,
            tokens,
            sample: sent.sample,
            draft: sent.draft.clone(),
        };
        if let Some(shared) = shared {
            self.count(id, sent.owner, |c| c.prompt_tokens_shared += u64::from(shared));
        }
        Some(row)
    }

    fn open_sampler(&mut self, model: ModelId, id: ContextId) {
        let Some(context) = self.contexts.get_mut(&id) else { return };
        let (Some(generation), Some(resident)) = (&context.generation, &mut context.resident) else { return };
        if resident.sampler == Some(generation.call) {
            return;
        }
        resident.sampler = Some(generation.call);
        let sampler = Box::new(SamplerSpec {
            sampling: (*generation.valid.sampling).clone(),
            history: generation.before(&context.log),
            generated: generation.tokens(&context.log),
            ignore_eos: generation.valid.ignore_eos,
            logprobs: generation.valid.logprobs,
        });
        let op = Op::SamplerOpen { asid: resident.lease.asid(), sampler };
        if let Some(model) = self.models.get_mut(&model) {
            model.ops.push(op);
        }
    }
}
