//! Replays: makes the calls of a recording again, and finds where the answers differ first.
//!
//! A call is made when the recording says that it was made, and its answer is taken when the recording says that it
//! came, so what depended on an answer then depends on it now. Only what follows from contexts is made again (`plan.rs`
//! says what); the rest changes the world, or came from it. A generation gets the seed that its reply names, and one that
//! a signal cut short is cut at the same token.

mod compare;
mod models;
mod plan;

use std::collections::BTreeMap;

use serde::Deserialize;
use syscalls::call::{Append, Open};
use syscalls::client::blocking::Client;
use syscalls::{Call, CallId, ContextId, Errno, Event, Fault, Pid, Reply, Token, shown};

use crate::recording::Recording;
use compare::Trouble;
pub use models::{Models, Unfit, wanted};

/// What became of a replay.
#[derive(Debug)]
pub enum Verdict {
    /// Every answer was the same.
    Identical(Counts),
    /// One was not.
    Differs(Difference),
}

/// How much was compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls.
    pub calls: u64,
    /// Generated tokens.
    pub tokens: u64,
    /// Calls that were not made again, by their names.
    pub left_out: BTreeMap<String, u64>,
}

/// The first difference.
#[derive(Debug)]
pub struct Difference {
    /// Which of the recorded calls, counted from 1.
    pub call: u64,
    /// Its name, and what it was about.
    pub about: String,
    /// What differs.
    pub what: String,
    /// What stands before it, where it is a token.
    pub before: Option<String>,
}

/// A context of the recording, as it is in the replay.
#[derive(Clone, Debug)]
struct Twin {
    id: ContextId,
    /// The name of its model now.
    model: String,
}

/// A call that has been made and not answered.
struct Made {
    /// Which of the recorded calls.
    ordinal: u64,
    id: CallId,
    /// As it was recorded.
    call: Call,
}

/// What a recorded call led to.
#[derive(Clone, Debug, Default)]
struct Outcome {
    /// The reply, or the fault.
    answer: Option<Result<Reply, Fault>>,
    /// The tokens that it was traced to sample, where they were.
    sampled: Vec<Token>,
}

/// A replay that runs.
pub struct Replay<'a> {
    client: &'a mut Client,
    recording: &'a Recording,
    models: &'a Models,
    outcomes: BTreeMap<u64, Outcome>,
    pids: BTreeMap<Pid, Pid>,
    twins: BTreeMap<ContextId, Twin>,
    made: BTreeMap<u64, Made>,
    counts: Counts,
}

/// Replays a recording. `models` are those of the daemon or simulation that the client speaks to.
///
/// # Errors
///
/// The connection ends, or an answer in the recording has a form that is not known.
pub fn replay(client: &mut Client, recording: &Recording, models: &Models) -> Result<Verdict, Fault> {
    let replay = Replay {
        client,
        recording,
        models,
        outcomes: outcomes(recording)?,
        pids: BTreeMap::new(),
        twins: BTreeMap::new(),
        made: BTreeMap::new(),
        counts: Counts::default(),
    };
    replay.run()
}

/// What each call of a recording led to, by its number.
fn outcomes(recording: &Recording) -> Result<BTreeMap<u64, Outcome>, Fault> {
    let mut outcomes: BTreeMap<u64, Outcome> = BTreeMap::new();
    for event in &recording.events {
        match event {
            Event::Returned { number, call, result, fault, .. } => {
                let reply = result.as_ref().map(|reply| read_reply(call, reply)).transpose()?.map(Ok);
                outcomes.entry(*number).or_default().answer = reply.or(fault.clone().map(Err));
            }
            Event::Sampled { number, token, .. } => outcomes.entry(*number).or_default().sampled.push(*token),
            _ => {}
        }
    }
    Ok(outcomes)
}

/// Reads a recorded reply. A call without one would be left out, and the replay would say that all is the same.
fn read_reply(call: &str, reply: &serde_json::Value) -> Result<Reply, Fault> {
    Reply::deserialize(reply).map_err(|e| {
        let (call, why) = (shown(call), shown(&e.to_string()));
        let message =
            format!("the recording has a reply to {call} that is not known: {why}; record it again");
        Fault::new(Errno::EPROTO, message)
    })
}

