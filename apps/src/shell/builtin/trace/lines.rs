//! A trace as lines for people, in the form of strace.
//!
//! A call is shown when it is made, and its answer behind it on the same line. Where something else comes in between,
//! the line ends with `<unfinished …>`, and the answer has a line of its own that says which call it resumes.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use serde_json::{Map, Value};
use syscalls::call::Sampling;
use syscalls::event::ProcessChange;
use syscalls::{Event, Fault, Pid};

use super::super::arguments::name_of;
use crate::terminal::clean::clean;
use crate::terminal::note;
use crate::terminal::output::Output;

/// Characters of a text, and entries of a list, that are shown.
const SHOWN: usize = 32;

/// Where the lines go.
pub enum Stream {
    /// To standard output.
    Output,
    /// To standard error, where standard output is the traced program's.
    Error,
}

/// The lines of one trace.
pub struct Lines {
    stream: Stream,
    output: Output,
    /// Each line says whose it is.
    pids: bool,
    /// The call whose line is not ended.
    open: Option<u64>,
}

impl Lines {
    /// Begins.
    pub fn new(stream: Stream, pids: bool) -> Self {
        Lines { stream, output: Output::stdout(), pids, open: None }
    }

    /// Shows an event.
    pub fn take(&mut self, event: &Event) -> io::Result<()> {
        let text = self.text(event);
        self.write(&text)
    }

    /// Ends the last line.
    pub fn finish(mut self) -> io::Result<()> {
        let text = self.end_line();
        self.write(&text)
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        match self.stream {
            Stream::Output => self.output.write(text),
            Stream::Error => {
                note::part(format_args!("{text}"));
                Ok(())
            }
        }
    }

    fn text(&mut self, event: &Event) -> String {
        match event {
            Event::Called { pid, number, call, args, .. } => {
                let text = format!("{}{}{call}({})", self.end_line(), self.whose(*pid), arguments(args));
                self.open = Some(*number);
                text
            }
            Event::Returned { pid, number, call, took_us, result, fault, .. } => {
                let answer = answer(result.as_ref(), fault.as_ref());
                let seconds = Duration::from_micros(*took_us).as_secs_f64();
                if self.open.take_if(|open| open == number).is_some() {
                    return format!(" = {answer} <{seconds:.6}>\n");
                }
                format!(
                    "{}{}<… {call} resumed> = {answer} <{seconds:.6}>\n",
                    self.end_line(),
                    self.whose(*pid)
                )
            }
            Event::Sampled { pid, context, token, text, .. } => {
                self.line(*pid, &format!("token(context={context}) = {token} {}", quoted(text)))
            }
            Event::Signalled { pid, signal, .. } => {
                self.line(*pid, &format!("--- SIG{} ---", name_of(signal)))
            }
            Event::Process { pid, parent, name, change: ProcessChange::Started, .. } => {
                self.line(*pid, &format!("+++ process {pid} {} of {parent} +++", quoted(name)))
            }
            Event::Process { pid, status, .. } => {
                self.line(*pid, &format!("+++ exited with {} +++", status.unwrap_or_default()))
            }
            Event::Step { number, model, elapsed_us, rows, .. } => {
                let row = |r: &syscalls::event::StepRow| {
                    format!(
                        "context {} {} {}",
                        r.context,
                        if r.prefill { "prefill" } else { "decode" },
                        r.tokens
                    )
                };
                let rows: Vec<String> = rows.iter().map(row).collect();
                let text =
                    format!("step {number} of {}: {} <{elapsed_us} us>\n", clean(model), rows.join(", "));
                self.end_line() + &text
            }
            Event::Lost { events } => self.end_line() + &format!("… {events} events lost\n"),
            _ => String::new(),
        }
    }

    fn line(&mut self, pid: Pid, text: &str) -> String {
        format!("{}{}{text}\n", self.end_line(), self.whose(pid))
    }

    /// What ends the line of a call that has no answer yet.
    fn end_line(&mut self) -> String {
        if self.open.take().is_some() { " <unfinished …>\n".into() } else { String::new() }
    }

    fn whose(&self, pid: Pid) -> String {
        if self.pids { format!("[{pid}] ") } else { String::new() }
    }
}

/// Arguments by name, but for those that say nothing: flags that are not set, lists without anything, and settings of
/// sampling as they are by default.
fn arguments(args: &Value) -> String {
    let Value::Object(fields) = args else { return value(args) };
    let defaults = serde_json::to_value(Sampling::default()).unwrap_or_default();
    let mut fields = fields.clone();
    if let Some(Value::Object(sampling)) = fields.get_mut("sampling") {
        sampling.retain(|name, value| defaults.get(name) != Some(value));
    }
    named(&fields)
}

