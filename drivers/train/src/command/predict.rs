//! `predict`: a trained model answers questions. A program of the daemon gets them as messages and answers with messages,
//! in turns that the daemon grants; any other reads lines and writes lines.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};
use syscalls::call::Class;
use syscalls::{Errno, paths};

use super::turns::Turns;
use crate::predict::Predictor;
use crate::run::{Always, RunError, Stop, Turn};
use crate::trained::{Trained, Which};

#[derive(Debug, Args)]
pub(super) struct Predict {
    /// The folder of a run, or of a model in the Hugging Face layout
    model: PathBuf,
    /// The newest checkpoint of a run instead of the best one
    #[arg(long)]
    last: bool,
    /// Ends after so long without a question, where questions come as messages
    #[arg(long, value_name = "SECONDS", default_value = "600")]
    patience: u64,
}

pub(super) fn predict(arguments: &Predict) -> Result<ExitCode, RunError> {
    let which = if arguments.last { Which::Newest } else { Which::Best };
    let mut predictor = Predictor::new(Trained::load(&arguments.model, which)?)?;
    match std::env::var_os(paths::SOCKET_FD_VAR).is_some() {
        true => messages(&mut predictor, arguments.patience.saturating_mul(1000)),
        false => lines(&mut predictor),
    }
}

/// Answers messages until none comes any more, or the daemon has ended this process.
fn messages(predictor: &mut Predictor, patience_ms: u64) -> Result<ExitCode, RunError> {
    let refused = |fault: syscalls::Fault| RunError::Unfit(format!("the daemon refuses: {}", fault.message));
    let mut turns = Turns::new(paths::socket(), Class::Interactive, 0, Stop::default());
    turns.connect().map_err(refused)?;
    while let Some((from, question)) = turns.receive(patience_ms).map_err(refused)? {
        let answer = answer(predictor, question, &mut turns);
        turns.rest();
        let id = answer.get("id").cloned();
        let sent = match turns.send(from, answer) {
            Err(fault) if fault.errno == Errno::EMSGSIZE => {
                let why = format!("the answer fits into no message, ask for less: {}", fault.message);
                turns.send(from, refusal(why, id))
            }
            sent => sent,
        };
        sent.map_err(refused)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// An answer that says what is wrong, with the `id` of the question.
fn refusal(why: String, id: Option<Value>) -> Value {
    let id = id.map(|id| ("id".to_owned(), id));
    Value::Object(Map::from_iter([("error".to_owned(), why.into())].into_iter().chain(id)))
}

fn lines(predictor: &mut Predictor) -> Result<ExitCode, RunError> {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| RunError::Unfit(format!("standard input: {error}")))?;
        let answer = match serde_json::from_str(&line) {
            Ok(question) => answer(predictor, question, &mut Always),
            Err(error) => json!({ "error": format!("no JSON: {error}") }),
        };
        let written = writeln!(out, "{answer}").and_then(|()| out.flush());
        written.map_err(|error| RunError::Unfit(format!("standard output: {error}")))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The answer, with the `id` of the question. What is wrong is an answer, too.
fn answer(predictor: &mut Predictor, mut question: Value, turn: &mut dyn Turn) -> Value {
    let id = question.as_object_mut().and_then(|fields| fields.remove("id"));
    let answered = serde_json::from_value(question)
        .map_err(|error| error.to_string())
        .and_then(|question| predictor.answer(&question, turn).map_err(|error| error.to_string()));
    let mut fields = match answered.map(|answer| json!(answer)) {
        Ok(Value::Object(fields)) => fields,
        Ok(other) => Map::from_iter([("answer".to_owned(), other)]),
        Err(why) => return refusal(why, id),
    };
    fields.extend(id.map(|id| ("id".to_owned(), id)));
    Value::Object(fields)
}