impl Replay<'_> {
    fn run(mut self) -> Result<Verdict, Fault> {
        let mut ordinal = 0;
        let recording = self.recording;
        for event in &recording.events {
            match event {
                Event::Called { pid, number, call, args, .. } => {
                    ordinal += 1;
                    self.called(ordinal, *pid, *number, call, args)?;
                }
                Event::Returned { number, .. } => {
                    if let Some(difference) = self.returned(*number)? {
                        return Ok(Verdict::Differs(difference));
                    }
                }
                Event::Held { pid, context, model, tokens, tokens_max, on_full, busy: false, .. } => {
                    let (tokens_max, on_full) = (Some(*tokens_max), *on_full);
                    let open =
                        Open { model: Some(self.models.here(model)), tokens_max, on_full, prefix: None };
                    self.held(*pid, *context, open, tokens)?;
                }
                _ => {}
            }
        }
        Ok(Verdict::Identical(self.counts))
    }

    /// Makes a call again, if it is one of those that are.
    fn called(
        &mut self,
        ordinal: u64,
        pid: Pid,
        number: u64,
        name: &str,
        args: &serde_json::Value,
    ) -> Result<(), Fault> {
        let outcome = self.outcomes.get(&number).cloned().unwrap_or_default();
        let planned = plan::read(name, args).and_then(|call| {
            let again = plan::again(&call, &outcome, &self.twins, &self.pids, self.models)?;
            Some((call, again))
        });
        let Some((call, again)) = planned else {
            *self.counts.left_out.entry(name.to_owned()).or_default() += 1;
            return Ok(());
        };
        let pid = self.process(pid)?;
        let id = self.client.start_as(pid, again)?;
        self.made.insert(number, Made { ordinal, id, call });
        Ok(())
    }

    /// The process that acts for a recorded one. The first is the replay's own.
    fn process(&mut self, recorded: Pid) -> Result<Pid, Fault> {
        if let Some(pid) = self.pids.get(&recorded) {
            return Ok(*pid);
        }
        let pid = match self.pids.is_empty() {
            true => self.client.pid(),
            false => self.client.spawn("replay")?,
        };
        self.pids.insert(recorded, pid);
        Ok(pid)
    }

    /// Takes the answer of a call that was made again, and compares it.
    fn returned(&mut self, number: u64) -> Result<Option<Difference>, Fault> {
        let Some(made) = self.made.remove(&number) else { return Ok(None) };
        let outcome = self.outcomes.remove(&number).unwrap_or_default();
        let Some(recorded) = outcome.answer else { return Ok(None) };
        let now = match self.client.finish(made.id, |_| {}) {
            // The connection is gone, which is no answer.
            Err(fault) if fault.errno == Errno::ECONNRESET => return Err(fault),
            answer => answer,
        };
        let model = self.model_of(&made.call);
        if let Err(trouble) = compare::compare(&recorded, &outcome.sampled, &now) {
            return Ok(Some(self.difference(&made, &model, trouble)));
        }
        self.counts.calls += 1;
        match (recorded, now) {
            (Ok(Reply::Opened { context, model, .. }), Ok(Reply::Opened { context: id, .. })) => {
                let model = self.models.here(&model);
                self.twins.insert(context, Twin { id, model });
            }
            (Ok(Reply::Forked { contexts }), Ok(Reply::Forked { contexts: ids })) => {
                for (context, id) in contexts.into_iter().zip(ids) {
                    self.twins.insert(context, Twin { id, model: model.clone() });
                }
            }
            (Ok(Reply::Spawned { pid }), Ok(Reply::Spawned { pid: now })) => drop(self.pids.insert(pid, now)),
            (Ok(Reply::Generated(generated)), _) => self.counts.tokens += generated.tokens.len() as u64,
            _ => {}
        }
        Ok(None)
    }

    /// A context holds tokens that no call in the recording has brought there.
    fn held(&mut self, pid: Pid, context: ContextId, open: Open, tokens: &[Token]) -> Result<(), Fault> {
        let pid = self.process(pid)?;
        let Reply::Opened { context: id, model, .. } = self.client.call_as(pid, open)? else { return Ok(()) };
        if !tokens.is_empty() {
            let tokens = Some(tokens.to_vec());
            let append = Append { context: id, text: None, tokens, messages: None, special: false };
            self.client.call_as(pid, append)?;
        }
        self.twins.insert(context, Twin { id, model });
        Ok(())
    }

    fn model_of(&self, call: &Call) -> String {
        let context = plan::context_of(call);
        context.and_then(|id| self.twins.get(&id)).map(|twin| twin.model.clone()).unwrap_or_default()
    }

    fn difference(&mut self, made: &Made, model: &str, trouble: Trouble) -> Difference {
        let about = match plan::context_of(&made.call) {
            Some(context) => format!("{} on context {context}", made.call.name()),
            None => made.call.name().to_owned(),
        };
        let (what, before) = match trouble {
            Trouble::Said(what) => (what, None),
            Trouble::Token { at, of, recorded, now, before } => {
                let shown = |replay: &mut Self, token: Option<Token>| match token {
                    Some(token) => format!("{token}{}", replay.text(model, vec![token])),
                    None => "the end".to_owned(),
                };
                let (recorded, now) = (shown(self, recorded), shown(self, now));
                let before = self.text(model, before);
                (format!("token {at} of {of}: recorded {recorded}, now {now}"), Some(before))
            }
        };
        Difference { call: made.ordinal, about, what, before: before.filter(|text| !text.is_empty()) }
    }

    /// Tokens as a quoted text, with a blank before it; nothing where the model does not know them.
    fn text(&mut self, model: &str, tokens: Vec<Token>) -> String {
        if tokens.is_empty() {
            return String::new();
        }
        self.client.detokenize(Some(model), tokens).map(|text| format!(" {text:?}")).unwrap_or_default()
    }
}
