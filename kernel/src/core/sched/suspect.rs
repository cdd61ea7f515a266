//! Suspects in the plan of a step: contexts that were in the step in which a worker died. Each runs alone until it has a
//! token, so that a second death has one culprit.
//!
//! Alone means in a step of its own, and nothing else: a suspect stands in its class as everybody does, sits out where
//! the policy says so, and has a rate. Of those that may have rows the first suspect and all others take turns, step by
//! step; a suspect of a lower class than some other has a turn only where its class is owed time. Beside others that
//! decode, its chunk takes no longer than the latency target leaves for prompts.

use super::super::Kernel;
use super::super::event::ModelId;
use super::super::memory::{PageIn, loading};
use super::super::model::Model;
use super::choose::BESIDE_US_MIN;
use super::cost::Decode;
use super::limits::target_us;
use super::plan::Candidate;

/// Who has the next step.
pub(super) enum Parted {
    /// All candidates that are left, and no suspect.
    Others,
    /// The one candidate that is left, with so many tokens at most.
    Alone(u32),
    /// Nobody: pages are loaded first, and not beside a suspect.
    Nobody,
}

impl Kernel {
    /// Leaves either one suspect or all others of those that may have rows.
    pub(super) fn part_suspects(&mut self, id: ModelId, candidates: &mut Vec<Candidate>) -> Parted {
        let Some(model) = self.models.get_mut(&id) else { return Parted::Others };
        if model.suspects.is_empty() {
            return Parted::Others;
        }
        let is_suspect = |c: &Candidate| model.suspects.contains(&c.context);
        let order = |c: &Candidate| c.rank.in_class(c.owner.class);
        let first = candidates.iter().filter(|c| is_suspect(c)).copied().min_by_key(order);
        candidates.retain(|c| !is_suspect(c));
        let had_turn = std::mem::take(&mut model.sched.suspect_had_turn);
        let loads = !loading(&model.page_ops).is_empty();
        let Some(first) = first.filter(|first| model.is_turn_of(first, candidates, had_turn)) else {
            return Parted::Others;
        };
        if loads {
            return if candidates.is_empty() { Parted::Nobody } else { Parted::Others };
        }
        if first.remaining > 1 && self.page_in(first.context, false) == PageIn::Loads {
            return Parted::Nobody;
        }
        let Some(first) = self.candidate_of(id, first.context) else { return Parted::Others };
        let Some(model) = self.models.get_mut(&id) else { return Parted::Others };
        model.sched.suspect_had_turn = true;
        let tokens = self.tokens_beside(id, &first, candidates);
        candidates.clear();
        candidates.push(first);
        Parted::Alone(tokens)
    }

    /// How many tokens of a suspect a step of its own may have, for the sake of those that decode in the steps before and
    /// behind it.
    fn tokens_beside(&self, id: ModelId, suspect: &Candidate, others: &[Candidate]) -> u32 {
        let Some(model) = self.models.get(&id) else { return 1 };
        let mut decode = Decode::default();
        let protected = others.iter().filter(|c| c.decodes() && c.owner.class <= suspect.owner.class);
        protected.for_each(|c| decode.add(c.position));
        if decode.rows == 0 {
            return model.batch_tokens();
        }
        let cost = &model.sched.cost;
        let chunk = cost.decode_us(decode).and_then(|us| {
            let beside_us = target_us(&self.config, us).saturating_sub(us).max(BESIDE_US_MIN);
            cost.chunk(suspect.position, suspect.most(), beside_us)
        });
        chunk.unwrap_or(self.config.prefill_tokens_min)
    }
}

impl Model {
    /// Whether a suspect goes before the others.
    fn is_turn_of(&self, suspect: &Candidate, others: &[Candidate], had_turn: bool) -> bool {
        let Some(highest) = others.iter().map(|c| c.owner.class).min() else { return true };
        let class = suspect.owner.class;
        !had_turn && (class <= highest || self.sched.owes(class))
    }
}
