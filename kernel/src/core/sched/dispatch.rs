//! Giving a worker its next step.

use std::ops::Bound::{Excluded, Unbounded};

use drivers::wire::{Op, PAGE_TOKENS, Row, SamplerSpec, Step};
use syscalls::TokenRun;

use super::super::Kernel;
use super::super::context::Context;
use super::super::device::Leaving;
use super::super::effect::Effect;
use super::super::event::ModelId;
use super::super::group::GroupId;
use super::super::memory::{Beside, loading};
use super::super::model::Model;
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
        let on_trial = model.questions.suspects_go_first() && !model.is_forced_out();
        if !model.is_ready() || on_trial {
            return;
        }
        match self.begin_evacuation(id) {
            Leaving::Stays => {}
            Leaving::Answers | Leaving::Gone => return,
            Leaving::Pages => return self.submit(id, Plan::default()),
        }
        if self.begin_resize(id) {
            return self.submit(id, Plan::default());
        }
        let plan = self.plan(id);
        let written = self.write_behind(id, self.beside(id, &plan));
        let Some(model) = self.models.get(&id) else { return };
        let urgent = written || model.ops.len() >= OPS_WAITING_MAX || !loading(&model.page_ops).is_empty();
        if !plan.rows.is_empty() || urgent {
            self.submit(id, plan);
        }
    }

    /// What pages that are written would hold up.
    fn beside(&self, id: ModelId, plan: &Plan) -> Beside {
        let loads = self.models.get(&id).is_some_and(|m| !loading(&m.page_ops).is_empty());
        match () {
            () if plan.rows.iter().any(RowSent::decodes) || loads => Beside::Decode,
            () if plan.rows.is_empty() => Beside::Nothing,
            () => Beside::Prompts,
        }
    }

    /// Gives a worker the operations on pages that there are, and nothing else.
    pub(in crate::core) fn submit_pages(&mut self, id: ModelId) {
        self.submit(id, Plan::default());
    }

    fn submit(&mut self, id: ModelId, plan: Plan) {
        let sent = plan.rows;
        let groups = groups_of(&sent);
        self.count_rows(&groups, 1);
        let rows = self.prepare(id, &sent);
        let Some(model) = self.models.get_mut(&id) else { return };
        if let Some(memory) = &mut model.memory {
            memory.pool.check_sums();
            // Behind all that gives entries up, and before the pass.
            if memory.pool.must_clear() {
                model.ops.push(Op::Clear);
            }
        }
        model.steps_begun += 1;
        if !sent.is_empty() {
            model.last_use = self.now;
        }
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
            frames_free: model.frames().1,
        });
        model.sched.arrived = None;
        self.out.push(Effect::Submit { worker: model.worker(), step });
    }

    /// Marks contexts as parts of the step and makes their rows, with a sampler where a first token is due.
    fn prepare(&mut self, id: ModelId, sent: &[RowSent]) -> Vec<Row> {
        let Some(model) = self.models.get_mut(&id) else { return vec![] };
        let mut rows = Vec::with_capacity(sent.len());
        let mut shared = Vec::new();
        for sent in sent {
            let Some(context) = self.contexts.get_mut(&sent.context) else { continue };
            // With its sampler there, a generation has had rows before, and there is nothing to see to.
            if context.resident.as_ref().is_some_and(|r| r.sampler != Some(sent.call)) {
                if sent.sample {
                    model.open_sampler(context);
                }
                let computed = context.computed();
                if let Some(tokens) = context.generation.as_mut().and_then(|g| g.first_row(computed)) {
                    shared.push((sent.owner, u64::from(tokens)));
                }
            }
            let Some(row) = row(context, sent) else { continue };
            context.in_step = true;
            rows.push(row);
        }
        for (owner, tokens) in shared {
            self.count(id, owner, |c| c.prompt_tokens_shared += tokens);
        }
        rows
    }
}

/// The row of a context, as the worker is told.
fn row(context: &Context, sent: &RowSent) -> Option<Row> {
    let resident = context.resident.as_ref()?;
    let (from, to) = (sent.position as usize, (sent.position + sent.tokens) as usize);
    let room = resident.pages.len() * PAGE_TOKENS as usize;
    assert!(to <= room, "context {} would write up to {to} into frames for {room}", sent.context);
    Some(Row {
        asid: resident.lease.asid(),
        position: sent.position,
        // As nearly every row: one token is set where it goes, and not copied as a run of any length.
        tokens: match context.log[from..to] {
            [token] => TokenRun::from_elem(token, 1),
            ref tokens => TokenRun::from_slice(tokens),
        },
        sample: sent.sample,
        draft: if sent.draft.is_empty() { Vec::new() } else { sent.draft.clone() },
    })
}

/// How many rows are of processes of each group. Those of a process stand together for the most part.
fn groups_of(rows: &[RowSent]) -> Vec<(GroupId, i32)> {
    let mut groups: Vec<(GroupId, i32)> = Vec::new();
    for row in rows {
        match groups.iter_mut().rfind(|(g, _)| *g == row.group) {
            Some((_, count)) => *count += 1,
            None => groups.push((row.group, 1)),
        }
    }
    groups
}

impl Model {
    /// Has the worker set up how tokens are chosen for the generation of a context, where it has not yet.
    fn open_sampler(&mut self, context: &mut Context) {
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
        self.ops.push(Op::SamplerOpen { asid: resident.lease.asid(), sampler });
    }
}
