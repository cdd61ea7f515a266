//! Questions to workers: tokenise, detokenise, chat templates, embeddings.
//!
//! A question that was on its way when a worker died is a suspect: it is asked again once, with no step and no
//! other question beside it. If the next worker dies of it too, its call gets EIO, and nobody else's does.

use std::collections::{BTreeMap, BTreeSet};

use drivers::wire::{Answer, DriverFault, Question};
use syscalls::{ContextId, Errno, Fault, Reply};

use super::super::Kernel;
use super::super::call::CallNo;
use super::super::effect::Effect;
use super::super::event::{ModelId, WorkerId};
use super::{Model, State};

/// Questions that a worker has at once; more wait here, so that a withdrawn one costs the worker nothing.
const ASKED_AT_ONCE_MAX: usize = 64;

/// A question without an answer.
#[derive(Debug)]
struct Open {
    question: Question,
    /// Absent when the call was withdrawn and the worker still has the question.
    call: Option<CallNo>,
    /// The context at the head of whose line the call is.
    context: Option<ContextId>,
}

/// All questions of one model, by number. Each is in just one of the three sets.
#[derive(Debug, Default)]
pub(in crate::core) struct Questions {
    open: BTreeMap<u64, Open>,
    by_call: BTreeMap<CallNo, u64>,
    waiting: BTreeSet<u64>,
    /// Those that the worker has.
    asked: BTreeSet<u64>,
    /// Those that a worker had when it died, and that wait to be asked alone.
    suspects: BTreeSet<u64>,
    /// The suspect that the worker has, with nothing beside it.
    on_trial: Option<u64>,
    next: u64,
}

impl Questions {
    fn insert(&mut self, question: Question, call: CallNo, context: Option<ContextId>) {
        self.next += 1;
        self.open.insert(self.next, Open { question, call: Some(call), context });
        self.by_call.insert(call, self.next);
        self.waiting.insert(self.next);
    }

    /// Forgets the question of a call; one that the worker has is answered to nobody. Tells whether it was suspected to
    /// have killed a worker.
    fn withdraw(&mut self, call: CallNo) -> bool {
        let Some(number) = self.by_call.remove(&call) else { return false };
        if self.asked.contains(&number) {
            if let Some(question) = self.open.get_mut(&number) {
                question.call = None;
            }
            return self.on_trial == Some(number);
        }
        self.waiting.remove(&number);
        self.open.remove(&number);
        self.suspects.remove(&number)
    }

    /// Whether suspects are to be asked before a step may begin, or have been and are not answered.
    pub(in crate::core) fn suspects_go_first(&self) -> bool {
        self.on_trial.is_some() || !self.suspects.is_empty()
    }

    /// Takes the next question that may be asked now.
    fn next_due(&mut self, step_runs: bool) -> Option<u64> {
        let from = if self.suspects_go_first() {
            if step_runs || !self.asked.is_empty() {
                return None;
            }
            self.on_trial = self.suspects.first().copied();
            &mut self.suspects
        } else if self.asked.len() < ASKED_AT_ONCE_MAX {
            &mut self.waiting
        } else {
            return None;
        };
        let number = from.pop_first()?;
        self.asked.insert(number);
        Some(number)
    }

    /// Takes a question out that has been answered, if it had been asked.
    fn take_answered(&mut self, number: u64) -> Option<Open> {
        if !self.asked.remove(&number) {
            return None;
        }
        self.on_trial = self.on_trial.filter(|n| *n != number);
        let question = self.open.remove(&number)?;
        if let Some(call) = question.call {
            self.by_call.remove(&call);
        }
        Some(question)
    }

