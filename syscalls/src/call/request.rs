//! How a request is read from a line and written to one.
//!
//! What is wrong with a line is told in full but for what was sent, which can be megabytes.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Call, nearest};
use crate::errno::{Errno, Fault, shown};
use crate::id::{CallId, Pid};

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Chosen by the client; the reply and the events carry it back.
    pub id: CallId,
    /// The process that acts: the connection's own, or a descendant that it spawned.
    pub pid: Option<Pid>,
    /// What is asked.
    pub call: Call,
}

/// A request before its call is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    id: Option<CallId>,
    #[serde(default)]
    pid: Option<Pid>,
    call: Option<String>,
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct EnvelopeOut<'a> {
    id: CallId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<Pid>,
    call: &'a str,
    args: Box<RawValue>,
}

impl Request {
    /// Reads a request from one line.
    ///
    /// # Errors
    ///
    /// The fault to answer with, beside the `id` where one could be read: EPROTO for what is no request, EINVAL
    /// for wrong arguments, ENOSYS for an unknown call.
    pub fn from_line(line: &[u8]) -> Result<Request, (Option<CallId>, Fault)> {
        let text = std::str::from_utf8(line).map_err(|e| {
            (
                None,
                Fault::new(Errno::EPROTO, format!("the line is not UTF-8 from byte {} on", e.valid_up_to())),
            )
        })?;
        let envelope: Envelope = serde_json::from_str(text).map_err(|e| (None, bad_envelope(&e)))?;
        let Some(id) = envelope.id else {
            return Err((None, Fault::new(Errno::EPROTO, "the request has no `id`; give each a number")));
        };
        let Some(name) = envelope.call else {
            return Err((Some(id), Fault::new(Errno::EPROTO, "the request has no `call`; name one")));
        };
        let args = envelope.args.map_or("{}", RawValue::get);
        let call = Call::read(&name, args).map_err(|fault| (Some(id), fault))?;
        Ok(Request { id, pid: envelope.pid, call })
    }

    /// Writes the request as one line, newline included.
    ///
    /// # Errors
    ///
    /// EINVAL where an argument has no JSON form, such as a number that is not finite.
    pub fn to_line(&self) -> Result<Vec<u8>, Fault> {
        let no_json =
            |e: serde_json::Error| Fault::new(Errno::EINVAL, format!("the request has no JSON form: {e}"));
        let args = self.call.args_json().map_err(no_json)?;
        let out = EnvelopeOut { id: self.id, pid: self.pid, call: self.call.name(), args };
        let mut line = serde_json::to_vec(&out).map_err(no_json)?;
        line.push(b'\n');
        Ok(line)
    }
}

fn bad_envelope(error: &serde_json::Error) -> Fault {
    Fault::new(
        Errno::EPROTO,
        format!(
            r#"the line is not a request: {}; send {{"id":1,"call":"hello","args":{{"version":1}}}} first"#,
            shown(&error.to_string())
        ),
    )
}

pub(super) fn bad_args(name: &str, error: &serde_json::Error) -> Fault {
    Fault::new(Errno::EINVAL, format!("{name}: {}", shown(&error.to_string())))
}

pub(super) fn unknown_call(name: &str) -> Fault {
    let shown: String = name.chars().take(64).collect();
    let mut message = format!("unknown call `{shown}`");
    if let Some(near) = nearest(name, Call::NAMES) {
        message.push_str(&format!("; did you mean `{near}`?"));
    }
    Fault::new(Errno::ENOSYS, message)
}

#[cfg(test)]
mod tests {
    use super::super::{Generate, Kill, Sampling, Signal};
    use super::*;
    use crate::id::{ContextId, Tokens};

    fn fault(line: &str) -> (Option<CallId>, Errno, String) {
        let (id, fault) = Request::from_line(line.as_bytes()).expect_err("the line must be refused");
        (id, fault.errno, fault.message)
    }

    #[test]
    fn request_written_and_read_is_the_same() {
        let call = Call::Generate(Generate {
            context: ContextId(3),
            max_tokens: Some(Tokens(8)),
            stop: vec!["\n".into()],
            sampling: Sampling { seed: Some(7), ..Sampling::default() },
            ignore_eos: true,
            logprobs: Some(2),
            stream: false,
            deadline_ms: Some(500),
        });
        let request = Request { id: CallId(9), pid: Some(Pid(4)), call };
        let line = request.to_line().expect("has a JSON form");
        assert_eq!(line.last(), Some(&b'\n'));
        assert_eq!(Request::from_line(&line).expect("reads back"), request);
    }

    #[test]
    fn argument_unknown_is_named() {
        let (id, errno, message) = fault(r#"{"id":5,"call":"exit","args":{"statsu":1}}"#);
        assert_eq!((id, errno), (Some(CallId(5)), Errno::EINVAL));
        assert!(message.contains("statsu") && message.contains("status"), "{message}");
    }

    #[test]
    fn fault_about_a_huge_argument_is_short() {
        let (_, errno, message) =
            fault(&format!(r#"{{"id":5,"call":"exit","args":{{"{}":1}}}}"#, "ü".repeat(1 << 20)));
        assert_eq!(errno, Errno::EINVAL);
        assert!(message.len() < 2048, "{} bytes", message.len());
        assert!(message.contains("unknown field") && message.contains("column"), "{message}");
    }

    #[test]
    fn call_misspelt_suggests_the_right_one() {
        let (_, errno, message) = fault(r#"{"id":5,"call":"genrate"}"#);
        assert_eq!(errno, Errno::ENOSYS);
        assert!(message.contains("did you mean `generate`?"), "{message}");
    }

    #[test]
    fn line_without_id_is_a_protocol_fault() {
        assert_eq!(fault(r#"{"call":"ps"}"#).1, Errno::EPROTO);
        assert_eq!(fault("[1,2").1, Errno::EPROTO);
        assert_eq!(fault("").1, Errno::EPROTO);
    }

    #[test]
    fn arguments_absent_take_their_defaults() {
        let request = Request::from_line(br#"{"id":1,"call":"kill","args":{"pid":7}}"#).expect("valid");
        assert_eq!(request.call, Call::Kill(Kill { pid: Pid(7), signal: Signal::Term }));
    }
}
