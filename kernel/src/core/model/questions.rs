//! Questions to workers: tokenise, detokenise, chat templates, embeddings.
//!
//! A question that was on its way when a worker died is a suspect: it is asked again once, with no step and no
//! other question beside it. If the next worker dies of it too, its call gets EIO, and nobody else's does.

use std::collections::BTreeMap;

use drivers::wire::{Answer, DriverFault, Question};
use syscalls::{ContextId, Errno, Fault, Reply};

use super::super::Kernel;
use super::super::call::CallNo;
use super::super::effect::Effect;
use super::super::event::{ModelId, WorkerId};
use super::State;

/// Questions that a worker has at once; more wait here, so that a withdrawn one costs the worker nothing.
const ASKED_AT_ONCE_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waits,
    Asked,
}

/// A question without an answer.
#[derive(Debug)]
struct Asked {
    question: Question,
    /// Absent when the call was withdrawn and the worker still has the question.
    call: Option<CallNo>,
    /// The context at the head of whose line the call is.
    context: Option<ContextId>,
    stage: Stage,
    suspect: bool,
}

/// All questions of one model, by number.
#[derive(Debug, Default)]
pub(in crate::core) struct Questions {
    open: BTreeMap<u64, Asked>,
    next: u64,
}

impl Questions {
    /// Forgets the question of a call; one that the worker has is answered to nobody.
    pub(in crate::core) fn withdraw(&mut self, call: CallNo) {
        self.open.retain(|_, q| q.call != Some(call) || q.stage == Stage::Asked);
        for question in self.open.values_mut().filter(|q| q.call == Some(call)) {
            question.call = None;
        }
    }

    /// Whether suspects are to be asked before a step may begin, or have been and are not answered.
    pub(in crate::core) fn suspects_go_first(&self) -> bool {
        self.open.values().any(|q| q.suspect)
    }

    /// The numbers of questions that may be asked now.
    fn due(&self, step_runs: bool) -> Vec<u64> {
        let asked = self.open.values().filter(|q| q.stage == Stage::Asked).count();
        if let Some((number, _)) = self.open.iter().find(|(_, q)| q.suspect) {
            let alone = asked == 0 && !step_runs;
            return if alone { vec![*number] } else { vec![] };
        }
        let waiting = self.open.iter().filter(|(_, q)| q.stage == Stage::Waits);
        waiting.map(|(n, _)| *n).take(ASKED_AT_ONCE_MAX.saturating_sub(asked)).collect()
    }

    /// Whether the worker has questions.
    pub(super) fn any_asked(&self) -> bool {
        self.open.values().any(|q| q.stage == Stage::Asked)
    }

    /// Turns what the dead worker had into suspects. A suspect that was asked alone is the culprit, and is taken
    /// out.
    pub(super) fn worker_died(&mut self, step_ran: bool) -> Option<(CallNo, Option<ContextId>)> {
        self.open.retain(|_, q| q.stage == Stage::Waits || q.call.is_some());
        let asked = self.open.values().filter(|q| q.stage == Stage::Asked).count();
        let alone = asked == 1 && !step_ran;
        let culprit = self.open.iter().find(|(_, q)| alone && q.stage == Stage::Asked && q.suspect);
        let culprit = culprit.map(|(number, _)| *number);
        let found = culprit.and_then(|number| self.open.remove(&number));
        for question in self.open.values_mut().filter(|q| q.stage == Stage::Asked) {
            question.stage = Stage::Waits;
            question.suspect = true;
        }
        found.and_then(|q| Some((q.call?, q.context)))
    }

    /// Takes all calls out.
    pub(super) fn take_calls(&mut self) -> Vec<(CallNo, Option<ContextId>)> {
        let open = std::mem::take(&mut self.open);
        open.into_values().filter_map(|q| Some((q.call?, q.context))).collect()
    }
}

impl Kernel {
    /// Puts a question to the worker of a model, now or when there is one.
    ///
    /// # Errors
    ///
    /// ENODEV where the model is offline.
    pub(in crate::core) fn ask(
        &mut self,
        model: ModelId,
        call: CallNo,
        context: Option<ContextId>,
        question: Question,
    ) -> Result<(), Fault> {
        self.model(model)?.check_usable()?;
        let Some(model) = self.models.get_mut(&model) else { return Ok(()) };
        model.questions.next += 1;
        let asked = Asked { question, call: Some(call), context, stage: Stage::Waits, suspect: false };
        model.questions.open.insert(model.questions.next, asked);
        Ok(())
    }

    /// Sends the questions that are due.
    pub(in crate::core) fn send_questions(&mut self, id: ModelId) {
        let Some(model) = self.models.get_mut(&id).filter(|m| m.state == State::Ready) else { return };
        let worker = model.worker();
        for number in model.questions.due(model.in_flight.is_some()) {
            let Some(asked) = model.questions.open.get_mut(&number) else { continue };
            asked.stage = Stage::Asked;
            self.out.push(Effect::Ask { worker, number, question: asked.question.clone() });
        }
    }

    /// Takes an answer.
    pub(in crate::core) fn answered(
        &mut self,
        worker: WorkerId,
        number: u64,
        answer: Result<Answer, DriverFault>,
    ) {
        let Some(model) = self.live_model(worker) else { return };
        let Some(asked) = model.questions.open.remove(&number).filter(|q| q.stage == Stage::Asked) else {
            return self.worker_broken(worker, "it answered a question that was not asked");
        };
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
            Ok(Reply::Embedded(vectors))
        }
        _ => Err(Fault::new(Errno::EIO, "the worker answered another question than was asked")),
    }
}