    /// Whether there is any without an answer.
    pub(in crate::core) fn any(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether the worker has questions.
    pub(in crate::core) fn any_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Turns what the dead worker had into suspects. A suspect that was asked alone is the culprit, and is taken
    /// out.
    pub(super) fn worker_died(&mut self) -> Option<(CallNo, Option<ContextId>)> {
        let culprit = self.on_trial.and_then(|number| self.take_answered(number));
        for number in std::mem::take(&mut self.asked) {
            if self.open.get(&number).is_some_and(|q| q.call.is_some()) {
                self.suspects.insert(number);
            } else {
                self.open.remove(&number);
            }
        }
        culprit.and_then(|q| Some((q.call?, q.context)))
    }

    /// Takes all calls out.
    pub(super) fn take_calls(&mut self) -> Vec<(CallNo, Option<ContextId>)> {
        let all = std::mem::replace(self, Questions { next: self.next, ..Questions::default() });
        all.open.into_values().filter_map(|q| Some((q.call?, q.context))).collect()
    }

    /// Takes the calls out that are of no context. The worker has none of them.
    pub(super) fn take_calls_without_context(&mut self) -> Vec<CallNo> {
        let of_none = |question: &&Open| question.context.is_none();
        let calls: Vec<CallNo> = self.open.values().filter(of_none).filter_map(|q| q.call).collect();
        for call in &calls {
            self.withdraw(*call);
        }
        calls
    }
}

impl Kernel {
    /// Puts a question to the worker of a model, now or when there is one.
    ///
    /// # Errors
    ///
    /// ENODEV where the model is offline, EAGAIN where the caller's user has killed its workers too often.
    pub(in crate::core) fn ask(
        &mut self,
        model: ModelId,
        call: CallNo,
        context: Option<ContextId>,
        question: Question,
    ) -> Result<(), Fault> {
        let asked = self.model(model)?;
        asked.check_usable()?;
        if let Some(pending) = self.calls.get(call) {
            self.check_harmless(asked, pending.pid)?;
        }
        let now = self.now;
        let Some(of) = self.models.get_mut(&model) else { return Ok(()) };
        of.questions.insert(question, call, context);
        of.last_use = now;
        self.demand(model);
        Ok(())
    }

    /// Takes a question back whose call is withdrawn.
    pub(in crate::core) fn withdraw_question(&mut self, model: ModelId, call: CallNo) {
        let suspected = self.models.get_mut(&model).is_some_and(|model| model.questions.withdraw(call));
        let pid = self.calls.get(call).map(|pending| pending.pid);
        if let Some(pid) = pid.filter(|_| suspected) {
            self.suspect_left(model, pid);
        }
        self.note_rest(model);
    }

    /// Sends the questions that are due.
    pub(in crate::core) fn send_questions(&mut self, id: ModelId) {
        let now = self.now;
        let sends = |m: &&mut Model| m.state == State::Ready && !m.is_forced_out();
        let Some(model) = self.models.get_mut(&id).filter(sends) else { return };
        let worker = model.worker();
        if !model.questions.any_asked() {
            model.heard = now;
        }
        while let Some(number) = model.questions.next_due(model.in_flight.is_some()) {
            let Some(open) = model.questions.open.get(&number) else { continue };
            self.out.push(Effect::Ask { worker, number, question: open.question.clone() });
        }
    }

    /// Takes an answer.
    pub(in crate::core) fn answered(
        &mut self,
        worker: WorkerId,
        number: u64,
        answer: Result<Answer, DriverFault>,
    ) {
        let now = self.now;
        let Some(model) = self.live_model(worker) else { return };
        let Some(asked) = model.questions.take_answered(number) else {
            return self.worker_broken(worker, "it answered a question that was not asked");
        };
        model.last_use = now;
        model.culprits.worked |= answer.is_ok() && !matches!(asked.question, Question::Tokenize(_));
        self.note_rest(worker.model);
        self.worker_progressed(worker.model);
        let Some(call) = asked.call else { return };
        let answer = answer.map_err(|fault| Fault::new(fault.errno, fault.message));
        match asked.context {
            Some(context) => self.answered_for_context(context, call, asked.question, answer),
            None => {
                let reply = answer.and_then(|answer| reply_to(&asked.question, answer));
                self.finish(call, reply);
            }
        }
    }
}

/// The reply of a call from the answer to its question.
fn reply_to(question: &Question, answer: Answer) -> Result<Reply, Fault> {
    match (question, answer) {
        (Question::Tokenize(_), Answer::Tokens(tokens)) => Ok(Reply::Tokens(tokens)),
        (Question::Detokenize(_), Answer::Bytes(bytes)) => {
            Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
        }
        (Question::Embed(texts), Answer::Vectors(vectors)) if texts.len() == vectors.len() => {
            // JSON has no form for what is none, and what is kept for a process is read by the next daemon.
            match vectors.iter().flatten().all(|number| number.is_finite()) {
                true => Ok(Reply::Embedded(vectors)),
                false => Err(Fault::new(Errno::EIO, "the model's output is not a number; try another text")),
            }
        }
        _ => Err(Fault::new(Errno::EIO, "the worker answered another question than was asked")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vector_with_what_is_no_number_is_a_fault() {
        let embedded = |number: f32| {
            reply_to(&Question::Embed(vec!["a".into()]), Answer::Vectors(vec![vec![0.5, number]]))
        };
        assert!(embedded(0.25).is_ok());
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(embedded(odd).expect_err("it has no form in JSON").errno, Errno::EIO);
        }
    }
}