fn named(fields: &Map<String, Value>) -> String {
    let mut text = String::new();
    for (name, field) in fields {
        let says_nothing = match field {
            Value::Null | Value::Bool(false) => true,
            Value::Array(values) => values.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        };
        if !says_nothing {
            let comma = if text.is_empty() { "" } else { ", " };
            write!(text, "{comma}{}={}", clean(name), value(field)).expect("a string takes everything");
        }
    }
    text
}

/// A reply by its kind and fields, or a fault by its number and sentence.
fn answer(result: Option<&Value>, fault: Option<&Fault>) -> String {
    if let Some(fault) = fault {
        return format!("-1 {} ({})", fault.errno, clean(&fault.message));
    }
    let Some(Value::Object(kinds)) = result else { return "?".into() };
    let kind = |(name, fields): (&String, &Value)| match fields {
        Value::Object(fields) if fields.is_empty() => name.clone(),
        Value::Object(fields) => format!("{name}({})", named(fields)),
        other => format!("{name} {}", value(other)),
    };
    kinds.iter().map(kind).collect()
}

fn value(of: &Value) -> String {
    match of {
        Value::String(text) => quoted(text),
        Value::Array(values) => {
            let shown: Vec<String> = values.iter().take(SHOWN).map(value).collect();
            let more = if values.len() > SHOWN { ", …" } else { "" };
            format!("[{}{more}]", shown.join(", "))
        }
        Value::Object(fields) => format!("{{{}}}", named(fields)),
        other => other.to_string(),
    }
}

/// A text between quotes, on one line, its end cut.
fn quoted(text: &str) -> String {
    let cut = text.char_indices().nth(SHOWN).map(|(end, _)| end);
    let shown = Value::String(text[..cut.unwrap_or(text.len())].to_owned()).to_string();
    format!("{}{}", clean(&shown), if cut.is_some() { "…" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;
    use syscalls::call::{Generate, Signal};
    use syscalls::{Call, ContextId, Errno, Token, Tokens};

    fn called(number: u64, call: &str, args: Value) -> Event {
        Event::Called { at_us: 1, pid: Pid(7), number, call: call.into(), args }
    }

    fn returned(number: u64, call: &str, result: Value) -> Event {
        let (at_us, took_us) = (2, 1500);
        Event::Returned {
            at_us,
            pid: Pid(7),
            number,
            call: call.into(),
            took_us,
            result: Some(result),
            fault: None,
        }
    }

    fn shown(events: &[Event], pids: bool) -> String {
        let mut lines = Lines::new(Stream::Output, pids);
        let text: String = events.iter().map(|event| lines.text(event)).collect();
        text + &lines.end_line()
    }

    #[test]
    fn call_and_answer_share_a_line() {
        let generate = Call::from(Generate {
            context: ContextId(3),
            max_tokens: Some(Tokens(2)),
            stop: vec![],
            sampling: Sampling { temperature: 0.0, ..Sampling::default() },
            ignore_eos: false,
            logprobs: None,
            stream: true,
            deadline_ms: None,
        });
        let fault = Some(Fault::new(Errno::EBADF, "process 7 has no context 9"));
        let failed = Event::Returned {
            at_us: 1,
            pid: Pid(7),
            number: 3,
            call: "close".into(),
            took_us: 0,
            result: None,
            fault,
        };
        let events = [
            called(1, "generate", generate.args()),
            returned(
                1,
                "generate",
                json!({"generated": {"finish": "length", "text": "a\u{1b}[2Jb", "tokens": [97, 98]}}),
            ),
            called(2, "append", json!({"context": 3, "text": "x".repeat(40)})),
            returned(2, "append", json!({"done": {}})),
            called(3, "close", json!({"context": 9})),
            failed,
        ];
        expect![[r#"
            generate(context=3, max_tokens=2, sampling={temperature=0.0}, stream=true) = generated(finish="length", text="a\u001b[2Jb", tokens=[97, 98]) <0.001500>
            append(context=3, text="xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"…) = done <0.001500>
            close(context=9) = -1 EBADF (process 7 has no context 9) <0.000000>
        "#]]
        .assert_eq(&shown(&events, false));
    }

    #[test]
    fn call_with_something_in_between_is_resumed() {
        let (at_us, pid, context) = (1, Pid(7), ContextId(3));
        let events = [
            called(1, "receive", json!({})),
            Event::Sampled { at_us, pid, number: 9, context, token: Token(101), text: "e".into() },
            Event::Signalled { at_us, pid, signal: Signal::Int },
            returned(1, "receive", json!({"message": {"from": 2, "data": 1}})),
            Event::Lost { events: 12 },
            called(2, "receive", json!({})),
        ];
        expect![[r#"
            [7] receive() <unfinished …>
            [7] token(context=3) = 101 "e"
            [7] --- SIGINT ---
            [7] <… receive resumed> = message(from=2, data=1) <0.001500>
            … 12 events lost
            [7] receive() <unfinished …>
        "#]]
        .assert_eq(&shown(&events, true));
    }
}
