//! Which calls are made again, and with what arguments.
//!
//! | calls | why |
//! |-------|-----|
//! | open, fork, close, append, generate, truncate, tokens, tokenize, detokenize, embed, spawn, exit of a child | made again: what they answer follows from what was said before |
//! | open with a prefix, restore | not made: what they bring is in the recording (`held`) |
//! | all others | not made: they ask about the world, or change it |

use std::collections::BTreeMap;

use serde_json::{Value, json};
use syscalls::call::{
    Append, Close, Detokenize, Embed, Fork, Generate, Open, ReadTokens, Sampling, Spawn, Tokenize, Truncate,
};
use syscalls::reply::{Finish, GeneratedReply};
use syscalls::{Call, ContextId, Errno, Pid, Reply, Request, Tokens};

use super::models::Models;
use super::{Outcome, Twin};

/// Reads a recorded call; none where this version does not know it.
pub(super) fn read(name: &str, args: &Value) -> Option<Call> {
    let line = json!({"id": 1, "call": name, "args": args}).to_string();
    Request::from_line(line.as_bytes()).ok().map(|request| request.call)
}

/// The context that a call is about.
pub(super) fn context_of(call: &Call) -> Option<ContextId> {
    match call {
        Call::Fork(args) => Some(args.context),
        Call::Close(args) => Some(args.context),
        Call::Append(args) => Some(args.context),
        Call::Generate(args) => Some(args.context),
        Call::Truncate(args) => Some(args.context),
        Call::Tokens(args) => Some(args.context),
        _ => None,
    }
}

/// The model that a question is for, where it names one.
pub(super) fn model_of(call: &Call) -> Option<String> {
    match call {
        Call::Tokenize(args) => args.model.clone(),
        Call::Detokenize(args) => args.model.clone(),
        Call::Embed(args) => args.model.clone(),
        _ => None,
    }
}

/// The call that is made in the place of a recorded one; none for one that is left out.
pub(super) fn again(
    call: &Call,
    outcome: &Outcome,
    twins: &BTreeMap<ContextId, Twin>,
    pids: &BTreeMap<Pid, Pid>,
    models: &Models,
) -> Option<Call> {
    let answer = outcome.answer.as_ref()?;
    if answer.as_ref().is_err_and(|fault| of_circumstances(fault.errno)) {
        return None;
    }
    let twin = |id: &ContextId| twins.get(id).map(|twin| twin.id);
    let model = |name: &Option<String>| models.meant(name.as_deref());
    Some(match call.clone() {
        Call::Open(args) if args.prefix.is_none() => {
            let opened = answer.as_ref().ok().and_then(|reply| match reply {
                Reply::Opened { model, .. } => Some(model.clone()),
                _ => None,
            });
            // The model that it came to, whatever was the default then.
            Open { model: opened.map(|name| models.here(&name)).or(args.model.clone()), ..args }.into()
        }
        Call::Fork(args) => Fork { context: twin(&args.context)?, ..args }.into(),
        Call::Close(args) => Close { context: twin(&args.context)? }.into(),
        Call::Append(args) => Append { context: twin(&args.context)?, ..args }.into(),
        Call::Generate(args) => generate(args.clone(), twin(&args.context)?, answer.as_ref().ok())?.into(),
        Call::Truncate(args) => Truncate { context: twin(&args.context)?, ..args }.into(),
        Call::Tokens(args) => ReadTokens { context: twin(&args.context)?, ..args }.into(),
        Call::Tokenize(args) => Tokenize { model: Some(model(&args.model)?), ..args }.into(),
        Call::Detokenize(args) => Detokenize { model: Some(model(&args.model)?), ..args }.into(),
        Call::Embed(args) => Embed { model: Some(model(&args.model)?), ..args }.into(),
        // Its place among others is the machine's affair.
        Call::Spawn(args) if args.argv.is_empty() => {
            Spawn { class: None, nice: None, group: None, lifetime: None, ..args }.into()
        }
        // The first process is the replay's own, which ends with the recording.
        Call::Exit(args) if pids.len() > 1 => args.into(),
        _ => return None,
    })
}

/// A generation with the seed that it had, and no more tokens than came where a signal ended it.
fn generate(args: Generate, context: ContextId, reply: Option<&Reply>) -> Option<Generate> {
    let args = Generate { context, deadline_ms: None, stream: false, logprobs: None, ..args };
    let Some(Reply::Generated(GeneratedReply { finish, tokens, seed, .. })) = reply else {
        return Some(args);
    };
    let sampling = Sampling { seed: Some(*seed), ..args.sampling };
    let args = Generate { sampling, ..args };
    match finish {
        Finish::Interrupted if tokens.is_empty() => None,
        Finish::Interrupted => Some(Generate { max_tokens: Some(Tokens(tokens.len() as u32)), ..args }),
        _ => Some(args),
    }
}

/// Whether a fault says something about the moment, and not about the call.
fn of_circumstances(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EINTR
            | Errno::EAGAIN
            | Errno::ECANCELED
            | Errno::ETIMEDOUT
            | Errno::EIO
            | Errno::ENODEV
            | Errno::ENOMEM
            | Errno::ECONNRESET
            | Errno::EMFILE
    )
}
